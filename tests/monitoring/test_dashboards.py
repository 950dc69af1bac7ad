"""The dashboards: every expression parses, every metric is in a recorded scrape, and the linter sees what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from dspark_ops.cli.monitor import app
from dspark_ops.errors import ConfigError
from dspark_ops.observe.dashboards import as_rules, dashboard_files, expressions, lint, load, metric_names
from tests.monitoring.rule_files import alerts, need_programs, promtool
from tests.monitoring.scrapes import known_metrics

OVERVIEW = dashboard_files()[0]


@pytest.fixture(scope="module", autouse=True)
def _programs() -> None:
    need_programs()


def test_there_are_three() -> None:
    assert [path.stem for path in dashboard_files()] == ["dspark-engine", "dspark-nodes", "dspark-overview"]


def test_nothing_is_wrong_with_them() -> None:
    assert lint([load(path) for path in dashboard_files()], known_metrics()) == []


def test_promtool_parses_every_expression(tmp_path: Path) -> None:
    rules = as_rules(load(path) for path in dashboard_files())
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    done = promtool("check", "rules", str(tmp_path / "rules.yml"))
    assert done.returncode == 0, done.stdout
    assert len(rules["groups"][0]["rules"]) >= 60


def test_an_expression_that_does_not_parse_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(as_rules([changed(OVERVIEW, expr_of("rate(up[5m]"))])))
    assert promtool("check", "rules", str(tmp_path / "rules.yml")).returncode != 0


def test_every_metric_of_the_rules_is_in_a_recorded_scrape() -> None:
    older = {"vllm:gpu_cache_usage_perc"}  # older builds call it so; none of them was recorded
    recorded = {"dspark:kv_pool_certified:tokens"}
    for name, (_, rule) in alerts().items():
        missing = metric_names(rule["expr"]) - known_metrics() - {"up"} - older - recorded
        assert missing == set(), name


def test_panels_that_others_lack_are_there() -> None:
    text = "\n".join(e for path in dashboard_files() for e in expressions(load(path)))
    for asked in (
        r"num_accepted_tokens_per_pos_total",
        r"dspark_tokens_per_step \* dspark_steps_per_second",
        r"request_queue_time_seconds_sum",
        r"dspark_rail_balance_ratio",
        r"changes\(vllm:kv_cache_usage_perc\[3m\]\) == bool 0",
        r"dspark_kv_pool_tokens",
        r"dspark_gateway_cloud_share_ratio",
        r"dspark_gateway_spend_usd",
    ):
        assert re.search(asked, text), asked


def test_what_two_programs_tell_is_shown_once() -> None:
    """The supervisor's port and our exporter tell some figures under one name: a panel that names no job shows both."""
    twice = {"state", "held", "latched", "last_detect_seconds", "last_recover_seconds", "step_age_seconds"}
    for text in (e for path in dashboard_files() for e in expressions(load(path))):
        for name, selector in re.findall(r"dspark_supervisor_(\w+)(\{[^}]*\})?", text):
            assert name not in twice or 'job="dspark"' in selector, text


def test_the_first_restart_of_a_cause_is_counted(tmp_path: Path) -> None:
    """Its series begins with it, at 1: to increase() that is no increase."""
    (expr,) = [e for path in dashboard_files() for e in expressions(load(path)) if "restarts_total" in e]
    series = 'dspark_supervisor_restarts_total{job="dspark",role="head",cause="%s"}'
    test = {
        "interval": "1m",
        "input_series": [
            {"series": series % "process", "values": "_x1500 1x100"},
            {"series": series % "wanted", "values": "3x1500 3x100"},
            {"series": series % "counters", "values": "2x1500 4x100"},
        ],
        "promql_expr_test": [
            {
                "expr": expr,
                "eval_time": "1550m",
                "exp_samples": [
                    {"labels": '{cause="process"}', "value": 1},
                    {"labels": '{cause="wanted"}', "value": 0},
                    {"labels": '{cause="counters"}', "value": 2},
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    done = promtool("test", "rules", str(tmp_path / "test.yml"))
    assert done.returncode == 0, done.stdout


def expr_of(text: str) -> Callable[[dict[str, Any]], None]:
    """A change: the first panel asks this."""

    def change(document: dict[str, Any]) -> None:
        document["panels"][1]["targets"][0]["expr"] = text

    return change


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> Any:
    document = json.loads(path.read_text())
    change(document)
    from dspark_ops.observe.dashboards import Dashboard

    return Dashboard.model_validate_json(json.dumps(document))


def panel(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["panels"][2][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (expr_of("rate(vllm:generation_tokens_created[5m])"), "says only when a series was made"),
        (expr_of("dspark_no_such_metric"), "dspark_no_such_metric is in no recorded scrape"),
        (panel("id", 2), "panel id 2 is there 2 times"),
        (panel("datasource", {"type": "prometheus", "uid": "my-own"}), "its datasource is not"),
        (panel("datasource", None), "its datasource is not"),
        (panel("fieldConfig", {"defaults": {}}), "has no unit"),
        (panel("description", ""), "has no description"),
        (panel("targets", []), "asks nothing"),
        (panel("gridPos", {"h": 4, "w": 4, "x": 0, "y": 1}), "lies over panel"),
        (panel("gridPos", {"h": 4, "w": 8, "x": 20, "y": 500}), "wider than the grid"),
        (lambda document: document["templating"]["list"].clear(), "has no variable `datasource`"),
    ],
)
def test_the_linter_sees(change: Callable[[dict[str, Any]], None], said: str) -> None:
    problems = lint([changed(OVERVIEW, change)], known_metrics())
    assert any(said in problem for problem in problems), problems


def test_two_with_one_uid_are_told() -> None:
    one = load(OVERVIEW)
    assert "is the uid of 2 dashboards" in lint([one, one], known_metrics())[0]


def test_a_file_that_is_no_dashboard_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"uid": "a", "title": "b", "templating": {}, "panels": [{"id": "one"}]}')
    with pytest.raises(ConfigError, match=r"x\.json: panels\.0\.id"):
        load(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ('sum by (le, a) (rate(x_total{b="c{d"}[5m])) > on (e) group_left (f) y', {"x_total", "y"}),
        ('label_replace(up{job="a b"}, "d", "$1", "s", "(.+)")', {"up"}),
        ("vllm:a > bool 0 unless on () dspark:b:c == 1e9", {"vllm:a", "dspark:b:c"}),
        ("time() - z offset 5m", {"z"}),
    ],
)
def test_names_are_found(expr: str, names: set[str]) -> None:
    assert metric_names(expr) - {"m"} == names


def test_the_verb_writes_them_whole(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["dashboards", "--out", str(tmp_path / "new/dir")])
    assert done.exit_code == 0, done.output
    for path in dashboard_files():
        assert (tmp_path / "new/dir" / path.name).read_bytes() == path.read_bytes()


def test_the_recorded_scrapes_are_what_prometheus_reads() -> None:
    from tests.monitoring.scrapes import SCRAPES

    for path in SCRAPES:
        assert list(text_string_to_metric_families(path.read_text())), path.name
