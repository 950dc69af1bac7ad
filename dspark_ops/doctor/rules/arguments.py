"""The engine's arguments as the ranks were given them: settings that start, and then fail, crawl or answer wrongly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from dspark_ops.config.engine_arguments import take_apart
from dspark_ops.config.engine_invariants import (
    arguments_are_known,
    captures_cover_the_steady_shape,
    generation_has_no_penalty,
    moe_backend_serves_the_experts,
)
from dspark_ops.doctor.outcome import NotApplicableError, Outcome, PairView, need
from dspark_ops.doctor.registry import pair_rule
from dspark_ops.doctor.told import (
    Told,
    judge_told,
    need_gpu,
    need_release,
    release_runs,
    site_as_told,
    texts,
    told_ranks,
)
from dspark_ops.releases.model import hide_argv

_PARSERS = ("--tool-call-parser", "--reasoning-parser", "--tokenizer-mode")


@pair_rule("config.given_twice")
def given_twice(view: PairView) -> Outcome:
    """No option is given twice: the last one wins without a word."""

    def problems(rank: Told) -> Iterator[str]:
        for (name, below), count in Counter((o.name, o.below) for o in rank.options).items():
            if count > 1:
                last = " ".join(hide_argv((name, str(rank.last(name))))[1:])
                yield f"{name}{f'.{below}' if below else ''} is given {count} times, {last} counts"

    return judge_told(view, problems, "every option is given once", "every option once")


@pair_rule("config.argument_names")
def argument_names(view: PairView) -> Outcome:
    """This vLLM release knows every option, and every value where it takes only some."""
    need_release(view)
    ids = ("cfg.argument_unknown", "cfg.argument_value", "cfg.attention_backend", "cfg.moe_backend")

    def problems(rank: Told) -> list[str]:
        # The model's path and other words that are no option are none of this rule's business.
        stray = {index for index, _ in take_apart(rank.argv)[1]}
        words = tuple(word for index, word in enumerate(rank.argv) if index not in stray)
        site = site_as_told(view.site, Told.of(rank.role, words, rank.env))
        found = list(arguments_are_known(site, view.profile))
        if texts(found, "cfg.names_unread"):
            raise NotApplicableError(f"the names that vLLM {view.profile.vllm} knows have not been read")
        return texts(found, *ids)

    return judge_told(view, problems, "every option is known", f"options that vLLM {view.profile.vllm} has")


@pair_rule("config.speculation")
def speculation(view: PairView) -> Outcome:
    """The speculation that the site asks for, unharmed by a shell, with a k that this release accepts."""
    wanted, legal = view.site.serve.speculative, view.profile.legal_k
    expected = "no speculation" if wanted.method == "none" else f"{wanted.method} with k {wanted.tokens}"

    def problems(rank: Told) -> Iterator[str]:
        given = rank.document("--speculative-config")
        if any(option.name == "--speculative-config" for option in rank.options) and given is None:
            yield f"--speculative-config is no JSON object: {rank.last('--speculative-config')}"
        elif given is None:
            yield from ["speculation is off"] if wanted.method != "none" else []
        else:
            method, tokens = given.get("method"), rank.drafted()
            if (method, tokens) != (wanted.method, wanted.tokens):
                yield f"{method} with k {tokens} is on"
            if method in legal and tokens not in legal[method] and release_runs(view):
                yield f"k {tokens} is not legal for {method} (legal: {', '.join(map(str, legal[method]))})"

    return judge_told(view, problems, expected, expected)


@pair_rule("config.verify_rows")
def verify_rows(view: PairView) -> Outcome:
    """A full step verifies no more rows than the sparse decode kernel takes at once."""
    need_gpu(view)
    limit = view.limits["max_rows"]
    if all(rank.drafted() is None for rank in told_ranks(view)):
        raise NotApplicableError("there is no speculation")

    def problems(rank: Told) -> Iterator[str]:
        k = rank.drafted()
        if k is not None:
            lanes = need(rank.whole("--max-num-seqs"), "--max-num-seqs")
            if lanes * (k + 1) > limit:
                yield f"{lanes} lanes x (k {k} + 1) are {lanes * (k + 1)} rows"

    return judge_told(view, problems, "the rows of a full step fit", f"at most {limit:g} rows")


@pair_rule("config.capture_sizes")
def capture_sizes(view: PairView) -> Outcome:
    """Graphs are captured for the steady shape, so that no full step falls back to eager."""
    need_gpu(view)

    def problems(rank: Told) -> list[str]:
        found = captures_cover_the_steady_shape(site_as_told(view.site, rank), view.profile)
        return texts(found, "cfg.capture_size")

    return judge_told(
        view, problems, "the steady shape is captured", "graphs up to max_num_seqs x (k + 1), it included"
    )


@pair_rule("config.eager")
def eager(view: PairView) -> Outcome:
    """Graphs are in use: eager steps cost most of the speed."""
    need_gpu(view)
    return judge_told(
        view,
        lambda rank: ["--enforce-eager is given"] if rank.given("--enforce-eager") else [],
        "graphs are in use",
        "no --enforce-eager",
    )


@pair_rule("config.kv_dtype")
def kv_dtype(view: PairView) -> Outcome:
    """The KV layout is one that this build carries; a name alone stores nothing."""
    need_release(view)
    known = view.profile.engine.kv_labels

    def problems(rank: Told) -> Iterator[str]:
        dtype = rank.last("--kv-cache-dtype") or "auto"
        if dtype not in known:
            yield f"--kv-cache-dtype is {dtype}"

    return judge_told(view, problems, "the KV layout is carried", f"one of {', '.join(known)}")


@pair_rule("config.block_size")
def block_size(view: PairView) -> Outcome:
    """The main cache has the one block size that the kernels of this model know."""
    need_gpu(view)
    wanted = view.limits["tokens"]

    def problems(rank: Told) -> Iterator[str]:
        if rank.given("--block-size") and rank.whole("--block-size") != wanted:
            yield f"--block-size is {rank.last('--block-size')}"

    return judge_told(view, problems, f"{wanted:g} tokens", f"{wanted:g} tokens")


@pair_rule("config.batched_tokens")
def batched_tokens(view: PairView) -> Outcome:
    """A step's tokens leave the pool to the requests: they are reserved in every one of them."""
    need_gpu(view)
    limit = view.limits["max_tokens"]

    def problems(rank: Told) -> Iterator[str]:
        tokens = rank.whole("--max-num-batched-tokens")
        if tokens is not None and tokens > limit:
            yield f"--max-num-batched-tokens is {tokens}"

    return judge_told(view, problems, "the reserve of a step is small", f"at most {limit:g}")


