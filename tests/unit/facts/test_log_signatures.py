"""The table of known lines: each is found by its own pattern, fast on any line, and named by ids that exist."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.facts.log_signatures import (
    Signature,
    SignatureFile,
    load_signatures,
    marks,
    render_schema,
    signature_schema,
)

ROOT = Path(__file__).parents[3]
LOGS = ROOT / "tests/fixtures/logs"
LINES = [s for s in load_signatures().values() if s.pattern is not None]
_UNBOUNDED = re.compile(r"(?<!\\)[*+]|\{\d*,\}")


def known_lines() -> dict[str, str]:
    document = json.loads((LOGS / "known-lines.json").read_text(encoding="utf-8"))
    return {entry["signature"]: entry["line"] for entry in document["lines"]}


def test_there_are_at_least_60_and_every_one_has_a_line() -> None:
    assert len(LINES) >= 60
    assert set(known_lines()) == {s.id for s in LINES}


def test_the_published_schema_is_current_and_the_file_obeys_it() -> None:
    assert (ROOT / "checks/log_signatures.schema.json").read_text(encoding="utf-8") == render_schema()
    jsonschema.Draft202012Validator.check_schema(signature_schema())
    jsonschema.validate(yaml.safe_load((ROOT / "checks/log_signatures.yml").read_text("utf-8")), signature_schema())


@pytest.mark.parametrize("signature", LINES, ids=lambda s: s.id)
def test_a_known_line_is_found_by_its_own_pattern(signature: Signature) -> None:
    line = known_lines()[signature.id]
    assert signature.words is not None
    assert signature.words in line
    assert re.search(signature.pattern or "", line)
    # What is left without the words is never tried, so a pattern must not be found where they are not.
    assert not re.search(signature.pattern or "", line.replace(signature.words, ""))


def test_no_line_is_known_as_two_causes_of_one_log() -> None:
    for name, line in known_lines().items():
        own = load_signatures()[name]
        for other in LINES:
            if other.id != name and other.where == own.where and {own.kind, other.kind} == {"root"}:
                assert not ((other.words or "") in line and re.search(other.pattern or "", line)), (name, other.id)


@pytest.mark.parametrize("signature", LINES, ids=lambda s: s.id)
def test_a_pattern_is_linear(signature: Signature) -> None:
    pattern = signature.pattern or ""
    assert not pattern.startswith((".", "(?:."))
    assert not _UNBOUNDED.search(re.sub(r"\\w\+|\[[^\]]*\]", "", pattern)), "a repeat without an upper bound"
    words = signature.words or ""
    rubbish = [words * (1_000_000 // len(words)), (words + " " * 50) * 15_000, "a" * 1_000_000, "(" * 500_000 + words]
    compiled = re.compile(pattern)
    began = time.process_time()
    for line in rubbish:
        compiled.search(line)
    assert time.process_time() - began < 4.0


def test_roots_are_named_by_checks_and_failures_that_exist() -> None:
    catalogue = load_catalogue()
    assert [s.id for s in load_signatures().values() if s.check is not None and s.check not in catalogue] == []
    ours = {i for i in catalogue if i.startswith(("boot.", "log."))} - {
        "log.rank_killed",
        "log.read_whole",
        "boot.succeeded",
    }
    assert ours <= {s.check for s in load_signatures().values()}


def test_a_wrong_table_is_told() -> None:
    good: dict[str, Any] = {
        "id": "some_line",
        "where": "engine",
        "words": "some words",
        "pattern": "some words",
        "kind": "root",
        "confidence": "high",
        "check": "boot.port_free",
        "means": "something was wrong",
        "source": "a test",
    }
    assert SignatureFile.model_validate({"signatures": [good]})
    for change in (
        {"words": None},
        {"where": "container"},
        {"check": None},
        {"pattern": "some (words"},
        {"follows": ["no_such_line"]},
        {"confidence": "sure"},
    ):
        with pytest.raises((ValidationError, re.error)):
            SignatureFile.model_validate({"signatures": [{**good, **change}]})
    with pytest.raises(ValidationError):
        SignatureFile.model_validate({"signatures": [good, good]})


def test_a_node_is_asked_only_for_the_lines_of_that_log() -> None:
    asked = {name for name, _, _ in marks("engine", "nccl")}
    assert "port_in_use" in asked
    assert "nccl_socket" in asked
    assert not asked & {"xid", "rank_killed", "container_killed"}
