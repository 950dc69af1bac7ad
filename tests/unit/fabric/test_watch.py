from __future__ import annotations

from pathlib import Path

import pytest

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.errors import ConfigError
from dspark_ops.fabric import watch as module
from dspark_ops.fabric.watch import watch
from dspark_ops.report.models import Report
from dspark_ops.report.text import render
from tests.unit.doctor.test_recorded_pair import SITE
from tests.unit.fabric.played_pair import DEVICES, PlayedNode, played_pair

IMAGE = "sha256:" + "a" * 64


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedSite:
    path = tmp_path / "site.yml"
    path.write_text(SITE.format(image=IMAGE))
    return load_site(path, environ={})


def run(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch, pair: dict[str, PlayedNode], **options: object) -> Report:
    monkeypatch.setattr(module, "open_runner", lambda _site, role: pair[role])
    options.setdefault("wait", lambda _seconds: None)
    return watch(loaded, seconds=5, progress=lambda _line: None, **options)  # type: ignore[arg-type]


def test_even_rails_of_a_serving_pair_are_good(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(loaded, monkeypatch, played_pair(serving=True))
    assert (report.verdict, report.exit_code) == ("ready", 0)
    halves = {m.subject: m.value for m in report.measurements if m.node == "head" and m.subject.startswith("half")}
    assert halves == {"half A": 50.0, "half B": 50.0}
    # 250 M words of 4 bytes each way in 5 s.
    rate = next(m for m in report.measurements if m.what == "sent" and m.unit == "Gb/s")
    assert rate.value == pytest.approx(1.6)
    table = render(report)
    assert "p0a rocep1s0f0 cage 0 half A" in table
    assert "received Gb/s" in table


def test_an_idle_pair_gives_no_verdict(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(loaded, monkeypatch, played_pair(words=dict.fromkeys(DEVICES, 10)))
    assert (report.verdict, report.exit_code) == ("indeterminate", 3)
    assert "idle" in report.message


def test_a_reset_between_the_readings_gives_no_verdict(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(loaded, monkeypatch, played_pair(boot="other"))
    assert (report.verdict, report.exit_code) == ("indeterminate", 3)
    assert "counters reset" in report.message


def test_one_half_fails(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(loaded, monkeypatch, played_pair(words={"rocep1s0f0": 10**9, "rocep1s0f1": 10**9}))
    assert (report.verdict, report.exit_code) == ("blocked", 1)
    assert "half A carries 100 %" in report.message


def test_a_warning_is_a_failure_only_when_strict(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    uneven = dict(zip(DEVICES, (33, 17, 33, 17), strict=True))
    words = {device: share * 10**7 for device, share in uneven.items()}
    assert run(loaded, monkeypatch, played_pair(words=words)).exit_code == 0
    assert run(loaded, monkeypatch, played_pair(words=words), strict=True).exit_code == 1


def test_errors_that_grow_fail(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(loaded, monkeypatch, played_pair(errors={"rocep1s0f1": 3}))
    assert report.exit_code == 1
    assert "rocep1s0f1 packet_seq_err +3" in report.message


@pytest.mark.parametrize(("pin", "status", "code"), [(None, "warn", 0), ("fabric.gid_index=3", "fail", 1)])
def test_a_gid_that_moved_is_named_and_fails_a_pin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pin: str | None, status: str, code: int
) -> None:
    path = tmp_path / "site.yml"
    path.write_text(SITE.format(image=IMAGE))
    loaded = load_site(path, overrides=[pin] if pin else [], environ={})
    report = run(loaded, monkeypatch, played_pair(gids_move=True))
    drift = [f for f in report.findings if f.id == "fabric.gid_drift"]
    assert {f.status for f in drift} == {status}
    assert "p0a 3 -> 4" in drift[0].observed
    assert report.exit_code == code


def test_ctrl_c_reports_what_was_seen_until_then(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    report = run(loaded, monkeypatch, played_pair(), wait=interrupt)
    assert (report.verdict, report.exit_code) == ("interrupted", 130)
    assert report.measurements
    assert {f.id for f in report.findings} >= {"fabric.split_devices", "fabric.split_match"}


@pytest.mark.parametrize("seconds", [0, 0.5, 3601, float("nan")])
def test_an_unbounded_wait_is_refused_before_anything_is_contacted(
    loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(module, "open_runner", lambda *_: pytest.fail("contacted"))
    with pytest.raises(ConfigError, match="1 to 3600"):
        watch(loaded, seconds=seconds, progress=lambda _line: None)
