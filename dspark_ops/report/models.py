"""One document for every verb: what was found, what was changed, what comes next."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops import __version__
from dspark_ops.exitcodes import ExitCode

SCHEMA_ID: Literal["dspark-ops/report/v1"] = "dspark-ops/report/v1"

Status = Literal["ok", "warn", "fail", "skip", "unknown"]
STATUSES: tuple[Status, ...] = ("ok", "warn", "fail", "skip", "unknown")
Node = Literal["head", "worker", "pair"]
# What a bad result does to the pair: it keeps it from serving, makes it slow, or may cost something later.
Effect = Literal["blocks", "slows", "risks"]
RemedyClass = Literal["A", "C", "M"]
FixOutcome = Literal["planned", "fixed", "moot", "still-bad", "withheld", "uncovered", "worse", "unjudged"]
Verdict = Literal[
    "ready",
    "slow",
    "changed",
    "unchanged",
    "stopped",
    "planned",
    "blocked",
    "failed",
    "restored",
    "restore-incomplete",
    "indeterminate",
    "interrupted",
    "refused",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Remedy(_Frozen):
    """What to do about a finding.

    remedy_class: A the tool can do it by itself, C it needs consent, M a person does it by hand.
    """

    text: str
    command: tuple[str, ...] | None = None
    remedy_class: RemedyClass


class Finding(_Frozen):
    """One check on one node, or on the pair. look_alike: it rests on something the rehearsal imitates.

    observed and expected are sentences for people; caused_by names the check that this one follows from, which may
    be one that was not asked for. effect: what it does to the pair when it is bad; None is as "blocks". ignored: the
    operator said so; it is shown and not counted.
    """

    id: str
    node: Node
    status: Status
    title: str
    observed: str
    expected: str | None = None
    severity: Literal["required", "advised"] = "required"
    effect: Effect | None = None
    ignored: bool = False
    remedy: Remedy | None = None
    look_alike: bool = False
    caused_by: str | None = None
    evidence: str | None = None


class Change(_Frozen):
    """One thing that a verb changed, or would change under `--check`. before None: it was not there.

    node: control is the machine that the tool runs on.
    """

    node: Node | Literal["control"]
    what: str
    before: str | None = None
    after: str | None = None
    diff: str | None = None


class Phase(_Frozen):
    """One step of a verb and how long it took; last_s is how long it took the last time, None if never."""

    name: str
    status: Literal["done", "failed", "skipped"]
    elapsed_s: float
    detail: str | None = None
    last_s: float | None = None


class Measurement(_Frozen):
    """One number that was measured. subject: what it is about (a rail, a device); what: the column it belongs to.

    value None: it was asked for and could not be measured; note says why, or under which conditions it was.
    """

    node: Node
    subject: str
    what: str
    value: float | None
    unit: str
    note: str | None = None


class Fix(_Frozen):
    """What a fix did about one finding. before, after: its status in the two judgements; None where there was none.

    outcome: planned (under `--check`); fixed; moot (nothing left to judge); still-bad; withheld; uncovered (it could
    not be judged before); worse (the fix made it so); unjudged (there is no second judgement of it). action: what was
    carried out for it. reason: why it was withheld, or what is seen of it now.
    """

    id: str
    node: Node
    outcome: FixOutcome
    before: Status | None = None
    after: Status | None = None
    action: str | None = None
    reason: str | None = None


class NodeReport(_Frozen):
    """A node as the verb met it."""

    role: Literal["head", "worker"]
    host: str
    reachable: bool
    error: str | None = None
    round_trip_s: float | None = None


class Report(_Frozen):
    """The document of one verb. `left` lists what a failed restore could not put back."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/report/v1"] = Field(default=SCHEMA_ID, alias="schema")
    verb: str
    tool_version: str = __version__
    site: str | None = None
    started_at: datetime
    finished_at: datetime
    verdict: Verdict
    exit_code: int
    nodes: tuple[NodeReport, ...] = ()
    phases: tuple[Phase, ...] = ()
    changes: tuple[Change, ...] = ()
    findings: tuple[Finding, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    fixes: tuple[Fix, ...] = ()
    message: str
    next_step: str | None = None
    left: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The document as JSON text, two blanks of indentation, keys as in the published schema."""
        return self.model_dump_json(indent=2, by_alias=True)

    @property
    def elapsed_s(self) -> float:
        return (self.finished_at - self.started_at).total_seconds()


def now() -> datetime:
    """The time of a report: UTC, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def counts(findings: Iterable[Finding]) -> dict[Status, int]:
    """How many findings have each status; every status is a key."""
    totals: dict[Status, int] = dict.fromkeys(STATUSES, 0)
    for finding in findings:
        totals[finding.status] += 1
    return totals


def judge(
    findings: Iterable[Finding], nodes: Iterable[NodeReport], *, strict: bool = False
) -> tuple[Verdict, ExitCode]:
    """The verdict over findings: a fail is bad; a lost node, a required unknown or nothing checked is no verdict.

    An unreached node outranks a fail: half of the pair was not seen. Where only what makes the pair slow is bad, it is
    slow, which is no failure. What is ignored does not count, and is not something that was checked. strict: a warning
    or slowness is as bad as a failure, and an advised unknown is no verdict either.
    """
    found = [f for f in findings if not f.ignored]
    if any(not node.reachable for node in nodes):
        return "indeterminate", ExitCode.NO_VERDICT
    slowing = any(f.status in ("fail", "warn") and f.effect == "slows" for f in found)
    if any(f.status == "fail" and f.effect != "slows" for f in found):
        return "blocked", ExitCode.VERDICT_BAD
    if strict and any(f.status == "warn" and f.effect != "slows" for f in found):
        return "blocked", ExitCode.VERDICT_BAD
    if any(f.status == "unknown" and (strict or f.severity == "required") for f in found):
        return "indeterminate", ExitCode.NO_VERDICT
    if not any(f.status in ("ok", "warn", "fail") for f in found):
        return "indeterminate", ExitCode.NO_VERDICT
    if slowing:
        return "slow", ExitCode.VERDICT_BAD if strict else ExitCode.OK
    return "ready", ExitCode.OK
