"""Which event came first, and how sure that is. Pure: the same case gives the same answer in any order of its lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dspark_ops.config.models import ROLES, Role
from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.incident.model import Case, Cause, Event, Source
from dspark_ops.facts.log_signatures import Confidence, Where, load_signatures

#: Failures that are further apart are of two incidents: the engine waits 300 s for a rank, public recipes set 1800.
GAP_S = 2100.0
#: What a node itself suffered may lie this long before a start that fails of it.
BEFORE_START_S = 300.0
#: An end that was asked for is over after this time.
STOP_S = 120.0
#: Lines of different logs of one node are not ordered better than this.
JITTER_S = 0.05
#: Without a comparison of the clocks, what another node said within this time may as well have come before.
UNCOMPARED_S = 120.0

_STARTS = frozenset({"container_began", "engine_begins", "rank_begins"})
_STEPS: tuple[Confidence, ...] = ("low", "medium", "high")
# Of two lines at the same moment the one that lies deeper is the cause of the other.
_DEPTH: dict[Where, int] = {"kernel": 0, "journal": 1, "nccl": 2, "engine": 3, "container": 4}
_WORTH: dict[Confidence, str] = {
    "high": "the line itself tells what was wrong",
    "medium": "the line tells what failed, and not for certain why",
    "low": "the line tells only that something was waited for in vain",
}
_ANY = "*"


@dataclass(frozen=True)
class Judgement:
    """The causes, the first one first. known: it tells more than that something was waited for.

    symptoms: all of the incident, in order. earlier: incidents before it. stopped: somebody had asked for it.
    """

    causes: tuple[Cause, ...] = ()
    known: bool = False
    symptoms: tuple[Event, ...] = ()
    earlier: int = 0
    stopped: bool = False


def ordered(events: Iterable[Event]) -> list[Event]:
    """The events in the order of time, those without a time last; ties by depth, then by their text."""
    return sorted(events, key=_place)


def _place(event: Event) -> tuple[bool, float, int, str, str, str]:
    at_s = event.at_s
    return at_s is None, at_s or 0.0, _DEPTH[event.where], event.node, event.signature, event.line


def judge(case: Case) -> Judgement:
    """Name the first cause of the last incident in the case, or none."""
    events = ordered(case.events)
    episodes = _episodes(events)
    if not episodes:
        return Judgement()
    symptoms = episodes[-1]
    earlier = len(episodes) - 1
    roots = _candidates(symptoms)
    slack_s = _slack(case)
    if not roots and _asked(case, events, symptoms, slack_s):
        return Judgement(symptoms=tuple(symptoms), earlier=earlier, stopped=True)
    leading = _leading(roots, slack_s)
    causes = tuple(_cause(event, roots, leading, symptoms, case, slack_s) for event in leading)
    known = bool(causes) and load_signatures()[causes[0].signature].confidence != "low"
    return Judgement(causes, known, tuple(symptoms), earlier)


def _episodes(events: Sequence[Event]) -> list[list[Event]]:
    """Symptoms that belong together: no long silence between them, and no new start of a rank."""
    blocking = [event for event in events if event.kind != "context" and _blocks(event)]
    symptoms = [event for event in blocking if not _is_standing(event)]
    starts = [event.at_s for event in events if event.signature in _STARTS and event.at_s is not None]
    ready = [event.at_s for event in events if event.signature == "api_ready" and event.at_s is not None]
    found: list[list[Event]] = []
    for event in symptoms:
        last = found[-1][-1].at_s if found else None
        if last is None or event.at_s is None:
            together = bool(found)
        else:
            between = [s for s in starts if last < s <= event.at_s]
            own = all(e.where in ("kernel", "journal") for e in found[-1])
            # A start that came to its end did not fail of what was before it.
            waits = own and bool(between) and min(between) - last <= BEFORE_START_S
            waits = waits and not any(last < r <= event.at_s for r in ready)
            together = event.at_s - last <= GAP_S and (not between or waits)
        if together:
            found[-1].append(event)
        else:
            found.append([event])
    if found:
        found[-1] = [*(event for event in blocking if _is_standing(event)), *found[-1]]
    return found


def _blocks(event: Event) -> bool:
    """A root that only slows the pair or is a risk is no cause of a failure."""
    check = load_catalogue().get(event.check) if event.check is not None else None
    if event.kind != "root" or check is None or event.where in ("kernel", "journal", "container"):
        return True
    return check.effect == "blocks"


def _is_standing(event: Event) -> bool:
    """A state, not something that happened: a cause only where something that follows from it did happen."""
    return event.signature == "images_differ"


def _candidates(symptoms: Sequence[Event]) -> list[Event]:
    """The roots, one of each kind and node, the earliest."""
    named = {name for event in symptoms for name in load_signatures()[event.signature].follows}
    first: dict[tuple[str, Role], Event] = {}
    for event in symptoms:
        if event.kind == "root" and (not _is_standing(event) or event.signature in named):
            first.setdefault((event.signature, event.node), event)
    return ordered(first.values())


def _slack(case: Case) -> float | None:
    """Within this time the order of two nodes is not known; None when nothing tells how their clocks stood."""
    told = [clock.uncertainty_s for clock in case.clocks]
    known = [u for u in told if u is not None]
    return sum(known) if len(known) == len(ROLES) else None


def _tolerance(a: Event, b: Event, slack_s: float | None) -> float:
    if a.node == b.node:
        return JITTER_S
    return JITTER_S + (UNCOMPARED_S if slack_s is None else slack_s)


def _leading(roots: Sequence[Event], slack_s: float | None) -> list[Event]:
    """The roots that follow from no other one; what is seen on both nodes is there once."""
    leading: list[Event] = []
    for event in roots:
        if any(_leads(other, event, slack_s) for other in roots if other is not event):
            continue
        if not any(_same(other, event) for other in leading):
            leading.append(event)
    return leading or list(roots[:1])


def _leads(cause: Event, effect: Event, slack_s: float | None) -> bool:
    """effect follows from cause, and not the other way about: of two that could each follow from the other within the
    tolerance, the one that names the other follows from it, and not the one that may follow from anything; else the
    later one."""
    if not _explains(cause, effect, slack_s):
        return False
    if not _explains(effect, cause, slack_s):
        return True
    named = cause.signature in load_signatures()[effect.signature].follows
    other = effect.signature in load_signatures()[cause.signature].follows
    return named if named is not other else _place(cause) < _place(effect)


def _same(a: Event, b: Event) -> bool:
    """Two lines that tell of one thing."""
    return a.signature == b.signature or (a.check is not None and a.check == b.check)


def _explains(cause: Event, effect: Event, slack_s: float | None) -> bool:
    """effect follows from cause by its nature, and did not come before it."""
    follows = load_signatures()[effect.signature].follows
    any_root = _ANY in follows and _ANY not in load_signatures()[cause.signature].follows
    if not any_root and cause.signature not in follows:
        return False
    if _is_standing(cause):
        return True
    if cause.at_s is None or effect.at_s is None:
        return cause.at_s is not None
    return cause.at_s <= effect.at_s + _tolerance(cause, effect, slack_s)


def _cause(
    event: Event,
    roots: Sequence[Event],
    leading: Sequence[Event],
    symptoms: Sequence[Event],
    case: Case,
    slack_s: float | None,
) -> Cause:
    known = load_signatures()[event.signature]
    less, more = _doubts(event, roots, leading, case, slack_s), _support(event, roots, symptoms, slack_s)
    step = _STEPS.index(known.confidence) - len(less) + (1 if more else 0)
    confidence = _STEPS[max(0, min(len(_STEPS) - 1, step))]
    nodes = [event.node, *(e.node for e in roots if _same(e, event) and e.node != event.node)]
    return Cause(
        signature=event.signature,
        check=event.check,
        known=event.known,
        nodes=tuple(dict.fromkeys(nodes)),
        at_s=event.at_s,
        means=event.means,
        line=event.line,
        confidence=confidence,
        because=(_WORTH[known.confidence], *more, *less),
    )


def _doubts(
    event: Event, roots: Sequence[Event], leading: Sequence[Event], case: Case, slack_s: float | None
) -> list[str]:
    """What makes it less sure, one sentence for one step down."""
    found = []
    if event.at_s is None:
        found.append("its line has no time, so it is not known to be the first")
    if event.resumes:
        found.append("lines like it, just before it, were not brought back: it may have begun earlier")
    gaps = [_gap(source) for source in case.sources if _may_hide(source, event)]
    if gaps:
        found.append(f"something earlier may be where nobody could look: {', '.join(gaps)}")
    rivals = [
        other
        for other in leading
        if other is not event
        and other.node != event.node
        and other.at_s is not None
        and event.at_s is not None
        and abs(other.at_s - event.at_s) <= _tolerance(other, event, slack_s)
    ]
    if rivals:
        told = ", ".join(f"{other.check or other.signature} on the {other.node}" for other in rivals)
        found.append(f"which came first is not known, it or {told}")
    elif slack_s is None and any(other.node != event.node and not _same(other, event) for other in roots):
        found.append("nothing tells how the clocks of the two nodes stood to each other")
    return found


def _may_hide(source: Source, event: Event) -> bool:
    """The log was not read up to the event, and could hold what led to it.

    The journal is a help, no witness that must be heard. The kernel's log matters to a line that does not itself tell
    what was wrong: a process that was ended, a transfer that failed.
    """
    if source.name in ("journal", "container"):
        return False
    if source.name == "kernel" and event.where not in ("kernel", "journal") and _tells_itself(event):
        return False
    if source.problem is not None:
        return source.name == "engine" or source.node == event.node or event.where != "kernel"
    if source.begin_s is not None and event.at_s is not None and event.at_s - BEFORE_START_S < source.begin_s:
        return True
    if source.cut is None:
        return False
    return source.reached_s is None or event.at_s is None or source.reached_s < event.at_s


def _tells_itself(event: Event) -> bool:
    return load_signatures()[event.signature].confidence == "high"


def _gap(source: Source) -> str:
    how = "not read" if source.problem else "cut" if source.cut else "read from a later time on"
    return f"the {source.name} log of the {source.node} was {how}"


def _support(event: Event, roots: Sequence[Event], symptoms: Sequence[Event], slack_s: float | None) -> list[str]:
    """What agrees with it and comes from another log."""
    agreeing = [
        other
        for other in roots
        if other is not event
        and (other.where != event.where or other.node != event.node)
        and (other.signature == event.signature or event.signature in load_signatures()[other.signature].follows)
        and (_is_standing(event) or _explains(event, other, slack_s) or other.signature == event.signature)
    ]
    killed = [
        other
        for other in symptoms
        if event.signature in ("kernel_oom", "kernel_oom_group", "rank_killed")
        and other.signature in ("container_killed", "container_oom", "worker_signalled", "worker_reaped")
        and other.node == event.node
    ]
    told = dict.fromkeys(f"{o.signature} of the {o.node}" for o in ordered([*agreeing, *killed]))
    return [f"it agrees with {', '.join(told)}"] if told else []


def _began_again(stop: Event, first: Event | None, events: Sequence[Event]) -> bool:
    """The rank that was stopped had been started anew before the first symptom, which is then of another run."""
    if first is None or first.at_s is None or stop.at_s is None:
        return False
    return any(
        event.signature in _STARTS
        and event.node == stop.node
        and event.at_s is not None
        and stop.at_s < event.at_s <= first.at_s
        for event in events
    )


def _asked(case: Case, events: Sequence[Event], symptoms: Sequence[Event], slack_s: float | None) -> bool:
    """Only echoes, and somebody had asked the pair to stop shortly before; a stop that came later explains none."""
    first = next((event for event in symptoms if not _is_standing(event)), None)
    asked = [event for event in events if event.signature == "stop_asked" and event.at_s is not None]
    asked = [stop for stop in asked if not _began_again(stop, first, events)]
    if first is not None and first.at_s is not None:
        since = [(first.at_s - (stop.at_s or 0.0), _tolerance(stop, first, slack_s)) for stop in asked]
        if any(-slack <= passed_s <= STOP_S for passed_s, slack in since):
            return True
        if any(passed_s < -slack for passed_s, slack in since):
            return False
    return len(case.asked_to_stop) == len(ROLES)
