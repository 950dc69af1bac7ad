"""What the engine inside an image says of itself, judged: release, plugin, arguments, compiler."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspark_ops.config.load import load_profile
from dspark_ops.errors import NoVerdictError
from dspark_ops.images.engine_judgement import judge_engine, parse_engine_check
from dspark_ops.images.stages import load_stages
from dspark_ops.report.models import Finding

STAGES = load_stages("current")
LINE = "dspark: KV layout fp8_ds_mla (584 B/token and layer, FP8), stages A+B+C, vLLM 0.32.0"


def _document(**changes: Any) -> str:
    document: dict[str, Any] = {
        "schema": "dspark-ops/engine-check/v1",
        "vllm": {"version": "0.32.0", "commit": "5df63a720", "distribution": "vllm", "path": "/s/vllm", "error": None},
        "plugin": {
            "found": True,
            "version": "1.0.0",
            "path": "/s/dspark_vllm",
            "loaded": True,
            "line": LINE,
            "lines": 1,
            "stages": ["A", "B", "C"],
            "error": None,
        },
        "arguments": {"ok": True, "error": None, "parsed": {"kv_cache_dtype": "fp8", "nnodes": 2}, "config": None},
        "torch": {"version": "2.13.0", "cuda": "13.0", "arch_list": ["sm_90", "sm_120"], "error": None},
        "nvcc": {"path": "/c/bin/nvcc", "version": "13.0.88"},
        "packages": {"b12x": "1.5.1"},
        "caches": {},
        "unknown_variables": [],
        "elapsed_s": 9.5,
    }
    for path, value in changes.items():
        place, _, key = path.partition("__")
        if key:
            document[place] = {**document[place], key: value}
        else:
            document[place] = value
    return "a warning\n" + json.dumps(document) + "\n"


def _found(profile: str = "current", **changes: Any) -> dict[str, Finding]:
    check = parse_engine_check(_document(**changes))
    return {f.id: f for f in judge_engine(load_profile(profile), STAGES, "head", check, "")}


def test_a_sound_engine_is_good_in_every_part() -> None:
    found = _found()
    assert {f.status for f in found.values()} == {"ok"}
    assert set(found) == {"image.engine", "image.plugin", "image.arguments", "image.arch_list", "image.nvcc"}
    assert found["image.plugin"].observed == LINE


def test_a_cpu_engine_is_asked_for_no_gpu_code() -> None:
    found = _found("rehearsal", vllm__version="0.32.0+cpu", torch__cuda=None, torch__arch_list=None, nvcc=None)
    assert {f.status for f in found.values()} == {"ok"}
    assert set(found) == {"image.engine", "image.plugin", "image.arguments"}


@pytest.mark.parametrize(
    ("changes", "check", "said"),
    [
        ({"vllm__version": "0.33.0"}, "image.engine", "vLLM 0.33.0"),
        ({"vllm__error": "ImportError: no"}, "image.engine", "ImportError: no"),
        ({"plugin__found": False}, "image.plugin", "no entry point"),
        ({"plugin__loaded": False, "plugin__error": "ForeignReleaseError: x"}, "image.plugin", "ForeignReleaseError"),
        ({"plugin__stages": ["A", "B"], "plugin__line": "stages A+B"}, "image.plugin", "stages A+B"),
        ({"plugin__lines": 2}, "image.plugin", LINE),
        ({"arguments__ok": False, "arguments__error": "vllm: error: bad word"}, "image.arguments", "bad word"),
        ({"torch__cuda": None}, "image.arch_list", "is a CPU build"),
        ({"torch__arch_list": ["sm_90"]}, "image.arch_list", "sm_90"),
        ({"nvcc": None}, "image.nvcc", "none found"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], check: str, said: str) -> None:
    found = _found(**changes)[check]
    assert found.status == "fail"
    assert said in found.observed


def test_an_unknown_variable_is_a_warning_that_names_it() -> None:
    found = _found(unknown_variables=["VLLM_USE_V9"])["image.variables"]
    assert (found.status, found.observed) == ("warn", "the engine does not read VLLM_USE_V9")


def test_an_engine_that_could_not_be_asked_is_unknown() -> None:
    [found] = judge_engine(load_profile("current"), STAGES, "head", None, "timed out")
    assert (found.status, found.observed) == ("unknown", "timed out")


@pytest.mark.parametrize("text", ["", "Traceback", "{", '{"vllm": {}}', "[]"])
def test_other_output_is_no_verdict(text: str) -> None:
    with pytest.raises(NoVerdictError, match="printed something else than expected"):
        parse_engine_check(text)
