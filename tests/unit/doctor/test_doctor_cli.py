"""`dspark-ops doctor` as a user calls it: what is told before contact, one document, the exit code of the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from dspark_ops.cli.doctor import doctor
from dspark_ops.errors import ConfigError
from dspark_ops.facts import snapshot
from dspark_ops.report.store import recent
from tests.unit.doctor.pair_fixture import CHECKS, pair_facts, unreachable

SITE = CHECKS / "site.yml"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The pair that is read, by case, and one entry each time it was."""
    case: list[dict[str, Any]] = [{}]

    def gather(site: object, *, active_profile: object = None) -> snapshot.PairFacts:
        case.append({"active": active_profile is not None})
        return pair_facts(case[0])

    monkeypatch.setattr(snapshot, "gather_pair", gather)
    return case


def run(capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[int, str]:
    with pytest.raises(typer.Exit) as left:
        doctor(site=SITE, **options)
    return left.value.exit_code, capsys.readouterr().out


def test_a_healthy_pair_ends_with_0_and_its_report_is_kept(
    gathered: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = run(capsys)
    assert code == 0
    assert out.rstrip().splitlines()[-1].startswith("ready: all ")
    assert gathered[1:] == [{"active": False}], "the pair is read exactly once"
    assert [r.verdict for r in recent("doctor")] == ["ready"]


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ({"set": [[["head", "links", "enp1s0f0np0", "mtu"], 1500]]}, 1),
        ({"set": [[["worker"], unreachable("worker")]]}, 3),
        ({"set": [[["head", "disks"], None]]}, 3),
    ],
)
def test_json_is_one_document_alone_with_the_same_exit_code(
    gathered: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], case: dict[str, Any], code: int
) -> None:
    gathered[0] = case
    as_text, _ = run(capsys)
    as_json, out = run(capsys, json_=True)
    document = json.loads(out)
    assert as_text == as_json == document["exit_code"] == code
    assert document["schema"] == "dspark-ops/report/v1"


def test_the_mtu_of_one_end_is_told_with_node_device_figures_and_command(
    gathered: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    gathered[0] = {"set": [[["worker", "links", "enP2p1s0f0np0", "mtu"], 1500]]}
    _, out = run(capsys)
    assert "[fail] worker fabric.mtu" in out
    assert "       worker: enP2p1s0f0np0 (rail p0b) has MTU 1500, not 9000" in out
    assert f"       $ dspark-ops bootstrap --site {SITE}" in out


def test_a_mistyped_id_is_told_before_anything_is_contacted(gathered: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError):
        doctor(site=SITE, only=["fabric.mtuu"])
    assert len(gathered) == 1


def test_a_wrong_override_is_told_before_anything_is_contacted(gathered: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError):
        doctor(site=SITE, set_=["serve.api_port=no"])
    assert len(gathered) == 1


def test_the_catalogue_needs_no_site(capsys: pytest.CaptureFixture[str]) -> None:
    doctor(site=Path("/absent/site.yml"), list_checks=True, json_=True)
    listed = json.loads(capsys.readouterr().out)
    assert len(listed["checks"]) >= 24
    doctor(site=Path("/absent/site.yml"), explain="fabric.mtu")
    assert "RoCE" in capsys.readouterr().out
    with pytest.raises(ConfigError):
        doctor(site=Path("/absent/site.yml"), explain="no.such")


def test_active_asks_for_pings_and_a_completion(
    gathered: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = run(capsys, active=True)
    assert gathered[1:] == [{"active": True}]
    assert "service.canary" in out


def test_files_are_written_beside_the_one_document_on_stdout(
    gathered: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = {name: tmp_path / f"doctor.{name}" for name in ("junit", "html", "textfile")}
    code, out = run(capsys, json_=True, **files)
    assert code == 0
    assert json.loads(out)["verdict"] == "ready"
    assert files["junit"].read_text().startswith("<?xml")
    assert files["html"].read_text().startswith("<!doctype html>")
    assert 'dspark_doctor_verdict{site="fixture",verdict="ready"} 1.0' in files["textfile"].read_text()


@pytest.mark.parametrize("option", ["junit", "html", "textfile"])
def test_a_file_that_cannot_be_is_told_before_anything_is_contacted(
    gathered: list[dict[str, Any]], tmp_path: Path, option: str
) -> None:
    options: dict[str, Any] = {option: tmp_path / "absent/doctor.out"}
    with pytest.raises(ConfigError):
        doctor(site=SITE, **options)
    assert len(gathered) == 1


def test_what_is_ignored_is_no_failure_and_a_mistyped_one_is_told_before_contact(
    gathered: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    gathered[0] = {"set": [[["worker", "links", "enP2p1s0f0np0", "mtu"], 1500]]}
    assert run(capsys, ignore=["fabric.mtu"])[0] == 0
    with pytest.raises(ConfigError):
        doctor(site=SITE, ignore=["fabric.mtuu"])
    assert len(gathered) == 2


@pytest.mark.parametrize(
    "options", [{"junit": Path("j.xml")}, {"html": Path("r.html")}, {"textfile": Path("m.prom")}, {"strict": True}]
)
def test_an_incident_takes_no_option_that_it_would_not_heed(
    gathered: list[dict[str, Any]], options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="judges no checks"):
        doctor(site=SITE, incident=True, kept=tmp_path, **options)
    assert gathered == [{}]
