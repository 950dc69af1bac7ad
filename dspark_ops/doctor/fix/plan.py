"""From what was found to what will be done about it: root causes only, grouped by the action that cures them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dspark_ops.doctor.catalogue import Check
from dspark_ops.doctor.fix.actions import ACTIONS, ORDER, SUBSUMES, ActionId, action_for
from dspark_ops.report.models import Change, Finding
from dspark_ops.report.text import shell_line

BAD = ("warn", "fail", "unknown")


@dataclass(frozen=True)
class Step:
    """One action and the findings that it cures.

    resumed: ids that a run which was cut off had begun to cure by it. foretold: what the action itself says that it
    would change; None when that can be told only after an earlier step.
    """

    action: ActionId
    cures: tuple[Finding, ...] = ()
    resumed: tuple[str, ...] = ()
    foretold: tuple[Change, ...] | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*(f.id for f in self.cures), *self.resumed]))


@dataclass(frozen=True)
class Withheld:
    """A root cause that nothing is done about, and why."""

    finding: Finding
    reason: str


@dataclass(frozen=True)
class FixPlan:
    """Steps in the order in which they are carried out. unfinished: cut-off steps that cannot go on, and why."""

    steps: tuple[Step, ...]
    withheld: tuple[Withheld, ...]
    unfinished: tuple[str, ...] = ()


def plan_fix(
    findings: Iterable[Finding],
    catalogue: Mapping[str, Check],
    consented: frozenset[str],
    resume: Mapping[ActionId, tuple[str, ...]] | None = None,
) -> FixPlan:
    """Decide what is done. consented: check ids that the operator named. resume: what an earlier run had begun."""
    bad = bad_ones(findings)
    withheld: list[Withheld] = []
    groups: dict[ActionId, list[Finding]] = {}
    for finding in (f for f in bad if f.caused_by is None):
        decided = _decide(finding, catalogue[finding.id])
        if isinstance(decided, ActionId):
            groups.setdefault(decided, []).append(finding)
        else:
            withheld.append(Withheld(finding, decided))
    _join(groups)
    steps = [
        Step(action, tuple(groups.get(action, ())), tuple((resume or {}).get(action, ())))
        for action in ORDER
        if action in groups or action in (resume or {})
    ]
    steps, unfinished = _with_consent(steps, catalogue, consented, withheld)
    steps = _standing(steps, bad, catalogue, withheld)
    return FixPlan(tuple(steps), tuple(withheld), tuple(unfinished))


def bad_ones(findings: Iterable[Finding]) -> list[Finding]:
    """What is not well and not ignored."""
    return [f for f in findings if f.status in BAD and not f.ignored]


def _decide(finding: Finding, check: Check) -> ActionId | str:
    """The action, or why there is none."""
    if finding.status == "unknown":
        return "it is not known, and nothing is changed on a guess"
    action = action_for(check)
    if action is not None:
        return action
    if check.remedy.remedy_class == "M":
        return "it is done by hand"
    command = finding.remedy.command if finding.remedy is not None else None
    return f"no action of a fix does it; {f'its command: {shell_line(command)}' if command else 'it is done by hand'}"


def _join(groups: dict[ActionId, list[Finding]]) -> None:
    """One action where one does the work of two."""
    for larger, smaller in SUBSUMES.items():
        if larger in groups and smaller in groups:
            groups[larger] += groups.pop(smaller)


def needs_consent(identity: str, action: ActionId, catalogue: Mapping[str, Check]) -> bool:
    """True when either the remedy or the action asks for it."""
    check = catalogue.get(identity)
    return ACTIONS[action].least == "C" or check is None or check.remedy.remedy_class != "A"


def _with_consent(
    steps: list[Step], catalogue: Mapping[str, Check], consented: frozenset[str], withheld: list[Withheld]
) -> tuple[list[Step], list[str]]:
    """A run of an action does all of it: one cure without consent keeps the others that it would carry along."""
    kept: list[Step] = []
    unfinished: list[str] = []
    for step in steps:
        # What was cut off by consent may have left more amiss than it found: it goes on with the same words.
        begun = [i for i in step.resumed if needs_consent(i, step.action, catalogue)]
        lacking = [i for i in begun or step.ids if needs_consent(i, step.action, catalogue) and i not in consented]
        if not lacking:
            kept.append(step)
            continue
        words = " ".join(f"--consent {i}" for i in lacking)
        for finding in step.cures:
            if finding.id in lacking:
                reason = f"needs consent: --consent {finding.id}"
            else:
                reason = f"the same run would also do what needs consent: {words}"
            withheld.append(Withheld(finding, reason))
        if step.resumed:
            unfinished.append(f"{step.action} was cut off in an earlier run; it goes on with {words}")
    return kept, unfinished


def _standing(
    steps: list[Step], bad: Sequence[Finding], catalogue: Mapping[str, Check], withheld: list[Withheld]
) -> list[Step]:
    """Drop what stands on something that is bad and stays so."""
    kept: list[Step] = []
    cured: set[str] = set()
    for step in steps:
        needed = _closure([*step.ids, *ACTIONS[step.action].stands_on], catalogue) - set(step.ids)
        in_the_way = sorted(
            {f.caused_by or f.id for f in bad if f.id in needed and f.status != "warn"} - cured - set(step.ids)
        )
        if in_the_way:
            reason = f"depends on {', '.join(in_the_way)}, which stays as it is"
            withheld += [Withheld(finding, reason) for finding in step.cures]
            continue
        kept.append(step)
        cured |= set(step.ids)
    return kept


def without(
    plan: FixPlan,
    before: Sequence[Step],
    refused: Mapping[ActionId, str],
    bad: Sequence[Finding],
    catalogue: Mapping[str, Check],
) -> FixPlan:
    """The plan less the actions that cannot be carried out after all, and less what stands on those.

    before: the steps as they were planned, with those that refuse.
    """
    withheld = list(plan.withheld)
    for step in before:
        if step.action in refused:
            withheld += [Withheld(finding, refused[step.action]) for finding in step.cures]
    kept = _standing([step for step in plan.steps if step.action not in refused], bad, catalogue, withheld)
    return replace(plan, steps=tuple(kept), withheld=tuple(withheld))


def stands_on_earlier(step: Step, earlier: Iterable[Step], catalogue: Mapping[str, Check]) -> bool:
    """True when what this step would change can be told only after an earlier one was carried out."""
    needed = _closure([*step.ids, *ACTIONS[step.action].stands_on], catalogue)
    return any(needed & set(other.ids) for other in earlier)


def _closure(identities: Iterable[str], catalogue: Mapping[str, Check]) -> set[str]:
    """The ids with all that they depend on, over every level."""
    found: set[str] = set()
    waiting = list(identities)
    while waiting:
        identity = waiting.pop()
        if identity not in found:
            found.add(identity)
            waiting += catalogue[identity].depends_on if identity in catalogue else ()
    return found


def render_fix(site: str, plan: FixPlan, *, diff: bool = False) -> str:
    """The plan as the operator reads it before consent."""
    lines = [f"plan for site {site}: {_number(len(plan.steps), 'step')}, {len(plan.withheld)} withheld"]
    for number, step in enumerate(plan.steps, 1):
        action = ACTIONS[step.action]
        lines.append(f"  {number}. {step.action}: {action.does}")
        lines += [f"     cures {f.id} on the {f.node}: {f.observed}" for f in step.cures]
        if step.resumed:
            lines.append("     goes on with what an earlier run was cut off in")
        if step.foretold is None:
            lines.append("     what it changes can be told only after the steps before it")
        for change in step.foretold or ():
            lines.append(f"     {change.node:<6} {change.what}")
            if diff and change.diff:
                lines += ["         " + line for line in change.diff.rstrip("\n").split("\n")]
    lines += [f"  withheld {w.finding.id} on the {w.finding.node}: {w.reason}" for w in plan.withheld]
    lines += [f"  unfinished {line}" for line in plan.unfinished]
    return "\n".join(lines)


def _number(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
