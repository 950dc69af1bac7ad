"""Whether speculation does what it is for: the k that really runs, and how much of what is drafted is accepted."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NotApplicableError, Outcome, PairView, fail, need, ok
from dspark_ops.doctor.registry import pair_rule
from dspark_ops.doctor.rules.metrics import counted
from dspark_ops.doctor.told import need_gpu
from dspark_ops.facts.metrics import MetricsFacts


def _drafting(view: PairView) -> MetricsFacts:
    """The counters of an engine that drafts, after enough drafts.

    Raises:
        FactMissingError, NotApplicableError: as counted; it does not draft, or has not drafted enough.
    """
    found = counted(view)
    if found.drafts is None:
        raise NotApplicableError("the engine does not draft")
    floor = view.limits["min_drafts"]
    if found.drafts < floor:
        raise NotApplicableError(f"{found.drafts} drafts, fewer than {floor:g}")
    return found


@pair_rule("runtime.effective_k")
def effective_k(view: PairView) -> Outcome:
    """The engine drafts as many tokens as the site says, whatever a file or a label says."""
    found, wanted = counted(view), view.site.serve.speculative
    k = None if found.accepted_per_position is None else len(found.accepted_per_position)
    told = "the engine does not draft" if k is None else f"the engine drafts {k} tokens"
    expected = "no drafts" if wanted.tokens is None else f"k {wanted.tokens}"
    return ok(told) if k == wanted.tokens else fail(told, expected)


@pair_rule("runtime.drafts_accepted")
def drafts_accepted(view: PairView) -> Outcome:
    """Of what is drafted something is accepted: nothing at all is a draft that reads another model's state."""
    found = _drafting(view)
    accepted = need(found.accepted_tokens, "the accepted tokens")
    drafted = need(found.draft_tokens, "the drafted tokens")
    told = f"{accepted} of {drafted} drafted tokens were accepted"
    return fail(told, "more than none") if accepted == 0 else ok(told)


@pair_rule("runtime.acceptance")
def acceptance(view: PairView) -> Outcome:
    """Acceptance is that of a draft whose weights are all loaded."""
    need_gpu(view)
    rate, limit = need(_drafting(view).acceptance, "the acceptance"), view.limits["min_share"]
    told = f"{rate:.1%} of the drafted tokens are accepted"
    return fail(told, f"at least {limit:.0%}") if rate < limit else ok(told)


@pair_rule("runtime.position_collapse")
def position_collapse(view: PairView) -> Outcome:
    """Acceptance does not collapse after the first position: that is the sign of draft weights left out."""
    need_gpu(view)
    places = need(_drafting(view).accepted_per_position, "the acceptance per position")
    if len(places) < 2 or not places[0]:
        raise NotApplicableError("there are not two positions to compare")
    ratio, limit = places[1] / places[0], view.limits["min_ratio"]
    told = f"the second position is accepted {ratio:.2f} times as often as the first"
    return fail(told, f"at least {limit:g}") if ratio < limit else ok(told)
