"""What the engine counts of itself: state, queue, outcome, speculation and speed since it was started."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NotApplicableError, Outcome, PairView, fail, judge, need, ok
from dspark_ops.doctor.registry import pair_rule
from dspark_ops.doctor.rules.api import answering
from dspark_ops.doctor.told import need_gpu, told_ranks
from dspark_ops.facts.metrics import MeanFacts, MetricsFacts, ScrapeFacts
from dspark_ops.facts.service import api_url


def _scrape(view: PairView) -> ScrapeFacts:
    """What `/metrics` gave, from an API that answers.

    Raises:
        FactMissingError, NotApplicableError: as answering, and it was not asked.
    """
    answering(view)
    return need(view.facts.head.metrics, "/metrics")


def counted(view: PairView) -> MetricsFacts:
    """The first scrape.

    Raises:
        FactMissingError, NotApplicableError: as _scrape; there is none, which runtime.metrics tells.
    """
    found = _scrape(view).first
    if found is None:
        raise NotApplicableError("/metrics was not read, which runtime.metrics tells")
    return found


def _enough(count: int, view: PairView, what: str) -> None:
    """End the rule below the number of cases from which a share means something."""
    floor = view.limits["min_count"]
    if count < floor:
        raise NotApplicableError(f"{count} {what}, fewer than {floor:g}")


def _share(view: PairView, reason: str) -> tuple[float, int, int]:
    """Of the requests that ended, how many ended so: the share, that number, all of them."""
    finished = need(counted(view).finished, "the requests that ended")
    total = sum(finished.values())
    _enough(total, view, "requests have ended")
    count = finished.get(reason, 0)
    return count / total, count, total


def _at_most_share(view: PairView, reason: str, words: str) -> Outcome:
    share, count, total = _share(view, reason)
    limit = view.limits["max_share"]
    if share > limit:
        return fail(f"{count} of {total} requests {words}", f"at most {limit:.0%}")
    return ok(f"{count} of {total} requests {words}")


@pair_rule("runtime.metrics")
def metrics(view: PairView) -> Outcome:
    """`/metrics` answers with vLLM's own counters: without them nobody sees a wedge."""
    scrape, url = _scrape(view), f"{api_url(view.site)}/metrics"
    if scrape.first is None:
        return fail(f"{url}: {scrape.error or 'no reason given'}", "vLLM's counters")
    return ok(f"{url} answers")


@pair_rule("runtime.awake")
def awake(view: PairView) -> Outcome:
    """The engine is not put to sleep, with its weights given away."""
    state = counted(view).awake
    if state is None:
        raise NotApplicableError("this release does not say whether it sleeps")
    return ok("awake") if state else fail("the engine sleeps", "an engine that is awake")


@pair_rule("runtime.kv_full")
def kv_full(view: PairView) -> Outcome:
    """The KV pool has room: a full one queues, preempts and computes again."""
    usage, limit = need(counted(view).kv_usage, "the use of the KV pool"), view.limits["max_usage"]
    told = f"{usage:.1%} of the KV pool is in use"
    return fail(told, f"below {limit:.0%}") if usage >= limit else ok(told)


@pair_rule("runtime.queue")
def queue(view: PairView) -> Outcome:
    """Nobody waits for room in the KV pool or for a lane."""
    found = counted(view)
    waiting = found.waiting if found.waiting_for_capacity is None else found.waiting_for_capacity
    count, limit = need(waiting, "the requests that wait"), view.limits["max_waiting"]
    if count > limit:
        return fail(f"{count:g} requests wait while {found.running or 0:g} run", f"at most {limit:g}")
    return ok(f"{count:g} requests wait")


@pair_rule("runtime.queue_time")
def queue_time(view: PairView) -> Outcome:
    """Requests begin soon after they came."""
    return _slow(view, counted(view).queue_time, "wait for a lane")


