"""The variables of the ranks: such as do harm, do nothing, are missing, or hold what nobody meant to write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dspark_ops.config.engine_invariants import runner_suits_speculation, variables_are_known
from dspark_ops.config.release_names import release_names
from dspark_ops.doctor.outcome import NotApplicableError, Outcome, PairView
from dspark_ops.doctor.registry import pair_rule
from dspark_ops.doctor.told import Told, judge_told, need_gpu, need_release, site_as_told, texts
from dspark_ops.releases.model import hide_argv

_ENGINE = ("VLLM_", "HF_", "TRANSFORMERS_", "FLASHINFER_", "TORCH_", "CUDA_", "CUTE_", "DG_", "TRITON_", "DSPARK_")
_ARCHITECTURE = ("TORCH_CUDA_ARCH_LIST", "FLASHINFER_CUDA_ARCH_LIST", "CUTE_DSL_ARCH")
_TIMEOUT = "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"
_BREAKABLE = "VLLM_USE_BREAKABLE_CUDAGRAPH"
_SAMPLER = "VLLM_USE_FLASHINFER_SAMPLER"


def _by_site_rule(view: PairView, rank: Told, *ids: str) -> list[str]:
    return texts(variables_are_known(site_as_told(view.site, rank), view.profile), *ids)


@pair_rule("config.forbidden_variables")
def forbidden_variables(view: PairView) -> Outcome:
    """No switch is set that hides a tenant, wedges memory or answers wrongly."""
    return judge_told(
        view,
        lambda rank: _by_site_rule(view, rank, "cfg.variable_forbidden"),
        "no forbidden switch is set",
        "none of the switches that do harm",
    )


@pair_rule("config.unknown_variables")
def unknown_variables(view: PairView) -> Outcome:
    """This vLLM release reads every VLLM_ variable that is set."""
    need_release(view)
    if release_names(view.profile.vllm) is None:
        raise NotApplicableError(f"the names that vLLM {view.profile.vllm} knows have not been read")
    return judge_told(
        view,
        lambda rank: _by_site_rule(view, rank, "cfg.variable_unknown"),
        "every VLLM_ variable is read",
        f"variables that vLLM {view.profile.vllm} reads",
    )


@pair_rule("config.clean_values")
def clean_values(view: PairView) -> Outcome:
    """No value holds what an editor or a shell left in it, and none is empty where unset was meant."""

    def problems(rank: Told) -> Iterator[str]:
        shown = zip(rank.argv, hide_argv(rank.argv), strict=True)
        yield from (f"an argument holds {dirt}: {told!r}" for word, told in shown if (dirt := _dirt(word)))
        for name, value in rank.env.items():
            dirt = _dirt(value)
            if dirt:
                yield f"{name} holds {dirt}: {value!r}"
            elif name.startswith(_ENGINE) and not value:
                yield f"{name} is empty, which is not unset"

    return judge_told(view, problems, "all values are clean", "no stray characters, no empty variable")


def _dirt(text: str) -> str | None:
    found = {"\r": "a carriage return", "\ufeff": "a byte order mark", "\u00a0": "a no-break space"}
    named = next((name for mark, name in found.items() if mark in text), None)
    return named or ("blanks at an end" if text != text.strip() else None)


@pair_rule("config.offline")
def offline(view: PairView) -> Outcome:
    """A rank never fetches weights by itself."""

    def problems(rank: Told) -> Iterator[str]:
        value = rank.env.get("HF_HUB_OFFLINE")
        if (value or "").strip().lower() not in ("1", "true", "yes", "on"):
            yield f"HF_HUB_OFFLINE is {'not set' if value is None else repr(value)}"

    return judge_told(view, problems, "the ranks fetch nothing", "HF_HUB_OFFLINE=1")


@pair_rule("config.execute_timeout")
def execute_timeout(view: PairView) -> Outcome:
    """A long compilation is no death, and a dead partner is noticed within half an hour."""
    need_gpu(view)
    low, high = view.limits["min_seconds"], view.limits["max_seconds"]

    def problems(rank: Told) -> Iterator[str]:
        text = rank.env.get(_TIMEOUT)
        if text is None:
            yield f"{_TIMEOUT} is not set: 300 s"
        elif not (text.isascii() and text.isdecimal()):
            yield f"{_TIMEOUT} is {text!r}"
        elif not low <= int(text) <= high:
            yield f"{_TIMEOUT} is {text}"

    return judge_told(view, problems, "the time limit of a step is sound", f"{low:g} to {high:g} s")


@pair_rule("config.runner")
def runner(view: PairView) -> Outcome:
    """The model runner is the one that has this speculation."""
    need_release(view)
    return judge_told(
        view,
        lambda rank: texts(runner_suits_speculation(site_as_told(view.site, rank), view.profile), "cfg.runner"),
        "the runner suits the speculation",
        f"the {view.profile.engine.runner} runner, as profile {view.profile.name} needs",
    )


@pair_rule("config.sampler")
def sampler(view: PairView) -> Outcome:
    """The sampler is the profile's: with another one acceptance and speed are not those that were measured."""
    wanted = view.profile.engine.sampler
    if wanted != "flashinfer":
        raise NotApplicableError(f"profile {view.profile.name} samples with {wanted}")

    def problems(rank: Told) -> Iterator[str]:
        if rank.env.get(_SAMPLER) != "1":
            yield f"{_SAMPLER} is {_shown(rank.env, _SAMPLER)}"

    return judge_told(view, problems, "FlashInfer samples", f"{_SAMPLER}=1")


@pair_rule("config.kernel_arch")
def kernel_arch(view: PairView) -> Outcome:
    """Kernels that are compiled at the first start are compiled for this GPU."""
    wanted = {name: value for name, value in view.profile.environment.items() if name in _ARCHITECTURE}
    if not wanted:
        raise NotApplicableError(f"profile {view.profile.name} compiles for no GPU")

    def problems(rank: Told) -> Iterator[str]:
        for name, value in wanted.items():
            if rank.env.get(name) != value:
                yield f"{name} is {_shown(rank.env, name)}"

    told = ", ".join(f"{name}={value}" for name, value in wanted.items())
    return judge_told(view, problems, told, told)


@pair_rule("config.breakable_graphs")
def breakable_graphs(view: PairView) -> Outcome:
    """Breakable graphs, speculation and many requests do not meet: thoughts then never end."""
    need_gpu(view)
    limit = view.limits["max_lanes"]

    def problems(rank: Told) -> Iterator[str]:
        lanes = rank.whole("--max-num-seqs")
        if rank.env.get(_BREAKABLE) == "1" and rank.drafted() is not None and lanes is not None and lanes > limit:
            yield f"{_BREAKABLE}=1 with speculation and {lanes} lanes"

    return judge_told(view, problems, "not together", f"{_BREAKABLE}=0, or at most {limit:g} lanes")


def _shown(env: Mapping[str, str], name: str) -> str:
    return repr(env[name]) if name in env else "not set"