@pair_rule("config.memory_share")
def memory_share(view: PairView) -> Outcome:
    """The engine asks for no more than CUDA can have, and leaves room for what speculation allocates later."""
    need_gpu(view)

    def problems(rank: Told) -> Iterator[str]:
        share = rank.number("--gpu-memory-utilization")
        speculates = rank.drafted() is not None
        limit = view.limits["max_speculative" if speculates else "max_share"]
        fixed = rank.given("--kv-cache-memory-bytes")
        if share is None and not fixed:
            yield "--gpu-memory-utilization is not given: the engine takes 0.9 of all memory or more"
        elif share is not None and share > limit and not fixed:
            yield f"--gpu-memory-utilization is {share:g}, at most {limit:g}{' with speculation' if speculates else ''}"

    expected = f"at most {view.limits['max_share']:g}, with speculation {view.limits['max_speculative']:g}"
    return judge_told(view, problems, "the share can be had", expected)


@pair_rule("config.moe_backend")
def moe_backend(view: PairView) -> Outcome:
    """The experts run on the profile's backend: another one halves the speed, or ends the start."""
    need_release(view)
    wanted = Told.of("head", view.profile.serve_args, {}).last("--moe-backend")
    if wanted is None:
        raise NotApplicableError(f"profile {view.profile.name} names no MoE backend")

    def problems(rank: Told) -> Iterator[str]:
        if rank.last("--moe-backend") != wanted:
            yield f"--moe-backend is {rank.last('--moe-backend') or 'absent'}"
        yield from texts(moe_backend_serves_the_experts(site_as_told(view.site, rank), view.profile), "cfg.moe_backend")

    return judge_told(view, problems, wanted, wanted)


@pair_rule("config.parsers")
def parsers(view: PairView) -> Outcome:
    """Tool calls, reasoning and the prompt are read and written by the model's own parsers."""
    profile = Told.of("head", view.profile.serve_args, {})
    wanted = {name: value for name in _PARSERS if (value := profile.last(name)) is not None}

    def problems(rank: Told) -> Iterator[str]:
        for name, value in wanted.items():
            if rank.last(name) != value:
                yield f"{name} is {rank.last(name) or 'absent'}, expected {value}"
        if rank.given("--tool-call-parser") and not rank.given("--enable-auto-tool-choice"):
            yield "--tool-call-parser without --enable-auto-tool-choice: no call is ever made"

    return judge_told(view, problems, "the profile's parsers", "the profile's parsers, and automatic tool choice")


@pair_rule("config.prefix_caching")
def prefix_caching(view: PairView) -> Outcome:
    """Prefixes are cached: without it every turn of an agent computes its whole history again."""
    return judge_told(
        view,
        lambda rank: ["prefix caching is off"] if rank.switch("--enable-prefix-caching") is False else [],
        "prefixes are cached",
        "--enable-prefix-caching",
    )


@pair_rule("config.chunked_prefill")
def chunked_prefill(view: PairView) -> Outcome:
    """Long prompts are computed in pieces: in one piece they stop all others, or are refused."""
    need_gpu(view)
    return judge_told(
        view,
        lambda rank: ["chunked prefill is off"] if rank.switch("--enable-chunked-prefill") is False else [],
        "prompts are computed in pieces",
        "--enable-chunked-prefill",
    )


@pair_rule("config.penalty")
def penalty(view: PairView) -> Outcome:
    """No repetition penalty as a server default: with speculation it reads memory that is not its own."""

    def problems(rank: Told) -> list[str]:
        return texts(generation_has_no_penalty(site_as_told(view.site, rank), view.profile), "cfg.penalty")

    return judge_told(view, problems, "no penalty by default", "no repetition_penalty in the server's defaults")


@pair_rule("config.generation_config")
def generation_config(view: PairView) -> Outcome:
    """Sampling defaults are vLLM's own, not those of a file in the checkpoint."""
    need_gpu(view)

    def problems(rank: Told) -> Iterator[str]:
        if rank.last("--generation-config") != "vllm":
            yield f"--generation-config is {rank.last('--generation-config') or 'absent'}"

    return judge_told(view, problems, "vllm", "--generation-config=vllm")


@pair_rule("config.context_length")
def context_length(view: PairView) -> Outcome:
    """The context is one that the model's positions were scaled for: beyond it the answers are anyone's guess."""
    need_gpu(view)
    limit = view.limits["max_tokens"]

    def problems(rank: Told) -> Iterator[str]:
        length = need(rank.whole("--max-model-len"), "--max-model-len")
        if length > limit:
            yield f"--max-model-len is {length}"

    return judge_told(view, problems, "the context is calibrated", f"at most {limit:g} tokens")
