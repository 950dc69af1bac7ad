"""Whether a rank's log holds known lines, of this start, and what that is worth when the log was not read whole."""

from __future__ import annotations

from dspark_ops.doctor.outcome import FactMissingError, NodeView, NotApplicableError, Outcome, PairView, fail, need, ok
from dspark_ops.facts.log_hits import LogFacts, LogHit, parse_stamp
from dspark_ops.facts.log_signatures import Signature, load_signatures
from dspark_ops.facts.rank import RankFacts

READY = "api_ready"
#: Either of these ends a start; a worker has no API.
_START_ENDS = (READY, "graphs_captured")
#: A rank says its first words within this time; a log that begins later has lost its beginning to rotation.
FIRST_WORDS_S = 600.0


def roots_of(check: str) -> tuple[Signature, ...]:
    """The known lines that make a check bad by being there."""
    return tuple(s for s in load_signatures().values() if s.check == check and s.kind != "context")


def log_of(view: NodeView) -> LogFacts:
    """The log of this node's rank, running or not.

    Raises:
        FactMissingError: it could not be read.
        NotApplicableError: nothing is deployed.
    """
    view.rank()
    return need(view.node.engine_log, "the rank's log")


def head_view(view: PairView) -> NodeView:
    """The head as a rule of a node sees it."""
    return NodeView(view.facts, view.site, view.profile, view.limits, "head")


def started_s(rank: RankFacts) -> float | None:
    """When the rank's container was started, by the node's clock; None when that is not told."""
    return parse_stamp(rank.started_at)


def hit_of(view: NodeView, signature: str) -> LogHit | None:
    """A known line of this start; None when it was not seen, or only before the container was started."""
    return _since(log_of(view).hit(signature), started_s(view.rank()))


def _since(hit: LogHit | None, begin_s: float | None) -> LogHit | None:
    if hit is None or begin_s is None or hit.last.at_s is None:
        return hit
    return hit if hit.last.at_s >= begin_s else None


def start_lost(view: NodeView) -> bool:
    """The start is no longer in the log."""
    first, begin = log_of(view).from_s, started_s(view.rank())
    return first is not None and begin is not None and first - begin > FIRST_WORDS_S


def ready_s(view: NodeView) -> float | None:
    """When the API was ready; where the start is no longer in the log, when that begins. None when neither is told."""
    hit = hit_of(view, READY)
    if hit is None:
        return log_of(view).from_s if start_lost(view) else None
    return hit.last.at_s


def times_after(hit: LogHit, moment_s: float) -> list[float]:
    """The times of the lines that were kept of a hit, those after a moment."""
    return [line.at_s for line in hit.lines if line.at_s is not None and line.at_s > moment_s]


def unseen(view: NodeView, check: str, fine: str, expected: str, *, start: bool = False) -> Outcome:
    """ok when no line of the check is in the log. start: only the start matters, so it is enough to have read that.

    Raises:
        FactMissingError: none was seen, and the log was not read to its end.
        NotApplicableError: nothing is deployed; the rank was asked to end, and what it said of its life is over; or its
            start is no longer in the log.
    """
    log, rank = log_of(view), view.rank()
    if not start and rank.ended_in_order:
        raise NotApplicableError("the rank was asked to end")
    seen = [(s, hit) for s in roots_of(check) if (hit := _since(log.hit(s.id), started_s(rank))) is not None]
    if seen:
        told = "; ".join(s.means + ("" if hit.count == 1 else f" ({hit.count} lines)") for s, hit in seen)
        return fail(told, expected, evidence=seen[0][1].lines[0].text)
    if start and start_lost(view):
        raise NotApplicableError("the start is no longer in the rank's log")
    whole(view, log, start=start)
    return ok(fine)


def whole(view: NodeView, log: LogFacts, *, start: bool = False) -> None:
    """End the rule when a line that was not seen may be in the log all the same.

    Raises:
        FactMissingError: the log was cut; start: before its start had ended.
    """
    if log.cut is None or (start and any(hit_of(view, name) is not None for name in _START_ENDS)):
        return
    raise FactMissingError(f"the rank's log is long and was not read to its end ({log.cut}): what was not seen")
