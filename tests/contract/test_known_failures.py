"""The lists of known failures and the catalogue agree, and what is generated from them is current."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.known import KnownFailure, every_failure, load_known
from dspark_ops.doctor.known_page import render_known
from dspark_ops.report.schema import render_report_schema, report_schema

REFERENCE = Path(__file__).parents[2] / "docs/reference"
FAILURES = every_failure(load_known())


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.id)
def test_what_finds_a_known_failure_exists(failure: KnownFailure) -> None:
    assert [check for check in failure.checks if check not in load_catalogue()] == []


def test_page_of_known_failures_is_current() -> None:
    page = (REFERENCE / "known-failures.md").read_text(encoding="utf-8")
    assert page == render_known(load_known(), load_catalogue())


def test_report_schema_is_current_and_a_schema() -> None:
    assert (REFERENCE / "report.schema.json").read_text(encoding="utf-8") == render_report_schema()
    jsonschema.Draft202012Validator.check_schema(report_schema())
