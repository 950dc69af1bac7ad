"""Run inside the image: what does its engine say of itself, and of the arguments that it would be given?

    python3 -B engine_check.py '{"argv": [...], "config": false}'     (or the question on standard input)

argv: the words of one rank as rendered (`vllm serve PATH --...`), or null. config: also build the engine's whole
configuration, which needs the model's files. Prints one JSON document and ends with 0 when it could look, whatever it
found; absent is null. Standard library and the image's own packages only.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

SCHEMA = "dspark-ops/engine-check/v1"
PLUGIN_GROUP, PLUGIN = "vllm.general_plugins", "dspark"
CACHES = (
    "VLLM_CACHE_ROOT",
    "FLASHINFER_WORKSPACE_BASE",
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "CUTE_DSL_CACHE_DIR",
    "DG_JIT_CACHE_DIR",
)
_SAID = 2000


def main(arguments: list[str]) -> int:
    """Look, and print what was seen."""
    began = time.monotonic()
    # Before anything is imported: torch and vLLM set variables of their own.
    given = dict(os.environ)
    text = arguments[0] if arguments else sys.stdin.read()
    question = json.loads(text) if text.strip() else {}
    argv = question.get("argv")
    # Whatever the engine prints goes to standard error: standard output is one document.
    with contextlib.redirect_stdout(sys.stderr):
        document = {
            "schema": SCHEMA,
            "vllm": vllm_facts(),
            "plugin": plugin_facts(),
            "arguments": None if argv is None else argument_facts(argv, build=bool(question.get("config"))),
            "torch": torch_facts(),
            "nvcc": nvcc_facts(),
            "packages": {name: version_of(name) for name in ("flashinfer-python", "b12x", "triton")},
            "caches": {name: cache_facts(given.get(name)) for name in CACHES},
            "unknown_variables": unknown_variables(given),
        }
    document["elapsed_s"] = round(time.monotonic() - began, 2)
    print(json.dumps(document))
    return 0


def vllm_facts() -> dict[str, Any]:
    """The engine that is really imported; an import that fails is a finding of its own."""
    try:
        engine = importlib.import_module("vllm")
    except Exception as failed:
        return {"version": None, "commit": None, "distribution": None, "path": None, "error": _said(failed)}
    about = importlib.import_module("vllm._version")
    owners = metadata.packages_distributions().get("vllm", [])
    return {
        "version": engine.__version__,
        "commit": getattr(about, "__commit_id__", None),
        "distribution": owners[0] if len(owners) == 1 else None,
        "path": str(Path(engine.__file__ or "").parent),
        "error": None,
    }


def plugin_facts() -> dict[str, Any]:
    """Is our plugin found, does it load as vLLM loads it, which line does it log, which stages are there."""
    found = [point for point in metadata.entry_points(group=PLUGIN_GROUP) if point.name == PLUGIN]
    facts: dict[str, Any] = {
        "found": bool(found),
        "version": version_of("dspark-vllm"),
        "path": None,
        "loaded": False,
        "line": None,
        "lines": 0,
        "stages": None,
        "error": None,
    }
    if not found:
        return facts
    try:
        with captured_log("vllm.dspark") as lines:
            importlib.import_module("vllm.plugins").load_general_plugins()
        boot = importlib.import_module("dspark_vllm.boot")
        facts.update(
            path=str(Path(boot.__file__ or "").parent),
            loaded=bool(lines),
            line=lines[0] if lines else None,
            lines=len(lines),
            stages=list(boot.stages()),
        )
    except Exception as failed:
        facts["error"] = _said(failed)
    return facts


def argument_facts(argv: list[str], *, build: bool) -> dict[str, Any]:
    """What the real `vllm serve` parser makes of the words; with `build` also the engine's configuration."""
    facts: dict[str, Any] = {"ok": False, "error": None, "parsed": None, "config": None}
    spoken = io.StringIO()
    try:
        serve = importlib.import_module("vllm.entrypoints.cli.serve")
        parser = serve.FlexibleArgumentParser(prog="vllm")
        command = serve.ServeSubcommand()
        command.subparser_init(parser.add_subparsers(required=True, dest="subparser"))
        with contextlib.redirect_stderr(spoken):
            parsed = parser.parse_args(argv[1:])
            command.validate(parsed)
    except SystemExit:
        lines = [line for line in spoken.getvalue().splitlines() if "error:" in line] or spoken.getvalue().splitlines()
        facts["error"] = (lines[-1] if lines else "the parser ended without a word")[:_SAID]
        return facts
    except Exception as failed:
        facts["error"] = _said(failed)
        return facts
    facts["ok"] = True
    names = ("model_tag", "kv_cache_dtype", "moe_backend", "attention_backend", "max_model_len", "nnodes", "node_rank")
    facts["parsed"] = {name: _plain(getattr(parsed, name, None)) for name in names}
    if build:
        facts["config"] = config_facts(parsed)
    return facts