@pair_rule("runtime.first_token")
def first_token(view: PairView) -> Outcome:
    """The first token comes within a time that people wait."""
    need_gpu(view)
    return _slow(view, counted(view).first_token_time, "wait for their first token")


def _slow(view: PairView, mean: MeanFacts | None, words: str) -> Outcome:
    found = need(mean, "the times of the requests")
    _enough(found.count, view, "requests are counted")
    seconds, limit = found.sum_s / found.count, view.limits["max_seconds"]
    told = f"{found.count} requests {words} {seconds:.1f} s in the mean"
    return fail(told, f"at most {limit:g} s") if seconds > limit else ok(told)


@pair_rule("runtime.decode_speed")
def decode_speed(view: PairView) -> Outcome:
    """A request gets its tokens at the speed of this model on this pair."""
    need_gpu(view)
    found = need(counted(view).token_time, "the time per token")
    _enough(found.count, view, "requests are counted")
    seconds, limit = found.sum_s / found.count, view.limits["min_rate"]
    rate = 1 / seconds if seconds > 0 else float("inf")
    told = f"{rate:.1f} tok/s a request in the mean of {found.count}"
    return fail(told, f"at least {limit:g} tok/s") if rate < limit else ok(told)


@pair_rule("runtime.preemptions")
def preemptions(view: PairView) -> Outcome:
    """Requests keep their lane: one that is preempted computes its prompt again."""
    found = counted(view)
    count, total = need(found.preemptions, "the preemptions"), need(found.requests, "the requests that ended")
    _enough(total, view, "requests have ended")
    limit = view.limits["max_share"]
    told = f"{count} preemptions for {total} requests"
    return fail(told, f"at most {limit:g} a request") if count / total > limit else ok(told)


@pair_rule("runtime.request_errors")
def request_errors(view: PairView) -> Outcome:
    """Requests do not end in an error of the engine."""
    return _at_most_share(view, "error", "ended in an error")


@pair_rule("runtime.aborts")
def aborts(view: PairView) -> Outcome:
    """Clients wait for their answers: an abort is one that gave up, or lost its connection."""
    return _at_most_share(view, "abort", "were given up by their client")


@pair_rule("runtime.cut_replies")
def cut_replies(view: PairView) -> Outcome:
    """Answers end by themselves: one cut at its length is often a thought that never ended."""
    return _at_most_share(view, "length", "were cut at their length")


@pair_rule("runtime.repetition")
def repetition(view: PairView) -> Outcome:
    """The engine does not stop answers that repeat themselves."""
    return _at_most_share(view, "repetition", "repeated themselves")


@pair_rule("runtime.server_errors")
def server_errors(view: PairView) -> Outcome:
    """The API does not answer with 5xx."""
    answers = need(counted(view).answers, "the answers of the API")
    total, bad = sum(answers.values()), answers.get("5xx", 0)
    _enough(total, view, "answers are counted")
    limit = view.limits["max_share"]
    told = f"{bad} of {total} answers are 5xx"
    return fail(told, f"at most {limit:.0%}") if bad / total > limit else ok(told)


@pair_rule("runtime.rejections")
def rejections(view: PairView) -> Outcome:
    """No request was turned away at the door."""
    count = counted(view).rejections
    if count is None:
        raise NotApplicableError("this release counts no rejections")
    limit = view.limits["max_count"]
    told = f"{count} requests were turned away"
    return fail(told, f"at most {limit:g}") if count > limit else ok(told)


@pair_rule("runtime.corrupted")
def corrupted(view: PairView) -> Outcome:
    """No answer was computed from numbers that are none."""
    count = counted(view).corrupted
    if count is None:
        raise NotApplicableError("the engine does not look for numbers that are none (VLLM_COMPUTE_NANS_IN_LOGITS)")
    return ok("none") if count == 0 else fail(f"{count} requests had NaN in their logits", "none")


