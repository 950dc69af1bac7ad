"""Two runs of the doctor on one pair: the second one tells what grew since the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspark_ops.doctor.run import Request, diagnose
from dspark_ops.facts import snapshot
from dspark_ops.facts.snapshot import PairFacts
from tests.unit.doctor.pair_fixture import CHECKS, pair_facts

GROWTH = ("nic.link_flaps", "nic.error_counters", "nic.retry_counters", "fabric.rail_share")
# Long before this clock, whatever it shows.
STARTED: list[Any] = [["head", "rank", "started_at"], "2020-01-01T00:00:00Z"]
HEAD: list[Any] = ["head", "counters", "devices", "rocep1s0f0"]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def statuses(monkeypatch: pytest.MonkeyPatch, *changes: Any) -> dict[str, str]:
    """What a run says of the head, of a pair that is healthy but for the changes."""

    def gathered(*_: Any, **__: Any) -> PairFacts:
        return pair_facts({"set": [STARTED, *changes]})

    monkeypatch.setattr(snapshot, "gather_pair", gathered)
    report = diagnose(Request(site=CHECKS / "site.yml", only=GROWTH))
    return {f.id: f.status for f in report.findings if f.node == "head"}


def test_the_first_run_has_nothing_to_compare_with(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(statuses(monkeypatch).values()) == {"skip"}


def test_what_grew_is_told_by_every_run_of_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses(monkeypatch)
    steady = statuses(monkeypatch)
    assert steady == {**dict.fromkeys(GROWTH, "ok"), "fabric.rail_share": "skip"}, "nothing was sent in between"
    grown = [
        [[*HEAD, "hw_counters", "out_of_sequence"], 12],
        [["head", "counters", "carrier_changes", "enp1s0f0np0"], 8],
        [[*HEAD, "counters", "port_xmit_data"], 90_000_000_000],
    ]
    wanted = {
        "nic.link_flaps": "warn",
        "nic.error_counters": "warn",
        "nic.retry_counters": "ok",
        "fabric.rail_share": "fail",
    }
    assert statuses(monkeypatch, *grown) == wanted
    assert statuses(monkeypatch, *grown) == wanted


def test_a_boot_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses(monkeypatch)
    booted: list[Any] = [
        [["head", "counters", "boot_id"], "ffffffff-0000-4000-8000-000000000001"],
        [[*HEAD, "hw_counters", "out_of_sequence"], 12],
    ]
    assert set(statuses(monkeypatch, *booted).values()) == {"skip"}
    assert statuses(monkeypatch, *booted)["nic.error_counters"] == "ok"
