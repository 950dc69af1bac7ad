"""What came of a gate: of each question, of each burst, of each part, and of the whole run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dspark_ops.exitcodes import ExitCode
from dspark_ops.gates.case import Outcome, Reason
from dspark_ops.gates.coldness import Doubt, Proof
from dspark_ops.gates.sequential import Bound
from dspark_ops.openai_api.model import Record

GateVerdict = Literal["pass", "fail", "review", "void"]

EXIT: dict[GateVerdict, ExitCode] = {
    "pass": ExitCode.OK,
    # A pattern alone is no proof of anything: it asks for a person and stops nobody.
    "review": ExitCode.OK,
    "fail": ExitCode.VERDICT_BAD,
    "void": ExitCode.NO_VERDICT,
}


class Judged(Record):
    """One question's outcome. name: part/number/slot, the same in every run of one seed. Times in seconds."""

    name: str
    kind: str
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()
    judged: tuple[str, ...] = ()
    prompt_tokens: int | None = None
    n: int | None = None
    ttft_s: float | None = None
    warm: bool = False

    @property
    def bad(self) -> bool:
        """No answer is no good answer: it stays in the denominator, on the bad side."""
        return self.outcome in ("fail", "no-answer")


class BurstResult(Record):
    """One burst. later: what was asked when the evidence was complete, as second turns. engine: what the counters say
    against it (NaN in logits). counted: False where it was asked again because our own clock was late.
    """

    part: str
    index: int
    judged: tuple[Judged, ...]
    later: tuple[Judged, ...] = ()
    engine: tuple[Reason, ...] = ()
    proof: Proof
    counted: bool = True

    @property
    def bad(self) -> int:
        """Bad requests of it: a request is bad when it or its second turn is. NaN makes one bad where none seems so."""
        later = {judged.name.removesuffix("+2") for judged in self.later if judged.bad}
        found = sum(judged.bad or judged.name in later for judged in self.judged)
        return max(found, 1) if self.engine else found

    @property
    def reviews(self) -> int:
        return sum(judged.outcome == "review" for judged in (*self.judged, *self.later))


class PartResult(Record):
    """One part of a level. asked: requests. done: all of it was seen that the whole needs; why: why not."""

    name: str
    title: str
    asked: int
    bad: int
    reviews: int = 0
    done: bool = True
    why: str | None = None
    elapsed_s: float = 0.0


class RunResult(Record):
    """One run's verdict with what it rests on. message: one sentence. engine: what its own counters say against it.
    facts: what a level found beside that.
    """

    verdict: GateVerdict
    message: str
    next_step: str | None = None
    parts: tuple[PartResult, ...] = ()
    bound: Bound | None = None
    doubts: tuple[Doubt, ...] = ()
    engine: tuple[Reason, ...] = ()
    bad: tuple[Judged, ...] = ()
    reviews: tuple[Judged, ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        return EXIT[self.verdict]
