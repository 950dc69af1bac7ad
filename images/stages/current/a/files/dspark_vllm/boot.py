"""What runs in every process of vLLM: check the release, settle the record, say so in one line."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import vllm
from vllm.logger import init_logger

from .guards import Guard, require_release
from .records import Record, RecordError, selected_record

#: Below "vllm", so that vLLM's own logging settings apply.
_logger = init_logger("vllm.dspark")
#: The module that each stage brings.
_MODULES = {"A": "records", "B": "attention", "C": "envelope"}
_line: str | None = None


def register() -> None:
    """The entry point. A second call in a process does nothing.

    Raises:
        ForeignReleaseError: the vLLM below is not the expected one.
        RecordError: the selected record cannot be had with this build.
    """
    global _line
    if _line is not None:
        return
    _line = boot_line()
    if _logger.hasHandlers():
        _logger.info("%s", _line)
    else:
        # The front end loads plugins while it builds its argument parser, before it sets up logging.
        print(_line, file=sys.stderr, flush=True)


def stages() -> tuple[str, ...]:
    """The stages whose module is installed."""
    return tuple(name for name, module in _MODULES.items() if find_spec(f"{__package__}.{module}") is not None)


def boot_line() -> str:
    """Everything is checked, then said in one line; see `register` for what is raised."""
    present = stages()
    loaded = {name: import_module(f"{__package__}.{_MODULES[name]}") for name in present}
    guards: list[Guard] = []
    for module in loaded.values():
        guards += getattr(module, "GUARDS", ())
    require_release(guards)
    record = selected_record()
    if "B" in present:
        loaded["B"].require_accepted(record)
    return (
        f"dspark: KV layout {record.layout} ({_envelope(record, loaded)}), stages {_told(present)}, "
        f"vLLM {vllm.__version__}; used by DeepSeek V4, other models keep their own"
    )


def _envelope(record: Record, loaded: dict[str, Any]) -> str:
    said = f"{record.token_bytes} B/token and layer, {record.kind}"
    if "C" not in loaded:
        return said
    envelope = loaded["C"].envelope_of(record)
    if envelope.token_bytes != record.token_bytes:
        raise RecordError(
            f"dspark: the envelope of {record.name} is {envelope.token_bytes} bytes, its parts are {record.token_bytes}"
        )
    return f"{said}, pages of a multiple of {envelope.page_alignment_bytes} B"


def _told(present: tuple[str, ...]) -> str:
    missing = [name for name in _MODULES if name not in present]
    return "+".join(present) + (f" (missing: {'+'.join(missing)})" if missing else "")
