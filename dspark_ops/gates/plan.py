"""What a gate asks, and how much of it: the four levels as data."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from dspark_ops.errors import ConfigError
from dspark_ops.gates.book import Book, Want, draw
from dspark_ops.gates.case import TOOL_KINDS, Case, CaseKind
from dspark_ops.openai_api.model import Record

Level = Literal["smoke", "release", "certify", "diff"]

#: The makers of cases: kind, generator, salt, streamed or not, prompt tokens (None: the run's own).
Ask = Callable[[CaseKind, random.Random, str, bool, int | None], Case]

#: The width of a burst: the sequences that the pair is set up to decode together.
WIDTH = 6

# Agent prompts, one after the other. Five alone would see a fault in 60 % of cold requests with 98.98 %; the tool calls
# and oracles that follow are as long and as cold, and make it 99.99 %.
SMOKE_PROMPTS: tuple[CaseKind, ...] = ("report", "code", "json", "second-turn", "report")
SMOKE_TOOLS: tuple[CaseKind, ...] = ("tool-call", "tool-values", "tool-parallel")
# Streamed all but this one: the server puts a whole answer together by code of its own.
SMOKE_WHOLE: CaseKind = "tool-values"
SMOKE_ORACLES: tuple[CaseKind, ...] = ("arithmetic", "needle")

# Long answers first and the short one last: prefills of one burst follow each other inside the engine, and an answer
# that is over before the last prefill begins would leave fewer than six in its batch.
BURST_KINDS: tuple[tuple[CaseKind, ...], ...] = (
    ("report", "tool-values", "report", "json", "arithmetic", "second-turn"),
    ("report", "tool-parallel", "code", "json", "report", "second-turn"),
    ("report", "tool-values", "code", "report", "arithmetic", "needle"),
    ("report", "tool-parallel", "report", "json", "code", "sorting"),
)

TOOL_BATTERY: tuple[CaseKind, ...] = (
    "tool-call",
    "tool-values",
    "tool-parallel",
    "tool-none",
    "tool-forced",
    "tool-history",
    "tool-truncated",
)
SOAK_KINDS: tuple[CaseKind, ...] = ("report", "code", "json", "tool-values", "arithmetic", "needle", "tool-history")
# Unit: tokens. Asked where the model's window has room for them.
LONG_PROBES: tuple[int, ...] = (131072, 524288)
# In the order of their answers' lengths.
DIFF_KINDS: tuple[CaseKind, ...] = ("report", "tool-values", "json", "code", "arithmetic", "sorting", "needle")


class GatePlan(Record):
    """One run. seed: the same one asks the same questions. timeout_s: of one request. Unit of budget_s: seconds.

    bursts: a fixed number in place of the sequential test, of which none may be bad; None: sequential (release) or the
    level's own number. repeats: how often in a run a burst may be asked again when our own clock was late. texts_only:
    no calls in bursts, where the model's are too short to be decoded at once.
    """

    level: Level
    seed: int
    prompt_tokens: int = Field(ge=1)
    width: int = Field(default=WIDTH, ge=1, le=64)
    bursts: int | None = Field(default=None, ge=1)
    timeout_s: float = Field(default=900.0, gt=0)
    budget_s: float | None = Field(default=None, gt=0)
    repeats: int = Field(default=3, ge=0)
    certify_bursts: int = Field(default=50, ge=1)
    boots: int = Field(default=2, ge=1)
    tool_cases: int = Field(default=100, ge=1)
    soak_s: float = Field(default=2400.0, ge=0)
    long_probes: tuple[int, ...] = LONG_PROBES
    pairs: int = Field(default=60, ge=1)
    texts_only: bool = False
    rescore: bool = True


def burst_kinds(index: int, width: int, *, texts_only: bool = False) -> tuple[CaseKind, ...]:
    """The kinds of burst number `index`, the longest answers first."""
    texts: tuple[CaseKind, ...] = ("report",)
    if texts_only:
        return texts * width
    kinds = BURST_KINDS[index % len(BURST_KINDS)]
    return tuple(kinds[slot] if slot < len(kinds) else "report" for slot in range(width))


def case_rng(seed: int, name: str) -> random.Random:
    """The generator of one case: it depends on the case's name alone, not on what was asked before it."""
    return random.Random(f"{seed}/{name}")  # noqa: S311 - reproducible questions, no secrets


def fitting_kind(book: Book, kind: CaseKind, rng: random.Random) -> CaseKind:
    """The kind itself where the book has it, else one of the book's own for the same want, else one of its texts."""
    want: Want = "second-turn" if kind == "second-turn" else "tool" if kind in TOOL_KINDS else "text"
    if kind in book.weights(want):
        return kind
    drawn = draw(book, want, rng) or draw(book, "text", rng)
    if drawn is None:
        raise ConfigError("the book of cases has no text to ask for")
    return drawn


def asker(book: Book, prompt_tokens: int) -> Ask:
    """Makes cases out of a book, of this length unless told otherwise."""

    def ask(kind: CaseKind, rng: random.Random, salt: str, stream: bool, tokens: int | None) -> Case:
        return book.make(
            fitting_kind(book, kind, rng), rng, prompt_tokens=tokens or prompt_tokens, salt=salt, stream=stream
        )

    return ask
