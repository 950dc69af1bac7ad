"""Rules about the engine: settings that start and then fail, hang or answer wrongly, refused before a start. Pure.

Each stands for a failure that operators of two GB10 reported or that the release's source shows; the message says what
was found, what is expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from dspark_ops.config.engine_arguments import OWNED_OPTIONS, SECRET_OPTIONS, SECRET_VARIABLES, Option, take_apart
from dspark_ops.config.models import Profile, Site
from dspark_ops.config.problem import Invariant, Problem
from dspark_ops.config.release_names import ReleaseNames, release_names
from dspark_ops.fabric.nccl import nccl_settings

#: Rows that the sparse decode takes (FlashInfer 0.7.0.post1, flashinfer/mla/_sparse_mla_sm120_plan.py,
#: _DECODE_MAX_TOKENS). A step of more takes another path; with 96 and 224 rows pairs deadlocked in bursts, not always.
VERIFY_ROWS_MAX = 64
#: What CUDA can have of a GB10's 121.69 GiB: 101.3 to 102.2 GiB seen free on idle kits, so 0.83 of it at most.
UTILISATION_MAX = 0.83
#: 0.80 started, passed a smoke test and died at the first real request: speculative buffers are allocated then.
UTILISATION_SPECULATIVE_MAX = 0.79

_ARGS, _ENV = "serve.extra_args", "serve.environment"

#: Variable and value that must not be, whether this release reads it or not, and why.
_FORBIDDEN = {
    ("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1"): "it lets lengths pass for which the weights' RoPE was never scaled",
    ("VLLM_SKIP_INIT_MEMORY_CHECK", "1"): "it hides another tenant until the node is out of memory",
    ("VLLM_USE_B12X_FP8_GEMM", "1"): "DeepGEMM's layout assertion ends the start",
    ("VLLM_DSV4_B12X_COMPRESSED_MLA", "1"): "it wedges unified memory",
    ("VLLM_TRITON_MLA_SPARSE_MATMUL_DECODE", "0"): "its answers are wrong",
    ("HF_HUB_OFFLINE", "0"): "a missing file would be fetched at the start, up to 155 GB, on one rank alone",
    ("TRANSFORMERS_OFFLINE", "0"): "a missing file would be fetched at the start, on one rank alone",
}
#: Values of DSPARK_KV_RECORD (images/stages/current/a/files/dspark_vllm/records.py; a test holds the two together).
KV_RECORD_VARIABLE = "DSPARK_KV_RECORD"
KV_RECORDS_CARRIED = ("fp8",)


def kv_dtype_is_carried(site: Site, profile: Profile) -> Iterator[Problem]:
    dtype, known = site.serve.kv_cache_dtype, profile.engine.kv_labels
    if dtype not in known:
        yield Problem(
            "cfg.kv_dtype",
            "serve.kv_cache_dtype",
            f"{dtype!r} is not a KV layout that profile {profile.name} carries; expected one of {', '.join(known)}",
        )


def verify_rows_fit(site: Site, profile: Profile) -> Iterator[Problem]:
    rows = _rows(site)
    if profile.gpu and rows is not None and rows > VERIFY_ROWS_MAX:
        k = rows // site.serve.max_num_seqs - 1
        yield Problem(
            "cfg.verify_rows",
            "serve.max_num_seqs",
            f"max_num_seqs {site.serve.max_num_seqs} x (k {k} + 1) are {rows} rows to verify in a step; pairs with "
            f"more than {VERIFY_ROWS_MAX} hung under load; expected at most {VERIFY_ROWS_MAX}: set max_num_seqs to "
            f"{VERIFY_ROWS_MAX // (k + 1)} or fewer, or a smaller k",
        )


def utilisation_can_be_had(site: Site, profile: Profile) -> Iterator[Problem]:
    share, key = site.serve.gpu_memory_utilization, "serve.gpu_memory_utilization"
    if not profile.gpu or share is None:
        return
    if share > UTILISATION_MAX:
        yield Problem(
            "cfg.utilisation",
            key,
            f"{share:g} of a GB10's 121.69 GiB are {share * 121.69:.1f} GiB, and CUDA finds 101.3 to 102.2 of them "
            f"free on an idle node; expected at most {UTILISATION_MAX}: set the profile's 0.78",
        )
    elif site.serve.speculative.method != "none" and share > UTILISATION_SPECULATIVE_MAX:
        yield Problem(
            "cfg.utilisation",
            key,
            f"{share:g} starts and dies at the first real request, when the buffers of speculation are allocated (0.80 "
            f"did); expected at most {UTILISATION_SPECULATIVE_MAX}: set the profile's 0.78",
        )


def arguments_are_known(site: Site, profile: Profile) -> Iterator[Problem]:
    """Form, ownership and names of serve.extra_args."""
    options, wrong = take_apart(site.serve.extra_args)
    names = release_names(profile.vllm)
    for index, text in wrong:
        yield Problem("cfg.argument_form", f"{_ARGS}.{index}", text)
    for option in options:
        key = f"{_ARGS}.{option.index}"
        if option.name in SECRET_OPTIONS:
            yield Problem(
                "cfg.argument_secret",
                key,
                f"{option.name} puts a secret where `ps`, `docker inspect` and the logs of both nodes show; expected "
                "no secret in an argument: keep the API on the loopback and let the gateway ask for keys",
            )
        elif option.name in OWNED_OPTIONS:
            yield Problem(
                "cfg.argument_owned",
                key,
                f"{option.name} is rendered by dspark-ops and must not be given twice; {OWNED_OPTIONS[option.name]}",
            )
        elif option.name == "--pipeline-parallel-size":
            if option.values != ("1",):
                yield Problem(
                    "cfg.pipeline_parallel",
                    key,
                    f"pipeline parallel {' '.join(option.values) or 'without a value'}: the pair is two ranks of "
                    "tensor parallel, more stages would need more nodes; expected 1: remove the option",
                )
        elif names is not None:
            yield from _named(option, key, names)
    if names is None and (site.serve.extra_args or site.serve.environment):
        yield Problem(
            "cfg.names_unread",
            _ARGS if site.serve.extra_args else _ENV,
            f"the names that vLLM {profile.vllm} knows have not been read; these are passed on unchecked",
            "note",
        )


def _named(option: Option, key: str, names: ReleaseNames) -> Iterator[Problem]:
    if option.name not in names.options:
        yield Problem(
            "cfg.argument_unknown",
            key,
            f"vLLM {names.release} has no option {option.name}; {_nearest(option.name, names.options)}",
        )
        return
    allowed = names.options[option.name]
    if option.name == "--attention-backend":
        allowed = names.attention_backends
    if allowed is None or option.below is not None:
        return
    for value in option.values:
        if value not in allowed:
            rule = {"--moe-backend": "cfg.moe_backend", "--attention-backend": "cfg.attention_backend"}
            yield Problem(
                rule.get(option.name, "cfg.argument_value"),
                key,
                f"vLLM {names.release} knows no {value!r} for {option.name}; {_nearest(value, allowed)}",
            )


def moe_backend_serves_the_experts(site: Site, profile: Profile) -> Iterator[Problem]:
    """The parser takes every backend's name; which of them serve MXFP4 is asked when the weights are loaded."""
    names = release_names(profile.vllm)
    if names is None or not profile.gpu:
        return
    for option in _options(site, "--moe-backend"):
        for value in option.values:
            if value in (names.options["--moe-backend"] or ()) and value not in names.mxfp4_moe_backends:
                yield Problem(
                    "cfg.moe_backend",
                    f"{_ARGS}.{option.index}",
                    f"{value} does not serve this model's MXFP4 experts in vLLM {names.release} and ends the start "
                    f"while the model is built; expected one of {', '.join(names.mxfp4_moe_backends)}: remove the "
                    "option, the profile sets b12x",
                )


