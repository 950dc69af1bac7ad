"""The alerts, judged by the real promtool and amtool: they load, their unit tests pass, each has its page."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from dspark_ops.cli.app import VERBS
from dspark_ops.paths import data_dir
from tests.monitoring.promql_mutants import mutants
from tests.monitoring.rule_files import RULES, TESTS, alerts, failed_files, need_programs, promtool, test_file

DOCS = data_dir("templates").parent / "docs"
ALERTS = alerts()
# promtool takes seconds of one core; on a busy machine that is minutes.
pytestmark = pytest.mark.timeout(600)
#: The table of what is watched; a name that goes missing is an alert that nobody gets.
TABLE = {
    *("EngineWedged", "CanaryFailing", "TargetMissing", "RestartLoop", "AcceptanceCollapse", "PositionCollapse"),
    *("KvQueue", "TtftSlow", "PrefixCacheDead", "ErrorFinish", "ContextChanged", "KvPoolShrunk", "MemLow", "SwapBusy"),
    *("RailDown", "RailImbalance", "TenantConflict", "PowerLow", "XidFatal", "CloudSpend", "CloudShare"),
    *("FailoverActive", "Watchdog", "AlertsNotDelivered"),
}


@pytest.fixture(scope="module", autouse=True)
def _programs() -> None:
    need_programs()


def unit_tests(alert: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(test_file(alert).read_text())["tests"]
    return found


def test_every_rules_file_loads() -> None:
    done = promtool("check", "rules", *map(str, sorted(RULES.glob("*.yml"))))
    assert done.returncode == 0, done.stdout


def test_all_unit_tests_pass() -> None:
    files = [test_file(alert) for alert in ALERTS]
    done = promtool("test", "rules", *map(str, files))
    assert failed_files(done.stdout, files) == set(), done.stdout
    assert done.returncode == 0


def test_what_is_watched_is_all_there() -> None:
    assert TABLE - set(ALERTS) == set()


@pytest.mark.parametrize("alert", ALERTS)
def test_each_has_a_test_that_it_fires_and_one_that_it_does_not(alert: str) -> None:
    wanted = [bool(case["exp_samples"]) for test in unit_tests(alert) for case in test["promql_expr_test"]]
    assert len(unit_tests(alert)) >= 2
    assert True in wanted
    assert False in wanted or alert == "Watchdog"
    assert all(alert in case["expr"] for test in unit_tests(alert) for case in test["promql_expr_test"])


def test_no_unit_test_is_left_over() -> None:
    assert {path.name.removesuffix(".test.yml") for path in TESTS.glob("*.test.yml")} == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_says_what_a_person_needs(alert: str) -> None:
    rule = ALERTS[alert][1]
    assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["runbook_url"] == f"docs/runbooks/{alert}.md"
    assert all(notes[key].strip().endswith(".") for key in ("summary", "description"))


@pytest.mark.parametrize("alert", ALERTS)
def test_each_has_its_runbook(alert: str) -> None:
    rule = ALERTS[alert][1]
    text = (DOCS / "runbooks" / f"{alert}.md").read_text()
    assert re.findall(r"^#+ (.+)$", text, re.MULTILINE) == [
        alert,
        "Meaning",
        "Look at",
        "Do",
        "When not to restart",
    ]
    assert f"Severity: {rule['labels']['severity']}." in text
    assert f"[{alert}]({alert}.md)" in (DOCS / "runbooks/index.md").read_text()


def test_no_runbook_is_left_over() -> None:
    assert {path.stem for path in (DOCS / "runbooks").glob("*.md")} - {"index"} == set(ALERTS)


def test_every_command_of_a_runbook_is_one() -> None:
    for path in sorted((DOCS / "runbooks").glob("*.md")):
        for words in re.findall(r"`dspark-ops ([a-z ]+?)(?= -| '|`| [A-Z])", path.read_text()):
            verb, *rest = words.split()
            assert verb in VERBS, f"{path.name}: there is no `dspark-ops {verb}`"
            module, attribute, _ = VERBS[verb]
            command: Any = getattr(import_module(module), attribute)
            if rest:
                command = typer.main.get_command(command)
            for word in rest:
                assert word in command.commands, f"{path.name}: there is no `dspark-ops {words}`"
                command = command.commands[word]


def test_an_example_of_each_summary_reads_well(tmp_path: Path) -> None:
    """Prometheus writes an error into a text that it cannot expand; promtool shows the texts of what fires."""
    for alert, (path, rule) in ALERTS.items():
        firing = next((t for t in unit_tests(alert) if any(c["exp_samples"] for c in t["promql_expr_test"])), None)
        assert firing is not None
        case = next(c for c in firing["promql_expr_test"] if c["exp_samples"])
        test = {key: value for key, value in firing.items() if key != "promql_expr_test"} | {
            "alert_rule_test": [{"alertname": alert, "eval_time": case["eval_time"], "exp_alerts": []}]
        }
        document = {"rule_files": [str(path)], "evaluation_interval": "30s", "tests": [test]}
        (tmp_path / f"{alert}.yml").write_text(yaml.safe_dump(document))
        assert rule["alert"] == alert
    said = promtool("test", "rules", *(str(tmp_path / f"{alert}.yml") for alert in ALERTS)).stdout
    assert said.count("got:[") == len(ALERTS)
    assert "error expanding template" not in said
    assert "<no value>" not in said


def test_mutants_of_an_expression() -> None:
    found = {mutant.what: mutant.expr for mutant in mutants('a{x="1",y="2"} > 4 and on (i) (b or c) == 0')}
    assert found["> is <"] == 'a { x = "1" , y = "2" } < 4 and on ( i ) ( b or c ) == 0'
    assert found["> 4 is 8"] == 'a { x = "1" , y = "2" } > 8.0 and on ( i ) ( b or c ) == 0'
    assert found['left out: x = "1"'] == 'a { y = "2" } > 4 and on ( i ) ( b or c ) == 0'
    assert found['left out: a { x = "1" , y = "2" } > 4'] == "( b or c ) == 0"
    assert found["left out: or c"] == 'a { x = "1" , y = "2" } > 4 and on ( i ) ( b ) == 0'
    assert found["left out: b"] == 'a { x = "1" , y = "2" } > 4 and on ( i ) ( c ) == 0'
    assert {"it always fires", "it never fires", "== is !="} <= set(found)


def test_every_mutant_loads(tmp_path: Path) -> None:
    """One that does not would be noticed by promtool and not by a unit test."""
    rules = [
        rule | {"alert": f"{alert}{number}", "expr": mutant.expr}
        for alert, (_, rule) in ALERTS.items()
        for number, mutant in enumerate(mutants(rule["expr"]))
    ]
    (tmp_path / "mutants.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    done = promtool("check", "rules", str(tmp_path / "mutants.yml"))
    assert done.returncode == 0, done.stdout
    assert len(rules) > 250
