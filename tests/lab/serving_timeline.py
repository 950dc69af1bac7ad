"""What one trial of the fault matrix says: from moments and events to times, counts and a verdict. Pure.

All moments are Unix seconds of the head's clock; lengths of time end in `_s`; None is "did not happen" or "not known".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA = "dspark-ops/serving-matrix/v1"
#: restart: the pair goes and comes back as one. nothing: the fault is none of the supervisor's. waits: nothing starts
#: until the fault is taken off. returns: whatever is done meanwhile, it serves after the fault. latches: it gives up.
Kind = Literal["restart", "nothing", "waits", "returns", "latches"]
Verdict = Literal["right", "wrong", "lost", "cloud"]
#: A verdict of the supervisor: from a state in which something ran to one in which it is ended.
_RAN = ("starting", "gate", "serving", "suspect")
_ENDED = ("draining", "stopping", "failed")


@dataclass(frozen=True)
class Ask:
    """One request of the steady client. cloud: answered, and not by the pair."""

    sent: float
    ended: float
    verdict: Verdict


@dataclass(frozen=True)
class Change:
    """One transition in the supervisor's journal. by: the kinds of its witnesses."""

    at: float
    source: str
    target: str
    reason: str
    by: tuple[str, ...] = ()

    @property
    def ends_the_pair(self) -> bool:
        return self.source in _RAN and self.target in _ENDED


@dataclass(frozen=True)
class Alert:
    """One alert in the supervisor's journal, when it began."""

    at: float
    key: str
    page: bool


@dataclass(frozen=True)
class ContainerEvent:
    """What Docker on a node says of the rank's container."""

    at: float
    node: str
    action: Literal["start", "die"]
    epoch: str


@dataclass(frozen=True)
class Expect:
    """What must come of a fault.

    by: kinds of witnesses of which one must have told it; empty: any. alerts: keys that must come. restarts: verdicts
    that are right; each more is a false action. starts: most automatic starts. events_whole: Docker's events are kept
    over the fault, so that what ran together can be told from them.
    """

    kind: Kind
    by: frozenset[str] = frozenset()
    alerts: frozenset[str] = frozenset()
    detect_goal_s: float | None = None
    serve_goal_s: float | None = None
    beyond_load_goal_s: float | None = None
    restarts: int = 1
    starts: int = 1
    events_whole: bool = True


