"""Settings that would start and then fail: each refused by `validate` with what was found, expected and to be done."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.config.engine_arguments import OWNED_OPTIONS, take_apart
from dspark_ops.config.load import LoadedSite, load_profile
from dspark_ops.config.models import ROLES
from dspark_ops.deploy.spec import render_argv, render_env
from dspark_ops.errors import ConfigError

Load = Callable[..., LoadedSite]
Refused = Callable[..., ConfigError]

CURRENT = "profile=current"


def _argument(*words: str) -> str:
    return f"serve.extra_args={json.dumps(list(words))}"


def _variable(name: str, value: str) -> str:
    return f"serve.environment.{name}={json.dumps(value)}"


#: What is set, the rule that refuses it, the key that is named, words of the message.
WRONG = {
    "k that the release does not take": (
        "serve.speculative.tokens=4",
        "cfg.k_illegal",
        "serve.speculative.tokens",
        ["3, 5, 7", "got 4"],
    ),
    "longer than the weights' RoPE reaches": (
        "serve.max_model_len=1500000",
        None,
        "serve.max_model_len",
        ["1048576", "got 1500000"],
    ),
    "the switch that lets it pass": (
        _variable("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1"),
        "cfg.variable_forbidden",
        "serve.environment.VLLM_ALLOW_LONG_MAX_MODEL_LEN",
        ["remove the line"],
    ),
    "a repetition penalty as server default": (
        _argument('--override-generation-config={"repetition_penalty": 1.05}'),
        "cfg.penalty",
        "serve.extra_args.0",
        ["1.05", "remove it"],
    ),
    "the same penalty, dotted": (
        _argument("--override_generation_config.repetition_penalty=1.05"),
        "cfg.penalty",
        "serve.extra_args.0",
        ["1.05"],
    ),
    "a variable of another release": (
        _variable("VLLM_USE_B12X_MOE", "1"),
        "cfg.variable_unknown",
        "serve.environment.VLLM_USE_B12X_MOE",
        ["vLLM 0.32.0 reads no VLLM_USE_B12X_MOE"],
    ),
    "a switch whose answers are wrong": (
        _variable("VLLM_TRITON_MLA_SPARSE_MATMUL_DECODE", "0"),
        "cfg.variable_forbidden",
        "serve.environment.VLLM_TRITON_MLA_SPARSE_MATMUL_DECODE",
        ["remove the line"],
    ),
    "more memory than CUDA finds": (
        "serve.gpu_memory_utilization=0.87",
        "cfg.utilisation",
        "serve.gpu_memory_utilization",
        ["105.9 GiB", "set the profile's 0.78"],
    ),
    "memory that lasts until the first request": (
        "serve.gpu_memory_utilization=0.8",
        "cfg.utilisation",
        "serve.gpu_memory_utilization",
        ["first real request", "0.78"],
    ),
    "more rows than the decode takes": (
        "serve.max_num_seqs=11",
        "cfg.verify_rows",
        "serve.max_num_seqs",
        ["66 rows", "at most 64", "set max_num_seqs to 10"],
    ),
    "plain nvfp4": ("serve.kv_cache_dtype=nvfp4", "cfg.kv_dtype", "serve.kv_cache_dtype", ["'nvfp4'", "fp8_ds_mla"]),
    "the label of another lane": (
        "serve.kv_cache_dtype=nvfp4_ds_mla",
        "cfg.kv_dtype",
        "serve.kv_cache_dtype",
        ["'nvfp4_ds_mla'"],
    ),
    "a KV record whose kernels are not here": (
        _variable("DSPARK_KV_RECORD", "nvfp4-384"),
        "cfg.kv_record",
        "serve.environment.DSPARK_KV_RECORD",
        ["'nvfp4-384'", "expected fp8"],
    ),
    "a MoE backend of the wrong format": (
        _argument("--moe-backend=flashinfer_b12x"),
        "cfg.moe_backend",
        "serve.extra_args.0",
        ["MXFP4", "b12x"],
    ),
    "an attention backend of another image": (
        _argument("--attention-backend", "B12X_MLA_SPARSE"),
        "cfg.attention_backend",
        "serve.extra_args.0",
        ["'B12X_MLA_SPARSE'", "vLLM 0.32.0"],
    ),
    "DSpark under the V1 runner": (
        _variable("VLLM_USE_V2_MODEL_RUNNER", "0"),
        "cfg.runner",
        "serve.environment.VLLM_USE_V2_MODEL_RUNNER",
        ["V1 model runner", "expected 1"],
    ),
    "pipeline parallel": (
        _argument("--pipeline-parallel-size=2"),
        "cfg.pipeline_parallel",
        "serve.extra_args.0",
        ["pipeline parallel 2", "expected 1"],
    ),
    "graphs smaller than the steady shape": (
        _argument("--max-cudagraph-capture-size=12"),
        "cfg.capture_size",
        "serve.extra_args.0",
        ["up to 12", "36"],
    ),
    "a capture list without the steady shape": (
        _argument('--compilation-config={"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 48]}'),
        "cfg.capture_size",
        "serve.extra_args.0",
        ["lack", "add 36"],
    ),
    "a cache on a shared file system": (
        _variable("VLLM_CACHE_ROOT", "/mnt/nfs/vllm"),
        "cfg.variable_owned",
        "serve.environment.VLLM_CACHE_ROOT",
        ["/mnt/nfs/vllm", "shared directory"],
    ),
    "an empty GID index": (
        _variable("NCCL_IB_GID_INDEX", ""),
        "cfg.variable_owned",
        "serve.environment.NCCL_IB_GID_INDEX",
        ["empty, which is not unset", "fabric.gid_index"],
    ),
    "an image that moves": ("image.reference=dspark-vllm:latest", None, "image.reference", ["fixed tag", "latest"]),
    "a rank baked in": (_argument("--node-rank=1"), "cfg.argument_owned", "serve.extra_args.0", ["--node-rank"]),
    "speculation beside the site's own": (
        _argument('--speculative-config={"method":"dspark"}'),
        "cfg.argument_owned",
        "serve.extra_args.0",
        ["set serve.speculative"],
    ),
    "an option that is misspelt": (
        _argument("--max-cudagraph-capture-sise=48"),
        "cfg.argument_unknown",
        "serve.extra_args.0",
        ["did you mean --max-cudagraph-capture-size?"],
    ),
    "the engine's key": (
        _variable("VLLM_API_KEY", "planted-key"),
        "cfg.variable_secret",
        "serve.environment.VLLM_API_KEY",
        ["docker inspect", "dspark-ops gateway key add", "remove the line"],
    ),
    "a short option": (_argument("-tp=1"), "cfg.argument_form", "serve.extra_args.0", ["'-tp=1'", "long one"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_setting_is_refused(refused: Refused, what: str) -> None:
    override, rule, key, words = WRONG[what]
    message = refused(overrides=[CURRENT, override]).message
    assert f"{key}: " in message
    assert "problems" not in message, "one wrong setting, one complaint"
    if rule is not None:
        assert f"[{rule}]" in message
    for word in words:
        assert word in message
    assert "planted-key" not in message


def test_validate_ends_with_2_and_contacts_nothing(site_path: Path, site_text: str) -> None:
    site_path.write_text(site_text.replace("profile: rehearsal", "profile: current"))
    words = ("validate", "--site", str(site_path), "--set", "serve.max_num_seqs=16")
    done = subprocess.run(
        [sys.executable, "-m", "dspark_ops", *words], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "16 x (k 5 + 1) are 96 rows" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "override",
    [
        "serve.max_num_seqs=10",
        "serve.gpu_memory_utilization=0.79",
        _argument("--max-cudagraph-capture-size=48"),
        _argument("--cudagraph-capture-sizes", "6", "12", "36"),
        _argument("--moe-backend=marlin"),
        _argument("--attention-backend=FLASHINFER_MLA_SPARSE_DSV4"),
        _argument("--no-async-scheduling", "--long-prefill-token-threshold=1024"),
        _variable("VLLM_USE_BREAKABLE_CUDAGRAPH", "0"),
        _variable("DSPARK_KV_RECORD", "fp8"),
        _variable("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        _variable("VLLM_MULTI_STREAM_GEMM_TOKEN_THRESHOLD", "256"),
    ],
)
def test_what_is_right_passes(load: Load, override: str) -> None:
    assert load(overrides=[CURRENT, override]).site.serve


def test_every_option_that_is_rendered_has_an_owner(load: Load) -> None:
    """Otherwise the site could give it a second time."""
    loads = [
        load(overrides=[CURRENT]),
        load(overrides=[CURRENT, "serve.gpu_memory_utilization=null", "serve.kv_cache_memory_mib=4096"]),
    ]
    for loaded in loads:
        for role in ROLES:
            words = render_argv(loaded.site, loaded.profile, role)[3:]
            ours = {word.partition("=")[0] for word in words} - {
                word.partition("=")[0] for word in loaded.profile.serve_args
            }
            assert ours <= OWNED_OPTIONS.keys()


def test_an_extra_option_takes_the_place_of_the_profiles(load: Load) -> None:
    loaded = load(overrides=[CURRENT, _argument("--moe-backend=marlin"), _variable("NCCL_DEBUG", "INFO")])
    words = render_argv(loaded.site, loaded.profile, "worker")
    assert [word for word in words if word.startswith("--moe-backend")] == ["--moe-backend=marlin"]
    assert render_env(loaded.site, loaded.profile, "head")["NCCL_DEBUG"] == "INFO"


def test_a_number_in_the_environment_is_explained(refused: Refused) -> None:
    message = refused(overrides=["serve.environment.VLLM_LOG_STATS_INTERVAL=5"]).message
    assert "serve.environment.VLLM_LOG_STATS_INTERVAL: expected text, got the number 5" in message


def test_the_profiles_own_names_are_known(load: Load) -> None:
    """The rules hold for what the profiles render too, not only for what a site adds."""
    from dspark_ops.config.release_names import release_names

    for name in ("current", "rehearsal"):
        profile = load_profile(name)
        names = release_names(profile.vllm)
        assert names is not None
        assert {key for key in profile.environment if key.startswith("VLLM_")} <= names.variables
        for option in take_apart(profile.serve_args)[0]:
            assert option.name in names.options
            allowed = names.options[option.name]
            assert allowed is None or set(option.values) <= set(allowed)


_WORD = st.from_regex(r"--[a-z]{1,6}[_-]?[a-z]{0,4}(\.[a-z]{1,4})?(=[ -~]{0,6})?", fullmatch=True) | st.text(max_size=8)


@given(st.lists(_WORD, max_size=8))
def test_every_word_is_an_option_a_value_or_a_complaint(words: list[str]) -> None:
    options, wrong = take_apart(words)
    spoken = [option.index for option in options] + [index for index, _ in wrong]
    values = sum(len(option.values) - ("=" in words[option.index]) for option in options)
    assert len(spoken) == len(set(spoken))
    assert len(spoken) + values == len(words)
    assert all("_" not in option.name for option in options)