def config_facts(parsed: Any) -> dict[str, Any]:
    """The whole engine configuration, as the engine builds it before a worker starts."""
    try:
        # As `vllm serve` does it: the positional word is the model.
        parsed.model = getattr(parsed, "model_tag", None) or parsed.model
        arguments = importlib.import_module("vllm.engine.arg_utils").AsyncEngineArgs.from_cli_args(parsed)
        config = arguments.create_engine_config()
    except Exception as failed:
        return {"ok": False, "error": _said(failed)}
    wanted: dict[str, Callable[[], Any]] = {
        "kv_cache_dtype": lambda: config.cache_config.cache_dtype,
        "block_size": lambda: config.cache_config.block_size,
        "max_model_len": lambda: config.model_config.max_model_len,
        "moe_backend": lambda: config.kernel_config.moe_backend,
        "v2_runner": lambda: config.use_v2_model_runner,
        "method": lambda: config.speculative_config and config.speculative_config.method,
        "k": lambda: config.speculative_config and config.speculative_config.num_speculative_tokens,
        "async_scheduling": lambda: config.scheduler_config.async_scheduling,
        "max_num_batched_tokens": lambda: config.scheduler_config.max_num_batched_tokens,
        "max_num_seqs": lambda: config.scheduler_config.max_num_seqs,
        "tensor_parallel": lambda: config.parallel_config.tensor_parallel_size,
        "pipeline_parallel": lambda: config.parallel_config.pipeline_parallel_size,
        "nnodes": lambda: config.parallel_config.nnodes,
        "indexer_kv_dtype": lambda: config.attention_config.resolve_indexer_kv_dtype("fp8"),
        "capture_sizes": lambda: config.compilation_config.cudagraph_capture_sizes,
    }
    facts: dict[str, Any] = {"ok": True, "error": None}
    for name, read in wanted.items():
        try:
            facts[name] = _plain(read())
        except AttributeError:
            # Another release has it elsewhere: absent, not guessed.
            facts[name] = None
    return facts


def torch_facts() -> dict[str, Any]:
    """torch's version, its CUDA version and the GPU architectures that it carries; null for a CPU build."""
    try:
        torch = importlib.import_module("torch")
    except Exception as failed:
        return {"version": None, "cuda": None, "arch_list": None, "error": _said(failed)}
    cuda = torch.version.cuda
    arches = None
    if cuda is not None:
        # torch.cuda.get_arch_list() is empty without a GPU in reach; what was compiled in is not.
        read = getattr(torch._C, "_cuda_getArchFlags", None)  # noqa: SLF001 - what get_arch_list itself reads
        flags = read() if read is not None else None
        arches = flags.split() if flags is not None else None
    return {"version": torch.__version__, "cuda": cuda, "arch_list": arches, "error": None}


def nvcc_facts() -> dict[str, Any] | None:
    """The compiler that kernels are built with at the first start, or None."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = [os.environ.get("DG_JIT_NVCC_COMPILER"), f"{home}/bin/nvcc" if home else None, shutil.which("nvcc")]
    path = next((place for place in places if place and os.access(place, os.X_OK)), None)
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False)
    release = re.search(r"release [\d.]+, V([\d.]+)", done.stdout)
    return {"path": path, "version": release[1] if release else None}


def cache_facts(value: str | None) -> dict[str, Any]:
    """Where a compile cache goes; a directory that does not exist yet is judged by the nearest one above it."""
    if not value:
        return {"value": value, "exists": None, "writable": None}
    path = Path(value)
    above = next(place for place in (path, *path.absolute().parents) if place.exists())
    return {"value": value, "exists": path.is_dir(), "writable": above.is_dir() and os.access(above, os.W_OK)}


def unknown_variables(given: dict[str, str]) -> list[str] | None:
    """VLLM_ variables of the environment that the release does not read."""
    try:
        known = importlib.import_module("vllm.envs").environment_variables
    except Exception:
        return None
    return sorted(name for name in given if name.startswith("VLLM_") and name not in known)


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@contextlib.contextmanager
def captured_log(name: str) -> Iterator[list[str]]:
    """The messages that a logger is given, whatever level it shows."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, keep = logging.getLogger(name), Keep()
    level = logger.level
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(keep)
        logger.setLevel(level)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else str(value)


def _said(failed: BaseException) -> str:
    return f"{type(failed).__name__}: {failed}"[:_SAID]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
