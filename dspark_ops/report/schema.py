"""The published JSON schema of a report, made from the models so that it cannot go stale."""

from __future__ import annotations

import json
from typing import Any

from dspark_ops.report.models import SCHEMA_ID, Report


def report_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the document that every verb prints under `--json`."""
    schema = Report.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **schema}


def render_report_schema() -> str:
    """The text of `docs/reference/report.schema.json`."""
    return json.dumps(report_schema(), indent=2, sort_keys=True) + "\n"
