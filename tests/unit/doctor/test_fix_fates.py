"""What is said of each finding after a fix: from the two judgements alone."""

from __future__ import annotations

import pytest

from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.fix.fates import compare, foretell
from dspark_ops.doctor.fix.plan import FixPlan, plan_fix
from tests.unit.doctor.test_fix_plan import ENGINE, LINGER, finding

CATALOGUE = load_catalogue()
NOTHING = FixPlan((), ())


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ("fail", "ok", "fixed"),
        ("warn", "ok", "fixed"),
        ("unknown", "ok", "fixed"),
        ("fail", "skip", "moot"),
        ("fail", "fail", "still-bad"),
        ("fail", "warn", "still-bad"),
        ("fail", "unknown", "still-bad"),
        ("warn", "warn", "still-bad"),
        ("unknown", "unknown", "still-bad"),
        ("warn", "fail", "worse"),
        ("warn", "unknown", "worse"),
        ("ok", "warn", "worse"),
        ("ok", "fail", "worse"),
        ("ok", "unknown", "worse"),
        ("unknown", "fail", "uncovered"),
        ("unknown", "warn", "uncovered"),
        ("skip", "fail", "uncovered"),
        ("skip", "unknown", "worse"),
        ("ok", "ok", None),
        ("skip", "ok", None),
        ("ok", "skip", None),
    ],
)
def test_the_outcome_is_the_difference_of_two_judgements(before: str, after: str, outcome: str | None) -> None:
    fates = compare(NOTHING, [finding("fabric.mtu", status=before)], [finding("fabric.mtu", status=after)])
    assert [(f.id, f.node, f.outcome, f.before, f.after) for f in fates] == (
        [] if outcome is None else [("fabric.mtu", "worker", outcome, before, after)]
    )


def test_the_same_check_on_the_other_node_is_another_finding() -> None:
    before = [finding("fabric.mtu", "head"), finding("fabric.mtu", "worker", "ok")]
    after = [finding("fabric.mtu", "head", "ok"), finding("fabric.mtu", "worker")]
    assert [(f.node, f.outcome) for f in compare(NOTHING, before, after)] == [("head", "fixed"), ("worker", "worse")]


def test_what_was_withheld_is_told_so_with_the_reason_unless_it_went_away() -> None:
    mtu = finding("fabric.mtu")
    plan = plan_fix([mtu], CATALOGUE, frozenset())
    (fate,) = compare(plan, [mtu], [mtu])
    assert (fate.outcome, fate.reason, fate.action) == ("withheld", "needs consent: --consent fabric.mtu", None)
    (gone,) = compare(plan, [mtu], [finding("fabric.mtu", status="ok")])
    assert (gone.outcome, gone.reason) == ("fixed", None)


def test_what_follows_from_a_withheld_cause_is_withheld_too() -> None:
    follower = finding("image.present", status="unknown", caused_by="host.docker_engine")
    plan = plan_fix([ENGINE, follower], CATALOGUE, frozenset())
    fates = {f.id: f for f in compare(plan, [ENGINE, follower], [ENGINE, follower])}
    assert fates["image.present"].outcome == "withheld"
    assert fates["image.present"].reason == "follows from host.docker_engine, about which nothing is done"


def test_a_cured_finding_names_its_action_and_one_that_stayed_says_what_is_seen() -> None:
    plan = plan_fix([LINGER], CATALOGUE, frozenset())
    (fixed,) = compare(plan, [LINGER], [finding(LINGER.id, status="ok")])
    assert (fixed.action, fixed.reason) == ("baseline", None)
    (stayed,) = compare(plan, [LINGER], [finding(LINGER.id, status="warn", observed="it still ends them")])
    assert (stayed.outcome, stayed.action, stayed.reason) == ("still-bad", "baseline", "it still ends them")


def test_a_finding_that_is_judged_once_only_is_unjudged() -> None:
    mtu = finding("fabric.mtu")
    assert [f.outcome for f in compare(NOTHING, [mtu], [])] == ["unjudged"]
    assert [f.outcome for f in compare(NOTHING, [], [mtu])] == ["unjudged"]
    assert compare(NOTHING, [finding("fabric.mtu", status="ok")], []) == ()


def test_what_is_ignored_has_no_fate() -> None:
    ignored = finding("fabric.mtu", ignored=True)
    assert compare(NOTHING, [ignored], [ignored]) == ()
    assert compare(NOTHING, [finding("fabric.mtu", status="ok", ignored=True)], [ignored]) == ()
    assert foretell(NOTHING, [ignored]) == ()


def test_check_says_planned_and_withheld() -> None:
    bad = [LINGER, finding("fabric.mtu")]
    fates = foretell(plan_fix(bad, CATALOGUE, frozenset()), bad)
    assert [(f.id, f.outcome, f.after) for f in fates] == [
        ("host.removeipc_linger", "planned", None),
        ("fabric.mtu", "withheld", None),
    ]
