"""Write the generated pages and files: the checks' reference, their schema, the commented example site."""

from __future__ import annotations

from pathlib import Path

from dspark_ops.config.load import load_profile
from dspark_ops.config.sample import render_sample
from dspark_ops.doctor.catalogue import load_catalogue, load_files, render_schema
from dspark_ops.doctor.pages import render_reference

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    (ROOT / "docs/reference/checks.md").write_text(render_reference(load_files(), load_catalogue()), encoding="utf-8")
    (ROOT / "checks/schema.json").write_text(render_schema(), encoding="utf-8")
    (ROOT / "inventories/example/site.yml").write_text(render_sample(load_profile("current").site), encoding="utf-8")


if __name__ == "__main__":
    main()
