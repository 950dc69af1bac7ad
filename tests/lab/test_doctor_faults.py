"""Faults on the rehearsal pair, one at a time and two at once: the doctor names the root, and nothing that is well.

Run alone: `make lab` takes the core of them, `make soak` all. Before and after each the pair is healthy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from dspark_ops.report.models import Report
from tests.lab.doctor_bench import Bench, Fault, bad, told, until, wrongly_told
from tests.lab.doctor_faults import BY_NAME, PAIRS, QUIET, SERVING
from tests.lab.operator_cli import Operator

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


def cases(faults: Sequence[Fault]) -> list[object]:
    """The faults as parameters; all but the core are for the soak."""
    return [pytest.param(f, id=f.name, marks=() if f.core else pytest.mark.soak) for f in faults]


@pytest.fixture(scope="module")
def quiet(operator: Operator) -> Bench:
    """A bootstrapped pair on which nothing is deployed."""
    stopped = operator.run("stop", "--yes", "--remove")
    assert stopped.rc == 0, stopped
    return Bench(operator)


@pytest.fixture(scope="module")
def serving_bench(operator: Operator) -> Bench:
    """A pair that serves."""
    done = operator.run("deploy", "--yes")
    assert done.rc == 0, done
    return Bench(operator)


def assert_healthy(bench: Bench, *, active: bool = False) -> None:
    """No check finds anything."""
    seen: list[Report] = []

    def ask() -> list[str]:
        seen[:] = [bench.judge(active=active)]
        return [f"{f.id} on the {f.node}" for f in bad(seen[0])]

    assert until(ask, timeout_s=30) == [], told(seen[0])


def assert_named(bench: Bench, *faults: Fault) -> None:
    """The roots of all faults are named as roots; whatever else is told follows from one of them."""
    seen: list[Report] = []
    overrides = [override for fault in faults for override in fault.site]

    def ask() -> list[str]:
        seen[:] = [bench.judge(overrides, active=any(fault.active for fault in faults))]
        return wrongly_told(seen[0], faults)

    wrong = until(ask, timeout_s=10)
    assert wrong == [], "\n".join([*wrong, told(seen[0])])
    sys.stderr.write(f"\n{' + '.join(f.name for f in faults)}: {len(bad(seen[0]))} told, {seen[0].elapsed_s:.2f} s\n")
    for fault in faults:
        for identity, node in fault.roots:
            (finding,) = [f for f in seen[0].findings if (f.id, f.node) == (identity, node)]
            assert finding.remedy is not None


def test_a_healthy_pair_without_a_rank_gives_no_finding(quiet: Bench) -> None:
    assert_healthy(quiet)


@pytest.mark.parametrize("fault", cases(QUIET))
def test_a_fault_is_named_as_the_root(quiet: Bench, fault: Fault) -> None:
    with fault.done_to(quiet):
        assert_named(quiet, fault)
    assert_healthy(quiet)


@pytest.mark.soak
@pytest.mark.parametrize("names", PAIRS, ids=" and ".join)
def test_of_two_faults_at_once_both_are_named(quiet: Bench, names: tuple[str, str]) -> None:
    first, second = (BY_NAME[name] for name in names)
    with first.done_to(quiet), second.done_to(quiet):
        assert_named(quiet, first, second)
    assert_healthy(quiet)


@pytest.mark.soak
def test_a_healthy_pair_that_serves_gives_no_finding(serving_bench: Bench) -> None:
    assert_healthy(serving_bench, active=True)


@pytest.mark.soak
@pytest.mark.parametrize("fault", SERVING, ids=[f.name for f in SERVING])
def test_a_fault_of_a_pair_that_serves_is_named_as_the_root(serving_bench: Bench, fault: Fault) -> None:
    with fault.done_to(serving_bench):
        assert_named(serving_bench, fault)
    assert_healthy(serving_bench)
