"""What hosts were seen to print, as seeds: the captures, the recorded readings, and the texts within the unit tests."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from dspark_ops.transport.base import NodeReading

TESTS = Path(__file__).parents[1]
_LARGEST = 7_000
#: About captures, or many of them at once: no program prints these.
_NO_OUTPUT = ("manifest.json", "tenants.json", "head.json", "worker.json", "README.md")


@cache
def readings() -> tuple[NodeReading, ...]:
    """The recorded readings of both nodes."""
    files = [TESTS / f"fixtures/rehearsal/{role}.json" for role in ("head", "worker")]
    return tuple(NodeReading.model_validate_json(path.read_text(encoding="utf-8")) for path in files)


@cache
def texts() -> tuple[str, ...]:
    """Every text, each once; a long one is cut, which is what a node does too."""
    files = [path for path in sorted((TESTS / "fixtures").rglob("*.*")) if path.name not in _NO_OUTPUT]
    found = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    for reading in readings():
        for result in reading.results.values():
            found += [text for text in (result.stdout, result.stderr, *(result.files or {}).values()) if text]
    found += [text for text, _ in _written() if text]
    return tuple(dict.fromkeys(text[:_LARGEST] for text in found if text.strip()))


@cache
def mappings() -> tuple[dict[str, str], ...]:
    """Path to content, as the probes return it."""
    found = [dict(r.files) for reading in readings() for r in reading.results.values() if r.files]
    found += [files for _, files in _written() if files]
    for path in sorted((TESTS / "fixtures").rglob("*.json")):
        found += _path_maps(json.loads(path.read_text(encoding="utf-8")))
    unique = {json.dumps(files, sort_keys=True): files for files in found}
    return tuple(dict(list(files.items())[:60]) for files in unique.values())


def _path_maps(document: Any) -> Iterator[dict[str, str]]:
    if isinstance(document, dict):
        if document and all(k.startswith("/") and isinstance(v, str) for k, v in document.items()):
            yield document
        else:
            for value in document.values():
                yield from _path_maps(value)
    elif isinstance(document, list):
        for value in document:
            yield from _path_maps(value)


def _written() -> Iterator[tuple[str | None, dict[str, str] | None]]:
    """The longer texts and the maps of paths that unit tests of facts are written with."""
    for path in sorted((TESTS / "unit/facts").rglob("test_*.py")):
        if path.stem == "test_fuzz_harness":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) >= 24:
                yield node.value, None
            elif isinstance(node, ast.Dict) and node.keys:
                try:
                    value = ast.literal_eval(node)
                except (ValueError, TypeError, SyntaxError):
                    continue
                if all(isinstance(k, str) and k.startswith("/") and isinstance(v, str) for k, v in value.items()):
                    yield None, value