@pair_rule("runtime.open_files")
def open_files(view: PairView) -> Outcome:
    """The API server is far from its limit of open files."""
    found = counted(view)
    count, most = need(found.open_files, "the open files"), need(found.open_files_limit, "the limit of open files")
    limit = view.limits["max_share"] * most
    told = f"{count} of {most} files are open"
    return fail(told, f"at most {limit:.0f}") if count > limit else ok(told)


@pair_rule("runtime.prefix_hits")
def prefix_hits(view: PairView) -> Outcome:
    """Prefixes are found again: agents send their whole history with every turn."""
    need_gpu(view)
    found = counted(view)
    asked, hits = need(found.prefix_queries, "the looks for a prefix"), need(found.prefix_hits, "the prefixes found")
    _enough(asked, view, "prompt tokens were looked for")
    limit = view.limits["min_share"]
    told = f"{hits / asked:.1%} of {asked} prompt tokens were cached"
    return fail(told, f"at least {limit:.0%}") if hits / asked < limit else ok(told)


@pair_rule("runtime.cache_options")
def cache_options(view: PairView) -> Outcome:
    """The cache is what the arguments asked for: layout, block size and prefixes as the engine made them."""
    cache = need(counted(view).cache, "the cache's description")
    rank = next((rank for rank in told_ranks(view) if rank.role == "head"), None)
    told = need(rank, "the arguments of the head's rank")
    problems = []
    dtype, labels = told.last("--kv-cache-dtype") or "auto", view.profile.engine.kv_labels
    if dtype != "auto" and cache.dtype is not None and not _same_layout(labels, dtype, cache.dtype):
        problems.append(f"the layout is {cache.dtype}, {dtype} was asked for")
    size = told.whole("--block-size")
    if size is not None and cache.block_size is not None and cache.block_size != size:
        problems.append(f"blocks have {cache.block_size} tokens, {size} were asked for")
    wanted = told.switch("--enable-prefix-caching")
    if wanted is not None and cache.prefix_caching is not None and cache.prefix_caching != wanted:
        problems.append(f"prefix caching is {'on' if cache.prefix_caching else 'off'}")
    return judge(
        problems, f"layout {cache.dtype}, blocks of {cache.block_size}", "the cache that the arguments ask for"
    )


def _same_layout(labels: dict[str, str], asked: str, found: str) -> bool:
    """Two names of one layout are the same: `fp8` becomes `fp8_ds_mla` by itself."""
    return asked == found or (asked in labels and labels.get(asked) == labels.get(found))


@pair_rule("runtime.pool_one_request")
def pool_one_request(view: PairView) -> Outcome:
    """The pool holds one request of the full context, so that the advertised length can be had."""
    cache = need(counted(view).cache, "the cache's description")
    concurrency, limit = need(cache.concurrency, "the pool's concurrency"), view.limits["min_requests"]
    told = f"the pool holds {concurrency:.2f} requests of full length"
    return fail(told, f"at least {limit:g}") if concurrency < limit else ok(told)


@pair_rule("runtime.wedged")
def wedged(view: PairView) -> Outcome:
    """Between two looks the engine moved: a wedged one answers 200, shows a running request, and stands still."""
    scrape = _scrape(view)
    if scrape.first is None:
        raise NotApplicableError("/metrics was not read, which runtime.metrics tells")
    later, interval = need(scrape.later, "the second look at /metrics"), need(scrape.interval_s, "the time between")
    if not later.running:
        return ok("nothing runs that could stand still")
    first = scrape.first
    before, after = need(first.generation_tokens, "the tokens"), need(later.generation_tokens, "the tokens")
    if before != after or first.kv_usage != later.kv_usage:
        return ok(f"{after - before} tokens came in between")
    floor = view.limits["min_seconds"]
    if interval < floor:
        raise NotApplicableError(f"only {interval:.1f} s lie between the two looks, {floor:g} are needed to tell")
    return fail(
        f"{later.running:g} requests run, and for {interval:.0f} s no token came and the KV pool did not change",
        "tokens, or a prefill that fills the pool",
    )
