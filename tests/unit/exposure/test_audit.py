"""From listeners and knocks to the table: exposed, allowed, closed, and what cannot be told."""

from __future__ import annotations

from typing import Literal

import pytest

from dspark_ops.exitcodes import ExitCode
from dspark_ops.exposure.audit import knocked, same_family, targets
from dspark_ops.exposure.judging import Attempt, ExposureAudit, NodeAudit, Row, conclude, judge_row, table
from dspark_ops.exposure.policy import policy_of
from dspark_ops.exposure.render import render
from dspark_ops.exposure.seen import FilterState, filter_state, read_node
from dspark_ops.facts.listeners import ListenerFacts
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.exposure.conftest import site

POLICY = policy_of(site(management_sources=["192.168.50.0/24"]), "head", [22])
SS = """\
LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=1,fd=3))
LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=1,fd=4))
LISTEN 0 128 127.0.0.1:8000 0.0.0.0:* users:(("vllm",pid=2,fd=3))
LISTEN 0 128 10.77.0.1:25000 0.0.0.0:* users:(("vllm",pid=2,fd=4))
LISTEN 0 128 *:41234 *:* users:(("vllm",pid=2,fd=5))
"""
UDP = 'UNCONN 0 0 0.0.0.0:5353 0.0.0.0:* users:(("avahi-daemon",pid=3,fd=12))\n'
ADDR = """[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]},
{"ifname":"enp1s0f0np0","addr_info":[{"family":"inet","local":"10.77.0.1","prefixlen":24,"scope":"global"}]},
{"ifname":"docker0","addr_info":[{"family":"inet","local":"172.17.0.1","prefixlen":16,"scope":"global"}]},
{"ifname":"enP7s7","addr_info":[{"family":"inet6","local":"fd50::1","prefixlen":64,"scope":"global"},
{"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"},
{"family":"inet","local":"192.168.50.1","prefixlen":24,"scope":"global"}]}]"""


def reading(**results: ProbeResult) -> NodeReading:
    found = {
        "listeners.tcp": ProbeResult(id="listeners.tcp", rc=0, stdout=SS, stderr=""),
        "listeners.udp": ProbeResult(id="listeners.udp", rc=0, stdout=UDP, stderr=""),
        "links.addr": ProbeResult(id="links.addr", rc=0, stdout=ADDR, stderr=""),
        "links.sysfs": ProbeResult(id="links.sysfs", files={}),
        "exposure.session": ProbeResult(
            id="exposure.session", rc=0, stdout="192.168.50.9 50000 192.168.50.1 22\n", stderr=""
        ),
        "exposure.table": ProbeResult(id="exposure.table", rc=1, stderr="Error: No such file or directory"),
        "exposure.file": ProbeResult(id="exposure.file", files={}),
    }
    return NodeReading(node="head", reachable=True, results=found | {r.id: r for r in results.values()})


def knock(
    said: str, viewpoint: Literal["control", "worker"] = "worker", client: str | None = "192.168.50.9"
) -> Attempt:
    return Attempt(viewpoint=viewpoint, client=client, target="192.168.50.1 41234", said=said)


def row(address: str, port: int, *attempts: Attempt, state: FilterState = "in force", protocol: str = "tcp") -> Row:
    listener = ListenerFacts(address=address, port=port, process="x", pid=1)
    return judge_row(POLICY, protocol, listener, attempts, state)  # type: ignore[arg-type]


def test_a_reading_tells_listeners_session_and_where_to_knock() -> None:
    seen = read_node(site(), "head", reading())
    assert (seen.client, seen.port, seen.addresses) == ("192.168.50.9", 22, ("192.168.50.1", "fd50::1"))
    assert [(item.address, item.port) for item in seen.udp or ()] == [("0.0.0.0", 5353)]
    assert targets(seen, seen.policy(site())) == (
        ("192.168.50.1", 22),
        ("fd50::1", 22),
        ("192.168.50.1", 41234),
        ("fd50::1", 41234),
    )


def test_a_wildcard_of_ipv4_is_not_tried_over_ipv6() -> None:
    addresses = ("192.168.50.1", "fd50::1")
    assert knocked(ListenerFacts(address="0.0.0.0", port=1), addresses) == ("192.168.50.1",)
    assert knocked(ListenerFacts(address="*", port=1), addresses) == addresses
    assert knocked(ListenerFacts(address="192.168.50.1", port=1), ()) == ("192.168.50.1",)


