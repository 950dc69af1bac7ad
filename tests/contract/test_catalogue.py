"""Definition, rule, fixtures and reference page of the doctor's checks are one set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dspark_ops.doctor.catalogue import DOMAINS, catalogue_schema, load_catalogue, load_files, render_schema
from dspark_ops.doctor.engine import run_checks
from dspark_ops.doctor.known import failures_by_check, load_known
from dspark_ops.doctor.pages import render_reference
from dspark_ops.doctor.registry import NODE_RULES, PAIR_RULES, load_rules
from tests.unit.doctor.pair_fixture import CHECKS, all_cases, case_site, cases, mismatches, pair_facts

ROOT = Path(__file__).parents[2]
IDS = list(load_catalogue())


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("domain", DOMAINS)
def test_catalogue_file_matches_its_published_schema(domain: str) -> None:
    schema = json.loads((ROOT / "checks/schema.json").read_text(encoding="utf-8"))
    text = (ROOT / f"checks/{domain}.yml").read_text(encoding="utf-8")
    jsonschema.validate(json.loads(json.dumps(yaml.safe_load(text), default=str)), schema)


def test_published_schema_is_current() -> None:
    assert (ROOT / "checks/schema.json").read_text(encoding="utf-8") == render_schema()
    jsonschema.Draft202012Validator.check_schema(catalogue_schema())


def test_every_definition_has_a_rule_of_its_scope_and_every_rule_a_definition() -> None:
    load_rules()
    catalogue = load_catalogue()
    assert {i for i, c in catalogue.items() if c.scope == "node"} == set(NODE_RULES)
    assert {i for i, c in catalogue.items() if c.scope == "pair"} == set(PAIR_RULES)


def test_there_are_at_least_24_checks_over_host_fabric_image_and_service() -> None:
    domains = {c.domain for c in load_catalogue().values()}
    assert len(IDS) >= 24
    assert {"host", "fabric", "image", "service"} <= domains


@pytest.mark.parametrize("check", IDS)
def test_every_check_has_an_ok_and_a_bad_fixture(check: str) -> None:
    names = [path.stem for path in cases(check)]
    assert "ok" in names, f"tests/checks/{check}/ok.json"
    assert [n for n in names if n.startswith("bad_")], f"tests/checks/{check}/bad_*.json"


def test_no_fixture_belongs_to_no_check() -> None:
    assert {path.name for path in CHECKS.iterdir() if path.is_dir()} == set(IDS)


def test_the_name_of_every_fixture_says_what_it_shows() -> None:
    shown = ("ok", "bad", "elsewhere", "unknown", "skip")
    assert [str(path) for path in all_cases() if path.stem.partition("_")[0] not in shown] == []


@pytest.mark.parametrize("path", all_cases(), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_rule_agrees_with_the_fixture_and_the_others_see_nothing_else(path: Path) -> None:
    case = read(path)
    check = load_catalogue()[path.parent.name]
    report = run_checks(pair_facts(case), case_site(case), active=bool(case.get("active")))
    (finding,) = [f for f in report.findings if f.id == check.id and f.node == case["node"]]
    assert not mismatches(case, path.stem, finding)
    assert not (check.severity == "advised" and finding.status == "fail")
    bad = [f for f in report.findings if f.status in ("warn", "fail", "unknown")]
    roots = {f.id for f in bad if f.caused_by is None}
    if path.stem.startswith("ok"):
        assert case["status"] == "ok"
        assert "beside" not in case, "a healthy pair; what is sound on a sick one is elsewhere_*"
        assert not bad
    if path.stem.startswith("elsewhere"):
        assert case["status"] == "ok"
        assert roots == set(case["beside"]), "exactly what is listed is wrong with the rest of the pair"
        assert roots, "a pair with no finding is ok_*"
    if path.stem.startswith("bad"):
        of_it = {f.caused_by or f.id for f in bad if f.id == check.id}
        assert roots - of_it == set(case.get("beside", ())) - of_it


def test_every_advised_threshold_and_remedy_is_complete() -> None:
    for file in load_files():
        for check in file.checks:
            assert all(limit.source and limit.date for limit in check.thresholds.values())
            assert not [
                word for word in check.remedy.command or () if "{" in word.replace("{site}", "").replace("{host}", "")
            ]


def test_reference_page_is_current() -> None:
    page = ROOT / "docs/reference/checks.md"
    known = failures_by_check(load_known())
    assert page.read_text(encoding="utf-8") == render_reference(load_files(), load_catalogue(), known)


def test_what_a_check_depends_on_exists_and_never_leads_back_to_it() -> None:
    entries = {check.id: check for file in load_files() for check in file.checks}
    for identity, check in entries.items():
        assert len(set(check.depends_on)) == len(check.depends_on), identity
        reached, waiting = set(), list(check.depends_on)
        while waiting:
            dependency = waiting.pop()
            assert dependency in entries, f"{identity} depends on {dependency}, which does not exist"
            assert dependency != identity, f"{identity} depends on itself"
            if dependency not in reached:
                reached.add(dependency)
                waiting += entries[dependency].depends_on


def test_an_advised_check_blocks_nothing() -> None:
    assert [c.id for c in load_catalogue().values() if c.severity == "advised" and c.effect == "blocks"] == []