def captures_cover_the_steady_shape(site: Site, _profile: Profile) -> Iterator[Problem]:
    """Above the largest captured graph the engine falls back to eager steps, without an error."""
    rows = _rows(site) or site.serve.max_num_seqs
    what = f"max_num_seqs x (k + 1) = {rows}"
    for index, limit, sizes in _captures(site):
        key = f"{_ARGS}.{index}"
        if limit is not None and limit < rows:
            text = f"graphs are captured up to {limit}, below {what}; expected at least {rows}, or remove the option"
            yield Problem("cfg.capture_size", key, text)
        if sizes is not None and rows not in sizes:
            text = f"the captured sizes {', '.join(map(str, sizes))} lack {what}; add {rows}, or remove the option"
            yield Problem("cfg.capture_size", key, text)


def _captures(site: Site) -> Iterator[tuple[int, int | None, list[int] | None]]:
    """Index of the word, the largest size, the list of sizes: from either option or the JSON that holds both."""
    for option in _options(site, "--max-cudagraph-capture-size", "--cudagraph-capture-sizes", "--compilation-config"):
        if option.name == "--compilation-config":
            document = option.document() or {}
            yield (
                option.index,
                _whole(document.get("max_cudagraph_capture_size")),
                _wholes(document.get("cudagraph_capture_sizes")),
            )
        elif option.name == "--max-cudagraph-capture-size":
            yield option.index, _whole(option.values[0] if option.values else None), None
        else:
            yield option.index, None, _wholes(list(option.values))