@dataclass(frozen=True)
class Seen:
    """What was seen of one trial. epoch_before, epoch_after: None when the pair did not serve at that moment.

    problems: what was found wrong where it was looked at, e.g. an orphan, or a limit that passed.
    """

    injected: float
    ended: float
    epoch_before: str | None
    epoch_after: str | None
    final_state: str | None
    reverted: float | None = None
    changes: tuple[Change, ...] = ()
    alerts: tuple[Alert, ...] = ()
    events: tuple[ContainerEvent, ...] = ()
    asks: tuple[Ask, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """The figures of one trial. serve_s: from the fault, or from its end where nothing can serve before that.

    beyond_load_s: what of serve_s is not the load of the engine that serves then, which counts from the start of the
    head's rank until the start is up. outage_s: from the last right answer before the first that failed to the next
    right one. problems: empty when everything was as expected.
    """

    detected_by: str | None
    detect_s: float | None
    serve_s: float | None
    outage_s: float | None
    right: int
    lost: int
    cloud: int
    wrong: int
    false_actions: int
    problems: tuple[str, ...] = field(default=())
    beyond_load_s: float | None = None


def read_journal(entries: Iterable[Mapping[str, Any]]) -> tuple[tuple[Change, ...], tuple[Alert, ...]]:
    """Transitions and alerts of lines of the supervisor's journal, by their time."""
    changes, alerts = [], []
    for entry in entries:
        at = float(entry["at"])
        if entry["kind"] == "transition":
            kinds = tuple(dict.fromkeys(str(text).partition(":")[0] for text in entry["witnesses"]))
            changes.append(Change(at, entry["source"], entry["target"], entry["reason"], kinds))
        elif entry["kind"] == "alert":
            alerts.append(Alert(at, str(entry["alert"]), bool(entry["page"])))
    return tuple(sorted(changes, key=lambda c: c.at)), tuple(sorted(alerts, key=lambda a: a.at))


def read_events(node: str, documents: Iterable[Mapping[str, Any]], label: str) -> tuple[ContainerEvent, ...]:
    """Starts and deaths of the rank among the lines of `docker events`. label: under which the epoch stands."""
    found = []
    for document in documents:
        action, epoch = document.get("Action"), document["Actor"]["Attributes"].get(label)
        if action in ("start", "die") and epoch:
            found.append(ContainerEvent(int(document["timeNano"]) / 1e9, node, action, str(epoch)))
    return tuple(found)


def wrongly_run(events: Iterable[ContainerEvent], *, before: str | None, nodes: Sequence[str]) -> list[str]:
    """What must never be: ranks of two epochs at once, one epoch started twice on a node, a head before its worker.

    before: the epoch that ran on every node before the first event.
    """
    running: dict[str, str] = dict.fromkeys(nodes, before) if before else {}
    started: set[tuple[str, str]] = set()
    wrong = []
    for event in sorted(events, key=lambda event: event.at):
        if event.action == "die":
            if running.get(event.node) == event.epoch:
                del running[event.node]
            continue
        if (event.node, event.epoch) in started or event.epoch == before:
            wrong.append(f"{event.epoch} was started twice on the {event.node}")
        if event.node == "head" and ("worker", event.epoch) not in started:
            wrong.append(f"the head of {event.epoch} was started before its worker")
        started.add((event.node, event.epoch))
        running[event.node] = event.epoch
        if len(set(running.values())) > 1:
            shown = ", ".join(f"{epoch} on the {node}" for node, epoch in sorted(running.items()))
            wrong.append(f"two epochs ran at once: {shown}")
    return wrong


def outage_s(asks: Sequence[Ask], since: float) -> float | None:
    """How long a client went without a right answer around the first that failed after `since`; None: none failed, or
    none was right again."""
    failed = next((ask for ask in asks if ask.verdict in ("lost", "wrong") and ask.ended >= since), None)
    if failed is None:
        return None
    right = [ask.ended for ask in asks if ask.verdict in ("right", "cloud")]
    before = [moment for moment in right if moment <= failed.ended]
    after = [moment for moment in right if moment > failed.ended]
    return after[0] - (before[-1] if before else failed.sent) if after else None


def measure(expect: Expect, seen: Seen) -> Measured:
    """The figures of a trial and everything that was not as expected."""
    verdicts = [change for change in seen.changes if change.ends_the_pair and change.at >= seen.injected]
    detected_at, detected_by = _detected(expect, seen, verdicts)
    since = seen.reverted if expect.kind in ("waits", "returns", "latches") else seen.injected
    served = [change.at for change in seen.changes if change.target == "serving" and change.at >= (since or math.inf)]
    load = _load_s(seen, served[0] if served else None)
    asks = [ask for ask in seen.asks if ask.ended >= seen.injected]
    count = {verdict: sum(ask.verdict == verdict for ask in asks) for verdict in ("right", "lost", "cloud", "wrong")}
    allowed = 0 if expect.kind == "nothing" else expect.restarts
    false_actions = max(0, len(verdicts) - allowed)
    problems = [*seen.problems, *_not_as_expected(expect, seen, detected_by)]
    if false_actions:
        told = "; ".join(f"{change.source} -> {change.target}: {change.reason}" for change in verdicts)
        problems.append(f"{false_actions} false actions: {told}")
    if count["wrong"]:
        problems.append(f"{count['wrong']} wrong answers")
    return Measured(
        detected_by=detected_by,
        detect_s=None if detected_at is None else max(0.0, detected_at - seen.injected),
        serve_s=served[0] - since if served and since is not None else None,
        outage_s=outage_s(seen.asks, seen.injected),
        right=count["right"],
        lost=count["lost"],
        cloud=count["cloud"],
        wrong=count["wrong"],
        false_actions=false_actions,
        problems=tuple(problems),
        beyond_load_s=served[0] - since - load if served and since is not None and load is not None else None,
    )


def _load_s(seen: Seen, served: float | None) -> float | None:
    """How long the engine that served at this moment took to load; None: it was not seen."""
    up = [change.at for change in seen.changes if change.target == "gate" and change.at <= (served or -math.inf)]
    starts = [event.at for event in seen.events if event.node == "head" and event.action == "start"]
    begun = [moment for moment in starts if up and moment < up[-1]]
    return up[-1] - begun[-1] if begun else None


def _detected(expect: Expect, seen: Seen, verdicts: Sequence[Change]) -> tuple[float | None, str | None]:
    """The first thing that told a person or the pair of the fault: a verdict, a death under a hold, or an alert."""
    found = [(change.at, "+".join(change.by) or change.target) for change in verdicts]
    found += [
        (change.at, "+".join(change.by))
        for change in seen.changes
        if change.target == "cooling" and change.source in ("serving", "suspect") and change.by
    ]
    found += [(alert.at, f"alert {alert.key}") for alert in seen.alerts if alert.key in expect.alerts]
    later = sorted(item for item in found if item[0] >= seen.injected)
    return later[0] if later else (None, None)


def _not_as_expected(expect: Expect, seen: Seen, detected_by: str | None) -> list[str]:
    wrong = []
    told = {alert.key for alert in seen.alerts if alert.at >= seen.injected}
    wrong += [f"no alert {key}" for key in sorted(expect.alerts - told)]
    if expect.kind == "restart" and detected_by is None:
        wrong.append("it was not detected")
    if expect.by and detected_by is not None and not expect.by & set(detected_by.split("+")):
        wrong.append(f"told by {detected_by}, expected one of {', '.join(sorted(expect.by))}")
    if expect.kind == "latches" and not any(alert.key == "latched" and alert.page for alert in seen.alerts):
        wrong.append("it did not page that it latched")
    if seen.final_state != "serving":
        wrong.append(f"in the end it was {seen.final_state or 'not to be asked'}, expected serving")
    if expect.kind == "nothing" and seen.epoch_after != seen.epoch_before:
        wrong.append(f"epoch {seen.epoch_after} runs instead of {seen.epoch_before}")
    if expect.kind == "restart" and seen.epoch_after == seen.epoch_before:
        wrong.append(f"epoch {seen.epoch_before} still runs")
    if expect.events_whole:
        wrong += wrongly_run(seen.events, before=seen.epoch_before, nodes=("head", "worker"))
    starts = len({event.epoch for event in seen.events if event.action == "start"})
    if starts > expect.starts:
        wrong.append(f"{starts} starts, expected at most {expect.starts}")
    return wrong


def document(row: str, number: int, expect: Expect, seen: Seen, measured: Measured) -> dict[str, Any]:
    """One line of evidence: everything that was seen, and what was made of it."""
    goals = {"detect_s": expect.detect_goal_s, "serve_s": expect.serve_goal_s,
             "beyond_load_s": expect.beyond_load_goal_s}  # fmt: skip
    made = {"expected": expect.kind, "goals": goals, "measured": asdict(measured), "seen": asdict(seen)}
    return {"schema": SCHEMA, "row": row, "trial": number, **made}
