"""Bootstrapping real hosts: from unconfigured ports to jumbo pings, again without a change, and after being killed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dspark_ops.config.load import load_site
from tests.lab.operator_cli import HOSTS, Operator, wait_for_line

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

NETPLAN = "/etc/netplan/60-dspark-fabric.yaml"
PORTS = ("enp1s0f0np0", "enP2p1s0f0np0", "enp1s0f1np1", "enP2p1s0f1np1")


def unconfigure(operator: Operator) -> None:
    """Both nodes as before their first bootstrap: no file of ours, no package of ours, ports at MTU 1500."""
    if any(operator.ranks().values()):
        operator.run("stop", "--yes", "--remove")
    files = (
        NETPLAN,
        "/var/lib/dspark/journal",
        "/etc/sysctl.d/60-dspark.conf",
        "/etc/systemd/logind.conf.d/60-dspark.conf",
    )
    ports = [f"ip addr flush dev {port} scope global; ip link set {port} mtu 1500 up" for port in PORTS]
    gone = "! dpkg -s jq > /dev/null 2>&1 || apt-get -q -y remove jq > /dev/null"
    script = ["set -e", f"rm -rf {' '.join(files)}", "netplan apply", *ports, gone]
    for role in HOSTS:
        operator.on(role, "bash", "-c", "'" + "; ".join(script) + "'", timeout_s=120)


def jumbo_passes(operator: Operator, rail: int) -> bool:
    """A do-not-fragment ping of 8972 bytes from the head over one rail."""
    site = load_site(operator.site).site
    end = site.fabric.rails[rail]
    argv = ("ping", "-M", "do", "-s", "8972", "-c", "2", "-i", "0.2", "-W", "1", "-I", end.head.netdev)
    out = operator.on("head", *argv, str(end.worker.address.ip), check=False)
    return " 0% packet loss" in out


def assert_prepared(operator: Operator) -> None:
    """What an operator relies on after a bootstrap, seen on the nodes themselves."""
    site = load_site(operator.site).site
    for role in HOSTS:
        addresses = operator.on(role, "ip", "-o", "-4", "addr")
        links = operator.on(role, "ip", "-o", "link")
        for rail in site.fabric.rails:
            end = rail.of(role)  # type: ignore[arg-type]
            assert re.search(rf" {end.netdev} +inet {re.escape(str(end.address))} ", addresses), addresses
            assert re.search(rf" {end.netdev}@\S+ .* mtu 9000 ", links), links
        assert operator.on(role, "stat", "-c", "%a", NETPLAN).strip() == "600"
        assert "jq-" in operator.on(role, "jq", "--version")
        assert operator.on(role, "systemctl", "is-active", "docker").strip() == "active"
    assert all(jumbo_passes(operator, index) for index in range(len(site.fabric.rails)))


@pytest.fixture
def unconfigured(unprepared: Operator) -> Operator:
    unconfigure(unprepared)
    return unprepared


def files(document: dict[str, Any]) -> set[tuple[str, str]]:
    """What a report says was changed, packages left out: they are foretold one by one and installed together."""
    return {(change["node"], change["what"]) for change in document["changes"] if "package" not in change["what"]}


# These two leave the pair unprepared; the next one begins there, so that nobody has to bootstrap in between.
def test_a_rail_that_somebody_else_configures_is_refused_and_nothing_changes(unconfigured: Operator) -> None:
    foreign = "/etc/netplan/98-foreign.yaml"
    text = "network: {version: 2, ethernets: {enp1s0f0np0: {addresses: [192.168.55.7/24]}}}"
    unconfigured.on("worker", "sh", "-c", f"'umask 077; echo \"{text}\" > {foreign}'")
    try:
        done = unconfigured.run("bootstrap", "--yes")
        assert done.rc == 4, done
        assert foreign in done.err
        assert "worker" in done.err
        for role in HOSTS:
            assert "60-dspark-fabric.yaml" not in unconfigured.on(role, "ls", "/etc/netplan")
    finally:
        unconfigured.on("worker", "rm", "-f", foreign)


def test_an_interrupt_puts_the_rails_back(unconfigured: Operator) -> None:
    """Ctrl-C while the rails are being verified: exit 130, and both nodes have no file of ours."""
    process = unconfigured.begin("bootstrap", "--yes")
    try:
        assert wait_for_line(process, "prove ...", 400)
        process.send_signal(2)
        assert process.wait(timeout=120) == 130
    finally:
        # One that is late must not hold the site's lock against every test that follows.
        process.kill()
        process.wait()
    for role in HOSTS:
        assert "60-dspark-fabric.yaml" not in unconfigured.on(role, "ls", "/etc/netplan")


def test_from_unconfigured_ports_as_check_foretold_and_then_zero_changes(unconfigured: Operator) -> None:
    operator = unconfigured
    planned = operator.run("bootstrap", "--check", "--diff", "--json")
    assert planned.rc == 0, planned
    foretold = files(planned.document())
    assert any("rails" in what for _, what in foretold)
    assert "Install package (jq)" in {change["what"] for change in planned.document()["changes"]}
    assert operator.on("head", "ls", "/etc/netplan").split() == []

    done = operator.run("bootstrap", "--yes", "--json")
    assert done.rc == 0, done
    assert done.document()["verdict"] == "changed"
    assert foretold <= files(done.document())
    # What only follows from another change of the same run cannot be foretold.
    extra = {what for _, what in files(done.document()) - foretold}
    assert all("live values" in what or "logind" in what for what in extra), extra
    assert_prepared(operator)

    again = operator.run("bootstrap", "--yes", "--json")
    assert (again.rc, again.document()["verdict"], again.document()["changes"]) == (0, "unchanged", [])
    check = operator.run("bootstrap", "--check", "--json")
    assert (check.rc, check.document()["changes"]) == (0, [])


@pytest.mark.parametrize(
    "phase", ["baseline ...", *(pytest.param(late, marks=pytest.mark.soak) for late in ("fabric ...", "settle ..."))]
)
def test_a_bootstrap_that_is_killed_is_finished_by_the_next_one(unconfigured: Operator, phase: str) -> None:
    delay = 2.0 if phase.startswith(("baseline", "fabric")) else 0.5
    assert unconfigured.kill_at("bootstrap", phase, "--yes", delay_s=delay)
    done = unconfigured.run("bootstrap", "--yes", "--json")
    assert done.rc == 0, done
    assert_prepared(unconfigured)
    # No revert is left armed on either node.
    for role in HOSTS:
        assert "dspark-fabric-revert" not in unconfigured.on(role, "systemctl", "list-timers", "--all", check=False)


@pytest.mark.soak
def test_kills_in_the_phases_that_change_nothing_leave_nothing_to_finish(unconfigured: Operator) -> None:
    for phase in ("reach ...", "plan ..."):
        assert unconfigured.kill_at("bootstrap", phase, "--yes", delay_s=0.1 if phase.startswith("reach") else 1.0)
        assert all("60-dspark" not in unconfigured.on(role, "ls", "/etc/netplan") for role in HOSTS)
    assert unconfigured.kill_at("bootstrap", "prove ...", "--yes", delay_s=0.1)
    done = unconfigured.run("bootstrap", "--yes", "--json")
    assert done.rc == 0, done
    assert_prepared(unconfigured)


def test_one_end_at_1500_and_a_stopped_docker_are_mended_by_one_bootstrap(operator: Operator) -> None:
    operator.run("stop", "--yes", "--remove")
    assert jumbo_passes(operator, 0)
    operator.on("worker", "ip", "link", "set", PORTS[0], "mtu", "1500")
    operator.on("worker", "systemctl", "stop", "docker.socket", "docker.service")
    assert not jumbo_passes(operator, 0)
    assert jumbo_passes(operator, 1)
    done = operator.run("bootstrap", "--yes", "--json")
    assert done.rc == 0, done
    assert {change["node"] for change in done.document()["changes"]} == {"worker"}
    assert jumbo_passes(operator, 0)
    assert operator.on("worker", "systemctl", "is-active", "docker").strip() == "active"
