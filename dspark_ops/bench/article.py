"""The public deployment log's three figures beside ours, class by class, and what keeps them from being compared.

Flowtivity, "Running a 284B AI Model on Your Desk", 3 July 2026: DeepSeek V4 Flash with DSpark, k=3, two DGX Sparks. It
gives no output lengths, sampling, intervals, cache state or number of runs, and neither the shares of its content.
"""

from __future__ import annotations

from typing import Literal

from dspark_ops.bench.plan import BlockClass
from dspark_ops.bench.records import Header
from dspark_ops.bench.sides import Place, Side
from dspark_ops.bench.statistics import Interval, interval
from dspark_ops.openai_api.model import Record

#: In a header's `client`: on what the server runs. With two arms the arm's name follows after a space.
HARDWARE = "hardware"
PAIR = "two GB10"
REHEARSAL = "rehearsal"


class Figure(Record):
    """One of the article's figures and what it says of it. places: of ours, what comes nearest to it."""

    value: float
    what: str
    said_of: str
    quantity: Literal["decode rate", "aggregate"]
    places: tuple[Place, ...]
    not_said: str


class ArticleLine(Record):
    """One figure against one class of ours. like: whether they can be compared; no and unknown: `why` says why.

    ours None: we have none. times: ours / the article's; it says nothing where `like` is not yes.
    """

    figure: float
    what: str
    place: str
    ours: Interval | None = None
    times: float | None = None
    like: Literal["yes", "no", "unknown"]
    why: tuple[str, ...] = ()


def _place(name: BlockClass, streams: int) -> Place:
    return Place(content_class=name, concurrency=streams, cache="cold")


FIGURES: tuple[Figure, ...] = (
    Figure(
        value=49.0,
        what="about 49 tok/s, one stream",
        said_of="realistic agent content: code, prose, multi-step reasoning",
        quantity="decode rate",
        places=tuple(_place(name, 1) for name in ("code", "prose", "reasoning")),
        not_said="its figure is one for all three kinds, in shares that it does not give",
    ),
    Figure(
        value=80.0,
        what="up to about 80 tok/s, one stream",
        said_of='predictable content; its task was "count 1 to 200"',
        quantity="decode rate",
        places=(_place("predictable", 1),),
        not_said="it is the most that was seen, and by a measurement that the article itself calls flawed",
    ),
    Figure(
        value=182.0,
        what="about 182 tok/s in all, six at once",
        said_of="the validation suite of the recipe that it used",
        quantity="aggregate",
        places=tuple(_place(name, 6) for name in ("mixed", "code", "prose", "reasoning", "predictable")),
        not_said="it does not say what kind of content that suite asks for",
    ),
)


def against_article(side: Side, header: Header, *, seed: int = 0) -> tuple[ArticleLine, ...]:
    """Each figure beside each class that comes near to it."""
    other = _other_conditions(side, header)
    return tuple(_line(figure, place, side, other, seed) for figure in FIGURES for place in figure.places)


def hardware_of(header: Header, arm: str) -> str | None:
    """What the header says the server runs on; None: nobody told."""
    return header.client.get(f"{HARDWARE} {arm}".strip()) or header.client.get(HARDWARE)


def _line(
    figure: Figure, place: Place, side: Side, other: tuple[Literal["yes", "no", "unknown"], tuple[str, ...]], seed: int
) -> ArticleLine:
    like, why = other
    if figure.quantity == "decode rate":
        ours = interval(side.rates(place), "mean", by=side.unit, seed=seed)
    else:
        ours = interval(side.aggregates(place), "mean", by="block", seed=seed)
    reasons = list(why)
    if ours is None:
        like = "no"
        reasons.insert(0, "we have not measured that" if not side.at(place) else "none of our answers has that figure")
    elif place.content_class != "predictable" and (flagged := side.flagged(place)):
        like = "no"
        reasons.insert(0, f"our content came out predictable ({'; '.join(flagged)})")
    elif figure.value == 182.0 and like == "yes":
        like = "unknown"
    reasons.append(figure.not_said)
    return ArticleLine(
        figure=figure.value,
        what=f"{figure.what} ({figure.said_of})",
        place=place.words,
        ours=ours,
        times=None if ours is None else ours.estimate / figure.value,
        like=like,
        why=tuple(reasons),
    )


def _other_conditions(side: Side, header: Header) -> tuple[Literal["yes", "no", "unknown"], tuple[str, ...]]:
    """Whether the servers are alike, by what is known of ours."""
    hardware = hardware_of(header, side.arm)
    if hardware == REHEARSAL:
        return "no", ("a rehearsal: another model on a processor, no GB10",)
    if hardware is None:
        return "unknown", ("nobody told what the server runs on (--site or --hardware)",)
    if hardware != PAIR:
        return "no", (f"other hardware: {hardware}, the article's is {PAIR}",)
    mine = (b.speculation for run in side.runs for b in run.blocks if b.arm == side.arm and b.state != "void")
    depth = next((round(speculation.depth) for speculation in mine if speculation is not None), None)
    if depth is not None and depth != 3:
        return "yes", (f"ours drafts {depth} tokens a step, the article's 3",)
    return "yes", ()
