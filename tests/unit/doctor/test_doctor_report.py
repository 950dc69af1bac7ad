"""What a run of the doctor says: what is ignored, what only slows, what is the root, and the next step."""

from __future__ import annotations

from typing import Any

import pytest

from dspark_ops.doctor import engine
from dspark_ops.doctor.catalogue import Check, load_catalogue
from dspark_ops.errors import ConfigError
from dspark_ops.report.text import render
from tests.unit.doctor.pair_fixture import load_case_site, unreachable
from tests.unit.doctor.test_engine import finding, report_of

MTU = {"set": [[["worker", "links", "enP2p1s0f0np0", "mtu"], 1500]]}
DARK = {
    "set": [
        [["head", "links", "enp1s0f0np0", "carrier"], False],
        [["head", "links", "enp1s0f0np0", "addresses"], []],
        [["head", "rdma", "rocep1s0f0", "state"], "1: DOWN"],
    ],
    "remove": [["head", "rdma", "rocep1s0f0", "gids", 3]],
}
ENGINE_STOPPED = {
    "set": [
        [["worker", "docker"], {"answers": False, "error": "Cannot connect to the Docker daemon"}],
        [["worker", "rank"], None],
        [["worker", "rank_known"], False],
        [["worker", "images"], None],
    ]
}


def test_without_an_effect_a_required_check_blocks_and_an_advised_one_is_a_risk() -> None:
    checks = load_catalogue()
    plain: dict[str, Any] = checks["fabric.mtu"].model_dump(by_alias=True, exclude={"effect"})
    assert Check.model_validate(plain).effect == "blocks"
    assert Check.model_validate(plain | {"severity": "advised"}).effect == "risks"
    assert Check.model_validate(plain | {"effect": "slows"}).effect == "slows"
    report = report_of()
    assert {f.id: f.effect for f in report.findings} == {
        identity: check.effect for identity, check in checks.items() if not check.active
    }


@pytest.fixture
def slowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue in which the wrong MTU costs speed and nothing else."""
    real = load_catalogue()
    changed = real | {"fabric.mtu": real["fabric.mtu"].model_copy(update={"effect": "slows"})}
    monkeypatch.setattr(engine, "load_catalogue", lambda: changed)


@pytest.mark.usefixtures("slowing")
def test_what_only_costs_speed_makes_the_pair_slow() -> None:
    report = report_of(MTU)
    assert (report.verdict, report.exit_code) == ("slow", 0)
    assert report.message == "the pair can serve, and fabric.mtu costs speed"
    assert finding(report, "fabric.mtu", "worker").status == "fail"
    assert report.next_step is not None
    assert (report_of(MTU, strict=True).verdict, report_of(MTU, strict=True).exit_code) == ("slow", 1)


@pytest.mark.usefixtures("slowing")
def test_what_blocks_is_the_next_step_before_what_slows() -> None:
    report = report_of({"set": [*MTU["set"], *ENGINE_STOPPED["set"]]}, only=["fabric.mtu", "host.docker_engine"])
    assert report.verdict == "blocked"
    assert report.next_step == "ssh node-b sudo systemctl start docker"


def test_what_is_ignored_is_judged_and_shown_and_not_counted() -> None:
    report = report_of(MTU, ignore=["fabric.mtu"])
    assert (report.verdict, report.exit_code, report.next_step) == ("ready", 0, None)
    bad = finding(report, "fabric.mtu", "worker")
    assert (bad.status, bad.ignored) == ("fail", True)
    assert report.message.endswith("; not counted, as asked: fabric.mtu")
    assert "good" in report.message
    text = render(report)
    assert "(ignored)" in next(line for line in text.splitlines() if line.startswith("[fail] worker fabric.mtu"))
    assert "remedy" not in text


def test_an_ignored_check_that_is_good_is_told() -> None:
    report = report_of(ignore=["fabric.mtu", "host.cl*"])
    assert report.message.endswith("; ignored without need: host.clock, fabric.mtu")
    assert report.exit_code == 0


def test_an_ignored_cause_still_explains_what_counts() -> None:
    report = report_of(DARK, ignore=["fabric.ports_up"])
    assert report.verdict == "blocked"
    text = render(report)
    assert "[fail] fabric.ports_up: Every rail's port exists, is up and has a carrier (ignored)" in text.splitlines()
    assert "more follow from fabric.ports_up: " in text
    assert report.next_step is not None
    assert report.next_step.startswith("fabric.ports_up on the head: ")


def test_a_node_that_is_lost_cannot_be_ignored() -> None:
    report = report_of({"set": [[["worker"], unreachable("worker")]]}, ignore=["*"])
    assert (report.verdict, report.exit_code) == ("indeterminate", 3)


def test_everything_ignored_is_nothing_checked() -> None:
    assert report_of(ignore=["*"]).exit_code == 3


def test_an_unknown_id_to_ignore_is_an_error() -> None:
    with pytest.raises(ConfigError):
        report_of(ignore=["fabric.mtuu"])


def test_a_cause_that_was_not_asked_for_is_named_with_the_way_to_ask() -> None:
    report = report_of(ENGINE_STOPPED, only=["image.present"])
    assert {f.id for f in report.findings} == {"image.present"}
    assert finding(report, "image.present", "worker").caused_by == "host.docker_engine"
    site = load_case_site().path
    assert report.next_step == f"dspark-ops doctor --site {site} --only host.docker_engine"
    assert "[ ? ]  host.docker_engine: not asked for in this run" in render(report)


@pytest.mark.parametrize(
    ("case", "root"),
    [
        ({"set": [[["worker"], unreachable("worker")]]}, "reach.ssh"),
        ({"set": [[["worker"], unreachable("worker")], *DARK["set"]], "remove": DARK["remove"]}, "reach.ssh"),
        (DARK, "fabric.ports_up"),
        (ENGINE_STOPPED, "host.docker_engine"),
    ],
)
def test_one_cause_is_one_root(case: dict[str, Any], root: str) -> None:
    report = report_of(case)
    bad = [f for f in report.findings if f.status in ("fail", "warn", "unknown")]
    assert len(bad) > 3
    assert {f.id for f in bad if f.caused_by is None} == {root}
    assert {f.caused_by for f in bad if f.caused_by is not None} == {root}


def test_an_advised_unknown_is_told_in_the_message() -> None:
    report = report_of({"set": [[["head", "clock_error_s"], None]]}, only=["host.clock"])
    assert report.message == "all 1 results are good, 1 could not be told"
