"""`dspark-ops doctor --fix` on the rehearsal pair: cures by consent, stops nothing, finishes what was killed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dspark_ops.doctor.fix.record import read_open
from tests.lab.doctor_bench import Bench, Fault, until
from tests.lab.doctor_faults import BY_NAME
from tests.lab.operator_cli import HOSTS, RANK, Done, Operator

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SHM = "nothing keeps shared memory at logout"
MTU = "MTU 1500 on one end"
ENGINE = "the Docker Engine is stopped"


@pytest.fixture(scope="module")
def bench(operator: Operator) -> Bench:
    """A bootstrapped pair on which nothing is deployed."""
    stopped = operator.run("stop", "--yes", "--remove")
    assert stopped.rc == 0, stopped
    return Bench(operator)


def fates(done: Done) -> dict[tuple[str, str], str]:
    """What became of each finding."""
    return {(fix["id"], fix["node"]): fix["outcome"] for fix in done.document()["fixes"]}


def harm(bench: Bench, name: str) -> Fault:
    fault = BY_NAME[name]
    bench.root(fault.role, fault.harm)
    return fault


@pytest.fixture
def harmed(bench: Bench) -> Iterator[Bench]:
    """Shared memory is not kept (class A), and one end has MTU 1500 (class C); whatever happens, both are put right."""
    harm(bench, SHM)
    harm(bench, MTU)
    yield bench
    if until(lambda: good(bench), timeout_s=3):
        done = bench.operator.run("bootstrap", "--yes")
        assert done.rc == 0, done


def good(bench: Bench) -> list[str]:
    report = bench.judge()
    return [f"{f.id} on the {f.node}" for f in report.findings if f.status in ("warn", "fail", "unknown")]


def test_class_a_is_cured_class_c_waits_for_its_name_and_the_last_run_changes_nothing(harmed: Bench) -> None:
    operator = harmed.operator
    refused = operator.run("doctor", "--fix")
    assert refused.rc == 4, refused
    assert "cures host.removeipc_linger on the head" in refused.err

    planned = operator.run("doctor", "--fix", "--check", "--json")
    assert planned.rc == 0, planned
    foretold = {change["what"] for change in planned.document()["changes"]}
    assert {"host.removeipc_linger", "fabric.mtu"} <= {f.id for f in harmed.judge().findings if f.status != "ok"}

    first = operator.run("doctor", "--fix", "--yes", "--json")
    assert first.rc == 1, first
    assert fates(first)["host.removeipc_linger", "head"] == "fixed"
    assert fates(first)["fabric.mtu", "worker"] == "withheld"
    assert foretold <= {change["what"] for change in first.document()["changes"]}

    second = operator.run("doctor", "--fix", "--yes", "--json", "--consent", "fabric.mtu")
    assert second.rc == 0, second
    assert fates(second)["fabric.mtu", "worker"] == "fixed"
    assert second.document()["verdict"] == "changed"

    third = operator.run("doctor", "--fix", "--yes", "--json", "--consent", "fabric.mtu")
    assert (third.rc, third.document()["verdict"], third.document()["changes"]) == (0, "unchanged", []), third


@pytest.mark.soak
def test_a_stopped_engine_is_started_only_by_consent(bench: Bench) -> None:
    """Class C again, by another role: what waits for its name is proven on the MTU above."""
    fault = harm(bench, ENGINE)
    try:
        without = bench.operator.run("doctor", "--fix", "--yes", "--json")
        assert without.rc == 1, without
        assert fates(without)["host.docker_engine", "worker"] == "withheld"
        assert bench.operator.on("worker", "systemctl", "is-active", "docker", check=False).strip() != "active"
        done = bench.operator.run("doctor", "--fix", "--yes", "--json", "--consent", "host.docker_engine")
        assert done.rc == 0, done
        assert fates(done)["host.docker_engine", "worker"] == "fixed"
        assert set(fates(done).values()) <= {"fixed", "moot"}
    finally:
        bench.root(fault.role, fault.undo)


@pytest.mark.parametrize(
    ("phase", "delay_s"),
    [
        # On every change a bootstrap is killed in the same playbook: test_bootstrap.
        pytest.param("rails ...", 4.0, marks=pytest.mark.soak),
        pytest.param("rails ...", 9.0, marks=pytest.mark.soak),
        pytest.param("baseline ...", 2.0, marks=pytest.mark.soak),
    ],
)
def test_a_fix_that_is_killed_is_finished_by_the_next_one(harmed: Bench, phase: str, delay_s: float) -> None:
    operator = harmed.operator
    words = ("--fix", "--yes", "--consent", "fabric.mtu")
    assert operator.kill_at("doctor", phase, *words, delay_s=delay_s)
    assert read_open("lab") is not None
    done = operator.run("doctor", *words, "--json")
    assert done.rc == 0, done
    assert read_open("lab") is None
    assert until(lambda: good(harmed), timeout_s=10) == []
    for role in HOSTS:
        assert "dspark-fabric-revert" not in operator.on(role, "systemctl", "list-timers", "--all", check=False)
    again = operator.run("doctor", *words, "--json")
    assert (again.rc, again.document()["verdict"], again.document()["changes"]) == (0, "unchanged", []), again


@pytest.mark.soak
def test_a_release_that_serves_goes_on_serving(operator: Operator) -> None:
    """Class A beside a serving pair, and an MTU whose cure the fabric refuses while a rank runs."""
    done = operator.run("deploy", "--yes")
    assert done.rc == 0, done
    bench = Bench(operator)
    before = serving_since(operator)
    fault = harm(bench, SHM)
    try:
        fixed = operator.run("doctor", "--fix", "--yes", "--json")
        assert fixed.rc == 0, fixed
        assert fates(fixed)["host.removeipc_linger", fault.role] == "fixed"
    finally:
        bench.root(fault.role, fault.undo)
    assert serving_since(operator) == before
    assert bench.judge(active=True).exit_code == 0


def serving_since(operator: Operator) -> dict[str, Any]:
    """Each rank's container and when it was started."""
    form = "'{{.Id}} {{.State.StartedAt}} {{.State.Running}}'"
    return {role: operator.on(role, "docker", "container", "inspect", "--format", form, RANK) for role in HOSTS}
