"""`doctor --incident` as a user calls it."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from dspark_ops.cli.doctor import doctor
from dspark_ops.config.models import ROLES, Role
from dspark_ops.doctor.incident import run as run_module
from dspark_ops.doctor.incident.gather import probes
from dspark_ops.doctor.incident.run import incident_of, parse_since
from dspark_ops.doctor.recording.writing import Recorded, write
from dspark_ops.errors import ConfigError
from dspark_ops.facts.snapshot import pair_from
from dspark_ops.transport.base import LogScan, NodeReading, Probe
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.doctor.incident.stories import LINES, Told, reading
from tests.unit.doctor.incident.test_drills import drill
from tests.unit.doctor.pair_fixture import CHECKS, load_case_site

NOW = datetime(2026, 11, 27, 17, 0, tzinfo=UTC)


def call(capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[int, str]:
    with pytest.raises(typer.Exit) as left:
        doctor(incident=True, **options)
    return left.value.exit_code, capsys.readouterr().out


def test_kept_logs_are_judged_without_a_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = drill("corrupt_shard", tmp_path)
    code, out = call(capsys, kept=folder, site=Path("/absent/site.yml"))
    assert code == 1
    assert out.splitlines()[0] == f"replayed from {folder}, nothing was contacted"
    assert out.splitlines()[-1].startswith("first cause: boot.shard_whole on the worker: ")
    as_json, text = call(capsys, kept=folder, json_=True)
    document = json.loads(text)
    assert as_json == document["exit_code"] == 1
    assert document["schema"] == "dspark-ops/incident/v1"
    assert document["cause"]["check"] == "boot.shard_whole"


def test_the_logs_of_an_evidence_archive_are_judged_as_they_lie_in_it(tmp_path: Path) -> None:
    """Its kernel logs are written for people, with a zone in the stamp: an hour apart from UTC here."""
    fatal = "(EngineCore pid=9) ERROR EngineCore encountered a fatal error."
    for role in ROLES:
        (tmp_path / role).mkdir()
        (tmp_path / role / "rank.log").write_text(f"2026-11-23T20:00:05.000000000Z {fatal}\n")
    line = LINES["xid"]
    (tmp_path / "worker/kernel.log").write_text(f"2026-11-23T21:00:00.250000+0100 spark-b kernel: {line}\n")
    report = incident_of(tmp_path)
    assert report.cause is not None
    assert (report.cause.signature, report.cause.nodes) == ("xid", ("worker",))
    assert report.cause.at_s == datetime(2026, 11, 23, 20, 0, 0, 250_000, tzinfo=UTC).timestamp()
    assert {s.name for s in report.sources if s.problem is None and s.node == "worker"} == {"engine", "kernel"}


def test_both_nodes_are_read_once_and_no_older_than_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Probe, ...]] = []

    def read(site: object, wanted: tuple[Probe, ...], *, timeout_s: float) -> dict[str, Any]:
        asked.append(wanted)
        told = {"head": Told(engine=[(0, "port_in_use")], end=(0.5, 1, False, False)), "worker": Told()}
        return {role: reading(role, told[role]) for role in ROLES}

    monkeypatch.setattr(run_module, "read_pair", read)
    code, out = call(capsys, site=CHECKS / "site.yml")
    assert code == 1
    assert f"$ dspark-ops start --site {CHECKS / 'site.yml'}" in out
    code, _ = call(capsys, site=CHECKS / "site.yml", since="2h")
    assert code == 0, "what is older than that is left out"
    assert len(asked) == 2
    words = [word for probe in asked[1] if isinstance(probe, LogScan) for word in probe.argv]
    # A node's now comes after this one's: what the login takes must not be missing at the beginning.
    assert "7260s" in words
    assert "--since=-7260s" in words


@pytest.mark.parametrize("since", ["36500d", "1926-01-01", "1969-12-31T23:00:00+00:00", "1970-01-01"])
def test_nothing_is_asked_for_before_there_was_a_clock(
    since: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Probe, ...]] = []

    def read(site: object, wanted: tuple[Probe, ...], *, timeout_s: float) -> dict[str, Any]:
        asked.append(wanted)
        return {role: reading(role, Told()) for role in ROLES}

    monkeypatch.setattr(run_module, "read_pair", read)
    call(capsys, site=CHECKS / "site.yml", since=since)
    ages = [
        word
        for probe in asked[0]
        if isinstance(probe, LogScan)
        for word in probe.argv
        if re.match(r"--since=-\d", word)
    ]
    seconds = {int(word.removeprefix("--since=-").removesuffix("s")) for word in ages}
    assert len(ages) == 2
    assert all(0 < age <= datetime.now(UTC).timestamp() for age in seconds)


def test_the_options_need_each_other(tmp_path: Path) -> None:
    for options in ({"since": "2h"}, {"kept": tmp_path}, {"incident": True, "kept": tmp_path}):
        with pytest.raises(ConfigError):
            doctor(site=CHECKS / "site.yml", **options)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("1d", NOW - timedelta(days=1)),
        ("30s", NOW - timedelta(seconds=30)),
        ("2026-11-27T10:00:00+00:00", datetime(2026, 11, 27, 10, 0, tzinfo=UTC)),
    ],
)
def test_since(text: str, wanted: datetime) -> None:
    assert parse_since(text, NOW) == wanted


def test_since_as_a_time_of_day_is_of_the_zone_of_its_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        # On 25 October 2026 at 3 o'clock the clocks went back an hour; 23:30 of the day before is of summer time.
        moment = datetime(2026, 10, 25, 9, 0, tzinfo=UTC)
        assert parse_since("23:30", moment) == datetime(2026, 10, 24, 21, 30, tzinfo=UTC)
        assert parse_since("09:30", moment) == datetime(2026, 10, 25, 8, 30, tzinfo=UTC)
        assert parse_since("01:30", moment) == datetime(2026, 10, 24, 23, 30, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_since_as_a_time_of_day_is_the_last_one() -> None:
    for hour in range(24):
        found = parse_since(f"{hour}:30", NOW)
        assert found <= NOW < found + timedelta(days=1)


@pytest.mark.parametrize(
    "text", ["", "soon", "5", "-5m", "25:00", "9999999d", "2026-11-28T10:00:00+00:00", "2026-13-01"]
)
def test_since_that_is_no_time_is_told(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_since(text, NOW)


@pytest.mark.parametrize("ago_s", [None, 5.0, 86_400.0])
def test_reading_an_incident_writes_nothing(ago_s: float | None) -> None:
    assert_read_only(probes(ago_s))
    assert_read_only(probes(ago_s, "vllm-head"))


def test_a_recording_of_the_doctor_is_judged_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {
        "head": Told(engine=[(0, "kv_too_small"), (1, "core_init_failed")], end=(2, 1, False, False)),
        "worker": Told(engine=[(1, "peer_closed")]),
    }
    readings: dict[Role, NodeReading] = {}
    for role in ROLES:
        answer = reading(role, told[role])
        kept = {name: result for name, result in answer.results.items() if not name.startswith("incident.")}
        kept["log.engine"] = answer.results["incident.engine"].model_copy(update={"id": "log.engine"})
        readings[role] = answer.model_copy(update={"results": kept})
    loaded = load_case_site()
    asked: dict[Role, tuple[Probe, ...]] = dict.fromkeys(ROLES, ())
    write(Recorded(loaded, asked, readings, pair_from(loaded.site, readings), NOW), tmp_path / "kept")
    for option in ({"kept": tmp_path / "kept"}, {"simulate": tmp_path / "kept"}):
        code, out = call(capsys, site=Path("/absent/site.yml"), **option)
        assert code == 1
        assert out.splitlines()[-1].startswith("first cause: boot.kv_cache_fits on the head")
        assert "not read: kernel of the head" in out