def generation_has_no_penalty(site: Site, _profile: Profile) -> Iterator[Problem]:
    for option in _options(site, "--override-generation-config"):
        penalty = (option.document() or {}).get("repetition_penalty")
        if penalty not in (None, 1):
            yield Problem(
                "cfg.penalty",
                f"{_ARGS}.{option.index}",
                f"repetition_penalty {penalty} as a server default ends in an illegal memory access with speculation; "
                "expected none: remove it from the option",
            )


def variables_are_known(site: Site, profile: Profile) -> Iterator[Problem]:
    """Names and values of serve.environment; an unknown VLLM_ variable is only a warning of the engine's."""
    names = release_names(profile.vllm)
    owned = _owned_variables(site, profile)
    for name, value in site.serve.environment.items():
        key = f"{_ENV}.{name}"
        why = _FORBIDDEN.get((name, value.strip()))
        if name in SECRET_VARIABLES:
            yield Problem(
                "cfg.variable_secret",
                key,
                f"{name} puts a secret where `docker inspect` and the release's record on both nodes show it; expected "
                "no secret in the environment: the API stays on the loopback without a key, and clients' keys are "
                "`dspark-ops gateway key add`; remove the line",
            )
        elif name in owned:
            got = f"{value!r}" if value else "empty, which is not unset"
            yield Problem("cfg.variable_owned", key, f"{got}: {name} is set by dspark-ops; {owned[name]}")
        elif not value.strip():
            text = f"{name} is empty, and empty is not unset; expected a value: set one or remove the line"
            yield Problem("cfg.variable_empty", key, text)
        elif why is not None:
            yield Problem("cfg.variable_forbidden", key, f"{name}={value} is refused: {why}; remove the line")
        elif name.startswith("VLLM_") and names is not None and name not in names.variables:
            text = f"vLLM {names.release} reads no {name}, it would do nothing; {_nearest(name, names.variables)}"
            yield Problem("cfg.variable_unknown", key, text)
        elif name == KV_RECORD_VARIABLE and value not in KV_RECORDS_CARRIED:
            yield Problem(
                "cfg.kv_record",
                key,
                f"{value!r} is no KV record that this build carries; expected {', '.join(KV_RECORDS_CARRIED)}: "
                "remove the line",
            )


def _owned_variables(site: Site, profile: Profile) -> dict[str, str]:
    """Every variable that another key decides, with the key."""
    owned = dict.fromkeys(
        (setting.name for setting in nccl_settings(site, "head")), "it follows from fabric.rails and fabric.gid_index"
    )
    owned |= dict.fromkeys(profile.image.caches, "caches belong to one image on one node, never to a shared directory")
    return owned | {"VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "set serve.execute_timeout_s"}


def runner_suits_speculation(site: Site, profile: Profile) -> Iterator[Problem]:
    wanted = site.serve.environment.get("VLLM_USE_V2_MODEL_RUNNER")
    if wanted is None or site.serve.speculative.method != "dspark" or profile.engine.runner != "v2":
        return
    if wanted.strip().lower() not in {"1", "true"}:
        yield Problem(
            "cfg.runner",
            f"{_ENV}.VLLM_USE_V2_MODEL_RUNNER",
            f"{wanted} asks for the V1 model runner, which has no DSpark in vLLM {profile.vllm}; expected 1: remove "
            "the line, the engine then takes V2 by itself",
        )


def _rows(site: Site) -> int | None:
    """Rows of a full verification step; None without speculation."""
    tokens = site.serve.speculative.tokens
    if site.serve.speculative.method == "none" or tokens is None:
        return None
    return site.serve.max_num_seqs * (tokens + 1)


def _options(site: Site, *names: str) -> list[Option]:
    return [option for option in take_apart(site.serve.extra_args)[0] if option.name in names]


def _nearest(wrong: str, known: Iterable[str]) -> str:
    options = sorted(known)
    close = difflib.get_close_matches(wrong, options, n=1, cutoff=0.7)
    if close:
        return f"did you mean {close[0]}?"
    return "expected one of " + ", ".join(options) if len(options) <= 60 else "remove it"


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _wholes(value: Any) -> list[int] | None:
    if not isinstance(value, list):
        return None
    return [number for item in value if (number := _whole(item)) is not None]


ENGINE_INVARIANTS: tuple[Invariant, ...] = (
    kv_dtype_is_carried,
    utilisation_can_be_had,
    verify_rows_fit,
    arguments_are_known,
    moe_backend_serves_the_experts,
    captures_cover_the_steady_shape,
    generation_has_no_penalty,
    variables_are_known,
    runner_suits_speculation,
)
