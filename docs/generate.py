"""Write the generated pages and files: references of checks and known failures, the schemas, the example site."""

from __future__ import annotations

from pathlib import Path

from dspark_ops.config.load import load_profile
from dspark_ops.config.sample import render_sample
from dspark_ops.doctor.catalogue import load_catalogue, load_files, render_schema
from dspark_ops.doctor.known import failures_by_check, load_known
from dspark_ops.doctor.known_page import render_known
from dspark_ops.doctor.pages import render_reference
from dspark_ops.report.schema import render_report_schema

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    known, catalogue = load_known(), load_catalogue()
    reference = ROOT / "docs/reference"
    checks = render_reference(load_files(), catalogue, failures_by_check(known))
    (reference / "checks.md").write_text(checks, encoding="utf-8")
    (reference / "known-failures.md").write_text(render_known(known, catalogue), encoding="utf-8")
    (reference / "report.schema.json").write_text(render_report_schema(), encoding="utf-8")
    (ROOT / "checks/schema.json").write_text(render_schema(), encoding="utf-8")
    (ROOT / "inventories/example/site.yml").write_text(render_sample(load_profile("current").site), encoding="utf-8")


if __name__ == "__main__":
    main()
