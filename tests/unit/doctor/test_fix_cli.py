"""`dspark-ops doctor --fix` as a user calls it: what is told before contact, who is asked, which exit code."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from dspark_ops.cli.doctor import doctor
from dspark_ops.doctor.fix.actions import ActionId
from dspark_ops.errors import ConfigError, RefusedError
from dspark_ops.facts import snapshot
from dspark_ops.report.store import recent
from tests.unit.doctor.pair_fixture import CHECKS, pair_facts
from tests.unit.doctor.test_fix_run import MTU_LOW, REMOVED, Patient

SITE = CHECKS / "site.yml"
ONLY = ["reach.*", "host.sudo", "host.removeipc_linger", "fabric.mtu"]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Patient:
    patient = Patient(faults={"shm": REMOVED, "mtu": MTU_LOW})

    def gather(site: object, *_: object, **__: object) -> snapshot.PairFacts:
        patient.judged += 1
        return pair_facts({"set": list(patient.faults.values())})

    monkeypatch.setattr(snapshot, "gather_pair", gather)
    monkeypatch.setattr("dspark_ops.doctor.fix.run.ACTIONS", {name: patient.action(name) for name in ActionId})
    return patient


def call(capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[int, str, str]:
    with pytest.raises(typer.Exit) as left:
        doctor(site=SITE, only=ONLY, **options)
    said = capsys.readouterr()
    return left.value.exit_code, said.out, said.err


@pytest.mark.parametrize(
    "options",
    [
        {"yes": True},
        {"check": True},
        {"diff": True},
        {"consent_to": ["fabric.mtu"]},
        {"fix": True, "consent_to": ["fabric.mtuu"]},
        {"fix": True, "consent_to": ["fabric.*"]},
        {"fix": True, "consent_to": ["*"]},
        {"fix": True, "set_": ["serve.api_port=no"]},
    ],
)
def test_a_request_that_is_wrong_is_told_before_anything_is_contacted(
    patient: Patient, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        doctor(site=SITE, only=ONLY, **options)
    assert (patient.judged, patient.carried) == (0, [])


def test_without_a_terminal_and_without_yes_the_plan_is_shown_and_refused(
    patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RefusedError) as refused:
        doctor(site=SITE, only=ONLY, fix=True)
    assert refused.value.exit_code == 4
    assert "cures host.removeipc_linger on the head" in capsys.readouterr().err
    assert patient.carried == ["baseline?"]


def test_yes_cures_class_a_and_the_exit_code_is_that_of_what_is_left(
    patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, fix=True, yes=True)
    assert code == 1
    assert "withheld fabric.mtu on the worker: needs consent: --consent fabric.mtu" in err
    assert patient.carried == ["baseline?", "baseline"]


def test_with_yes_and_consent_all_is_cured_and_json_is_one_document_that_is_kept(
    patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, fix=True, yes=True, consent_to=["fabric.mtu"], json_=True)
    document = json.loads(out)
    assert code == document["exit_code"] == 0
    assert document["verdict"] == "changed"
    assert {fix["outcome"] for fix in document["fixes"]} == {"fixed"}
    assert [report.verdict for report in recent("doctor fix")] == ["changed"]
    again, out, _ = call(capsys, fix=True, yes=True, consent_to=["fabric.mtu"], json_=True)
    assert (again, json.loads(out)["verdict"], json.loads(out)["changes"]) == (0, "unchanged", [])


def test_check_asks_nobody(patient: Patient, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, fix=True, check=True)
    assert code == 0
    assert "plan for site" in err
    assert patient.carried == ["baseline?"]
