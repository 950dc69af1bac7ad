"""Both nodes closed to strangers: what gets in, that nobody is locked out, and that no key is seen anywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.node_power import node_container
from tests.lab.operator_cli import HOSTS, Operator

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(1800)]
NOWHERE = 'exposure.management_sources=["203.0.113.0/24"]'
#: What the lab's nodes have open beside SSH is the test's own.
PORT = 41234
_LISTEN = f"systemd-run --quiet --collect --unit=dspark-test-listener python3 -m http.server {PORT} --bind 0.0.0.0"


def table(operator: Operator, role: str) -> str:
    return operator.on(role, "sh", "-c", "'nft list table inet dspark_exposure 2>/dev/null || true'")


def unit(operator: Operator, role: str) -> str:
    return operator.on(role, "systemctl", "is-active", "dspark-exposure.service", check=False).strip()


@pytest.fixture
def listening(operator: Operator) -> Iterator[Operator]:
    """A server on every address of both nodes, as an engine's store is; and no packet filter of ours afterwards."""
    for role in HOSTS:
        operator.on(role, *_LISTEN.split())
    yield operator
    for role in HOSTS:
        operator.on(role, "systemctl", "stop", "dspark-test-listener", check=False)
    done = operator.run("exposure remove", "--yes")
    assert done.rc == 0, done


def test_applied_audited_applied_again_and_removed(listening: Operator) -> None:
    before = listening.run("exposure audit", "--json")
    assert before.rc == 1, before
    rows = {(row["node"], row["port"]): row for row in before.document()["rows"]}
    assert {rows[role, PORT]["verdict"] for role in HOSTS} == {"exposed"}

    check = listening.run("exposure apply", "--check", "--json")
    assert check.rc == 0, check
    assert table(listening, "head") == ""
    done = listening.run("exposure apply", "--yes", "--json")
    assert (done.rc, done.document()["verdict"]) == (0, "changed"), done
    assert unit(listening, "head") == "active", "else it would not follow a restart of nftables"
    again = listening.run("exposure apply", "--yes", "--json")
    assert (again.rc, again.document()["changes"]) == (0, []), again

    after = listening.run("exposure audit", "--json")
    rows = {(row["node"], row["port"]): row for row in after.document()["rows"]}
    for role in HOSTS:
        row = rows[role, PORT]
        assert row["verdict"] == "ok", row
        assert {attempt["said"] for attempt in row["attempts"]} == {"silent"}, row
        assert len({attempt["viewpoint"] for attempt in row["attempts"]}) == 2, "the other node and this host"
    assert not [row for row in after.document()["rows"] if row["verdict"] == "exposed"], after
    # The pair itself still reaches it, over a rail.
    head = listening.on("head", "curl", "-sS", "-o", "/dev/null", "-w", "'%{http_code}'", f"http://10.77.0.2:{PORT}/")
    assert head == "200"

    removed = listening.run("exposure remove", "--yes", "--json")
    assert removed.rc == 0, removed
    left = listening.on(
        "head",
        "sh",
        "-c",
        "'ls /etc/dspark/exposure.nft /etc/systemd/system/dspark-exposure.service 2>/dev/null; true'",
    )
    assert (left, table(listening, "head"), unit(listening, "head")) == ("", "", "inactive")
    assert listening.run("exposure remove", "--yes", "--json").document()["changes"] == []


def test_rules_that_shut_this_host_out_are_refused(listening: Operator) -> None:
    done = listening.run("exposure apply", "--yes", "--set", NOWHERE)
    assert done.rc == 4, done
    assert "exposure.management_source" in done.err
    assert (table(listening, "head"), table(listening, "worker")) == ("", "")


def test_a_lock_out_by_consent_undoes_itself(listening: Operator) -> None:
    began = time.monotonic()
    done = listening.run(
        "exposure apply", "--yes", "--allow-lockout", "--revert-after", "20", "--set", NOWHERE, "--json"
    )
    assert (done.rc, done.document()["verdict"]) == (5, "restored"), done
    assert time.monotonic() - began >= 20
    assert (table(listening, "head"), table(listening, "worker")) == ("", "")


def test_a_killed_control_host_leaves_both_nodes_as_they_were(listening: Operator) -> None:
    assert listening.kill_at("exposure apply", "prove ...", "--yes", "--revert-after", "90")
    assert "tcp dport 22" in table(listening, "head") + table(listening, "worker"), "it was in force"
    limit = time.monotonic() + 180
    while table(listening, "head") + table(listening, "worker"):
        assert time.monotonic() < limit, "not reverted within three minutes"
        time.sleep(2)


def test_rules_that_are_gone_come_back(listening: Operator) -> None:
    """By a start of the unit, as at a boot, and by the next `apply`, which says on which node."""
    assert listening.run("exposure apply", "--yes").rc == 0
    listening.on("head", "nft", "delete", "table", "inet", "dspark_exposure")
    listening.on("head", "systemctl", "restart", "dspark-exposure.service")
    assert "tcp dport 8443" in table(listening, "head")
    listening.on("head", "nft", "delete", "table", "inet", "dspark_exposure")
    check = listening.run("exposure apply", "--check", "--json")
    assert [change["node"] for change in check.document()["changes"]] == ["head"], check
    assert listening.run("exposure apply", "--yes").rc == 0
    assert "tcp dport 8443" in table(listening, "head")


def test_a_node_that_restarts_is_closed_again(listening: Operator) -> None:
    """Both lose power: everything that runs ends, and what the kernel held is gone with their network."""
    from dspark_ops.lab import pair

    assert listening.run("exposure apply", "--yes").rc == 0
    for role in HOSTS:
        with node_container(role) as container:
            container.kill()
            container.start()
    pair.up(engine=False)
    for role in HOSTS:
        assert unit(listening, role) == "active"
        assert "tcp dport 22" in table(listening, role)
        listening.on(role, *_LISTEN.split())
    done = listening.run("exposure audit", "--json")
    rows = {(row["node"], row["port"]): row for row in done.document()["rows"]}
    assert {rows[role, PORT]["verdict"] for role in HOSTS} == {"ok"}, done
    again = listening.run("exposure apply", "--yes", "--json")
    assert (again.rc, again.document()["changes"]) == (0, []), again