def test_who_knocks_over_ipv6_comes_from_an_address_of_ipv6() -> None:
    """Else a rule for a network of IPv4 would seem to let it in."""
    own = ("192.168.50.2", "fd50::2")
    assert same_family(own, "192.168.50.1 22") == "192.168.50.2"
    assert same_family(own, "fd50::1 22") == "fd50::2"
    assert same_family(own[:1], "fd50::1 22") is None


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (row("127.0.0.1", 8000), "ok"),
        (row("::ffff:127.0.0.1", 8000), "ok"),
        (row("::1", 8000), "ok"),
        (row("10.77.0.1", 25000), "ok"),
        (row("*", 41234, knock("silent")), "ok"),
        (row("*", 41234, knock("refused"), knock("open")), "exposed"),
        (row("0.0.0.0", 41234), "unknown"),
        (row("0.0.0.0", 41234, knock("No route to host")), "unknown"),
        (row("0.0.0.0", 41234, knock("silent"), state="absent"), "unknown"),
        (row("0.0.0.0", 41234, knock("silent"), state="unknown"), "unknown"),
        (row("0.0.0.0", 8443, knock("open")), "ok"),
        (row("0.0.0.0", 22, knock("open")), "ok"),
        (row("0.0.0.0", 22, knock("open", client="10.9.9.9")), "exposed"),
        (row("0.0.0.0", 22, knock("open", client=None)), "exposed"),
        (row("0.0.0.0", 22, knock("open"), state="absent"), "unknown"),
        (row("0.0.0.0", 22, knock("open"), knock("silent", client="10.9.9.9"), state="absent"), "ok"),
        (row("0.0.0.0", 8443, knock("open"), state="absent"), "ok"),
        (row("0.0.0.0", 5353, protocol="udp"), "ok"),
        (row("0.0.0.0", 5353, protocol="udp", state="absent"), "unknown"),
        (row("somewhere", 41234, knock("open")), "exposed"),
    ],
)
def test_the_verdict_over_one_listener(found: Row, verdict: str) -> None:
    assert found.verdict == verdict, found.why


def node(state: FilterState = "in force", *, reachable: bool = True) -> NodeAudit:
    return NodeAudit(node="head", reachable=reachable, filter=state)


def test_the_exit_code_says_the_worst_that_is_certain() -> None:
    ok, bad, unknown = row("127.0.0.1", 1), row("*", 2, knock("open")), row("*", 3)
    assert conclude((node(),), (ok,))[0] is ExitCode.OK
    assert conclude((node(),), (ok, unknown, bad))[0] is ExitCode.VERDICT_BAD
    assert conclude((node(),), (ok, unknown))[0] is ExitCode.NO_VERDICT
    assert conclude((node(reachable=False),), (bad,))[0] is ExitCode.NO_VERDICT
    assert conclude((node(),), ())[0] is ExitCode.NO_VERDICT
    unread = NodeAudit(node="head", reachable=True, filter="in force", unread=("tcp",))
    assert conclude((unread,), (ok,))[0] is ExitCode.NO_VERDICT
    assert "not in force on head" in conclude((node("absent"),), (ok,))[1]


def test_the_table_shows_what_is_bad_last_and_by_which_rule_a_port_is_open() -> None:
    rows = (row("*", 41234, knock("open")), row("0.0.0.0", 8443, knock("open")), row("127.0.0.1", 8000))
    code, message = conclude((node(),), rows)
    lines = table(
        ExposureAudit(site="x", nodes=(node(),), rows=rows, exit_code=int(code), message=message)
    ).splitlines()
    assert lines[0].split()[:4] == ["verdict", "node", "listener", "process"]
    assert "gateway" in next(line for line in lines if ":8443" in line)
    assert lines[3].startswith("exposed")
    assert lines[-1].startswith("1 of 3 listeners are exposed, first head tcp/41234 (x)")


def test_our_filter_is_in_force_only_as_the_site_wants_it() -> None:
    rules = render(POLICY)
    listing = "table" + rules.rpartition("\ntable")[2]
    with_another = listing.replace("\t\tct state", "\t\taccept\n\t\tct state", 1)

    def state(table: ProbeResult, file: str | None) -> FilterState:
        files = {} if file is None else {"/etc/dspark/exposure.nft": file}
        seen = read_node(site(), "head", reading(t=table, f=ProbeResult(id="exposure.file", files=files)))
        return filter_state(seen, POLICY)

    there = ProbeResult(id="exposure.table", rc=0, stdout=listing, stderr="")
    gone = ProbeResult(id="exposure.table", rc=1, stdout="", stderr="Error: No such file or directory")
    assert state(there, rules) == "in force"
    assert state(there, rules + "#") == "other"
    other = ProbeResult(id="exposure.table", rc=0, stdout=with_another, stderr="")
    assert state(other, rules) == "other", "a rule that lets all in, put in by hand"
    assert state(ProbeResult(id="exposure.table", rc=0, stdout="", stderr=""), rules) == "other"
    assert state(gone, None) == "absent"
    assert state(ProbeResult(id="exposure.table", error="no such program: nft"), None) == "absent"
    assert (
        state(ProbeResult(id="exposure.table", rc=1, stdout="", stderr="Operation not permitted"), rules) == "unknown"
    )
