"""What stays open, from the site and what was found; and the rules of any policy are ones that nft takes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dspark_ops.config.exposure import ExposureSite, allowed_port
from dspark_ops.exposure.policy import GATEWAY_PORT, NodePolicy, OpenPort, Rail, gateway_port, policy_of, ssh_ports
from dspark_ops.exposure.render import render, role_variables
from dspark_ops.facts.listeners import ListenerFacts
from tests.unit.exposure.conftest import run, site


def test_the_head_opens_ssh_and_the_gateway_and_the_worker_ssh_alone() -> None:
    assert [(p.rule, p.port, p.sources) for p in policy_of(site(), "head", [22]).ports] == [
        ("ssh", 22, None),
        ("gateway", GATEWAY_PORT, None),
    ]
    assert [p.rule for p in policy_of(site(), "worker", [22]).ports] == ["ssh"]


def test_the_rails_are_each_ends_own() -> None:
    head, worker = policy_of(site(), "head", [22]), policy_of(site(), "worker", [22])
    assert [(r.netdev, r.address, r.peer) for r in head.rails] == [
        ("enp1s0f0np0", "10.77.0.1", "10.77.0.2"),
        ("enP2p1s0f0np0", "10.77.1.1", "10.77.1.2"),
    ]
    assert [(r.peer, r.address) for r in worker.rails] == [(r.address, r.peer) for r in head.rails]


def test_the_gateways_port_is_the_sections_unless_the_exposure_says_another() -> None:
    assert gateway_port(site(gateway_port=9443)) == 9443


def test_allowed_ports_belong_to_the_nodes_that_they_name() -> None:
    wanted = site(allow=["tcp/9100", "head/udp/5000", "worker/tcp/3000@192.168.1.0/24"])
    head, worker = policy_of(wanted, "head", []).ports, policy_of(wanted, "worker", []).ports
    assert [p.rule for p in head] == ["gateway", "allow tcp/9100", "allow head/udp/5000"]
    assert [(p.rule, p.sources) for p in worker] == [
        ("allow tcp/9100", None),
        ("allow worker/tcp/3000@192.168.1.0/24", ("192.168.1.0/24",)),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"allow": ["9100"]},
        {"allow": ["tcp/0"]},
        {"allow": ["tcp/65536"]},
        {"allow": ["sctp/5"]},
        {"allow": ["both/tcp/5"]},
        {"allow": ["tcp/5@somewhere"]},
        {"management_sources": []},
        {"management_sources": ["192.168.1.5/24"]},
        {"gateway_sources": ["example.com"]},
        {"gateway_port": 0},
        {"health_route": "health"},
        {"open": True},
    ],
)
def test_what_is_no_policy_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ExposureSite.model_validate(wrong)


def test_an_entry_that_is_wrong_is_named_with_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"expected ports as tcp/9100.*'tcp/99999' is none"):
        allowed_port("tcp/99999")


def test_the_ssh_port_is_what_sshd_holds_and_where_this_session_came_to() -> None:
    """Under ssh.socket systemd holds the port: the session tells it."""
    held = [
        ListenerFacts(address="0.0.0.0", port=22, process="sshd", pid=1),
        ListenerFacts(address="::", port=2222, process="sshd", pid=1),
        ListenerFacts(address="127.0.0.1", port=6010, process="sshd", pid=2),
        ListenerFacts(address="0.0.0.0", port=80, process="nginx", pid=3),
    ]
    assert ssh_ports(held, 22) == {22, 2222}
    assert ssh_ports([ListenerFacts(address="*", port=22, process="systemd", pid=1)], 22) == {22}
    assert ssh_ports(None, None) == frozenset()


def test_sources_let_in_their_own_family() -> None:
    rule = OpenPort("ssh", "tcp", 22, ("10.0.0.0/8", "fd00::/8"))
    assert [rule.lets_in(text) for text in ("10.1.1.1", "fd00::1", "11.1.1.1", "::1")] == [True, True, False, False]


_V4 = st.ip_addresses(v=4).map(str)
_NET = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(lambda p: f"{p[0]}/{p[1]}"),
    st.tuples(st.ip_addresses(v=6), st.integers(0, 128)).map(lambda p: f"{p[0]}/{p[1]}"),
).map(lambda text: str(ip_network(text, strict=False)))
_PORT = st.builds(
    OpenPort,
    rule=st.one_of(st.just("ssh"), _NET.map(lambda net: f"allow head/tcp/1@{net}")),
    protocol=st.sampled_from(["tcp", "udp"]),
    port=st.integers(1, 65535),
    sources=st.one_of(st.none(), st.lists(_NET, min_size=1, max_size=4, unique=True).map(tuple)),
)
_RAIL = st.builds(Rail, netdev=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", fullmatch=True), address=_V4, peer=_V4)
_POLICY = st.builds(
    NodePolicy,
    role=st.just("head"),
    rails=st.lists(
        _RAIL, min_size=1, max_size=4, unique_by=(lambda r: r.netdev, lambda r: r.address, lambda r: r.peer)
    ).map(tuple),
    ports=st.lists(_PORT, max_size=6).map(tuple),
)


@pytest.fixture(scope="module")
def namespace(nft: None) -> Iterator[str]:
    """One for all policies: the kernel takes its time to make and to end each."""
    name = f"dx{os.getpid()}-check"
    run("ip", "netns", "add", name)
    yield name
    run("ip", "netns", "del", name)


@settings(max_examples=20, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
@given(policy=_POLICY)
def test_nft_takes_the_rules_of_every_policy(namespace: str, policy: NodePolicy) -> None:
    rules = render(policy)
    argv = ["ip", "netns", "exec", namespace, "nft", "-c", "-f", "-"]
    done = subprocess.run(argv, input=rules, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + rules
    # It names no table but its own, and never empties one.
    assert {line.split()[-1] for line in rules.splitlines() if line.startswith(("table", "delete"))} <= {
        "dspark_exposure",
        "{",
    }
    assert "flush" not in rules
    for port in policy.ports:
        per_chain = len(port.sources) if port.sources is not None else 1
        assert rules.count(f"{port.protocol} dport {port.port} counter accept") >= per_chain


def test_the_role_renders_the_same_template_from_these_variables() -> None:
    variables = role_variables(policy_of(site(management_sources=["10.0.0.0/8"]), "head", [22]))
    assert variables["exposure_ports"] == [
        {"rule": "ssh", "protocol": "tcp", "port": 22, "sources": ["10.0.0.0/8"]},
        {"rule": "gateway", "protocol": "tcp", "port": GATEWAY_PORT, "sources": []},
    ]
