"""What became of every finding: the results before and after, compared. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dspark_ops.doctor.fix.actions import ActionId
from dspark_ops.doctor.fix.plan import BAD, FixPlan
from dspark_ops.report.models import Finding, Fix, FixOutcome, Node, Status

_Place = tuple[str, Node]
_RANK: Mapping[Status, int] = {"ok": 0, "skip": 0, "warn": 1, "unknown": 2, "fail": 3}


def foretell(plan: FixPlan, before: Iterable[Finding]) -> tuple[Fix, ...]:
    """What `--check` says: planned and withheld, and nothing came of it yet."""
    actions, reasons = _actions(plan), _reasons(plan, before)
    return tuple(
        Fix(
            id=f.id,
            node=f.node,
            outcome="withheld" if (f.id, f.node) in reasons else "planned",
            before=f.status,
            action=actions.get((f.id, f.node)),
            reason=reasons.get((f.id, f.node)),
        )
        for f in before
        if _is_bad(f)
    )


def compare(plan: FixPlan, before: Iterable[Finding], after: Iterable[Finding]) -> tuple[Fix, ...]:
    """One fate for each finding that was bad before or is bad now, in the order of the findings."""
    then = {(f.id, f.node): f for f in before}
    now = {(f.id, f.node): f for f in after}
    actions, reasons = _actions(plan), _reasons(plan, then.values())
    fates: list[Fix] = []
    for place in dict.fromkeys([*then, *now]):
        old, new = then.get(place), now.get(place)
        outcome = _outcome(old, new, withheld=place in reasons)
        if outcome is None:
            continue
        fates.append(
            Fix(
                id=place[0],
                node=place[1],
                outcome=outcome,
                before=old.status if old else None,
                after=new.status if new else None,
                action=actions.get(place),
                reason=reasons.get(place) if outcome == "withheld" else _seen(outcome, new),
            )
        )
    return tuple(fates)


def _outcome(old: Finding | None, new: Finding | None, *, withheld: bool) -> FixOutcome | None:
    """None: there is nothing to tell of it."""
    was, is_now = old is not None and _is_bad(old), new is not None and _is_bad(new)
    if old is None or new is None:
        # The same checks are judged on the same nodes both times: without one of the two there is no comparison.
        return "unjudged" if was or is_now else None
    if was and not is_now:
        return "moot" if new.status == "skip" else "fixed"
    if not is_now:
        return None
    if old.status in ("unknown", "skip") and new.status != "unknown":
        # Not made by the fix: it was hidden, or there was nothing to judge.
        return "uncovered"
    if _RANK[new.status] > _RANK[old.status]:
        return "worse"
    return "withheld" if withheld else "still-bad"


def _seen(outcome: FixOutcome, new: Finding | None) -> str | None:
    return new.observed if new is not None and outcome in ("still-bad", "worse", "uncovered", "moot") else None


def _is_bad(finding: Finding) -> bool:
    return finding.status in BAD and not finding.ignored


def _actions(plan: FixPlan) -> dict[_Place, ActionId]:
    return {(f.id, f.node): step.action for step in plan.steps for f in step.cures}


def _reasons(plan: FixPlan, before: Iterable[Finding]) -> dict[_Place, str]:
    """Why each is withheld: by itself, or because the cause that it follows from is."""
    reasons = {(w.finding.id, w.finding.node): w.reason for w in plan.withheld}
    cured = {identity for step in plan.steps for identity in step.ids}
    for finding in before:
        if _is_bad(finding) and finding.caused_by is not None and finding.caused_by not in cured:
            reasons[finding.id, finding.node] = f"follows from {finding.caused_by}, about which nothing is done"
    return reasons
