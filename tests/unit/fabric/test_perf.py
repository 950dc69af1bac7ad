from __future__ import annotations

from pathlib import Path

import pytest

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.config.models import Role
from dspark_ops.errors import ConfigError, NoVerdictError, RefusedError
from dspark_ops.fabric import perf as module
from dspark_ops.fabric.perf import run_test
from dspark_ops.report.models import Finding, Report
from dspark_ops.transport.base import Command
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.doctor.test_recorded_pair import SITE
from tests.unit.fabric.played_pair import PlayedNode, played_pair


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedSite:
    path = tmp_path / "site.yml"
    path.write_text(SITE.format(image="sha256:" + "a" * 64))
    return load_site(path, environ={})


def run(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch, pair: dict[Role, PlayedNode]) -> Report:
    monkeypatch.setattr(module, "open_runner", lambda _site, role: pair[role])
    return run_test(loaded, progress=lambda _line: None, consent=lambda _plan: None)


def by_id(report: Report, identity: str) -> list[Finding]:
    return [f for f in report.findings if f.id == identity]


def healthy(_device: str, rails: int) -> float:
    """109 Gb/s for a half alone, 98 each for the twins of a cable, 54.6 each for all four."""
    return {1: 109.0, 2: 98.0, 4: 54.6}[rails]


def test_a_healthy_pair_passes_every_band(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = played_pair(gbps=healthy)
    report = run(loaded, monkeypatch, pair)
    assert (report.verdict, report.exit_code) == ("ready", 0), report.message
    assert len(by_id(report, "fabric.test_rail")) == 4
    assert len(by_id(report, "fabric.test_cable")) == 2
    assert [f.observed.split(" (")[0] for f in by_id(report, "fabric.test_all")] == ["218.4 Gb/s"] * 2
    assert all("NVIDIA" in (f.expected or "") for f in by_id(report, "fabric.test_cable"))
    assert by_id(report, "fabric.split_match")[0].status == "ok"


def test_every_command_is_bounded_and_addressed_by_rail(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = played_pair(gbps=healthy)
    run(loaded, monkeypatch, pair)
    for node in pair.values():
        assert_read_only([Command("x", argv) for argv in node.asked])
        assert all("-D" in argv or "ib_write_lat" in argv for argv in node.asked), "hardware is measured by time"
        assert all(argv[argv.index("-x") + 1] == "3" for argv in node.asked)
    used = [argv[argv.index("-p") + 1] for argv in pair["head"].asked]
    assert len(set(used)) == len(used), "a server that still waits is never met by another run's client"
    client = pair["head"].asked[0]
    assert client[-1] == "10.77.0.2"
    assert pair["head"].asked[2][-1] == "10.77.1.2"


@pytest.mark.parametrize(("gbps", "status"), [(90.0, "ok"), (89.9, "warn"), (60.0, "warn"), (59.9, "fail")])
def test_a_half_is_judged_by_its_band(
    loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch, gbps: float, status: str
) -> None:
    report = run(loaded, monkeypatch, played_pair(gbps=lambda _device, rails: gbps if rails == 1 else 98.0))
    assert {f.status for f in by_id(report, "fabric.test_rail")} == {status}


def test_thirteen_gigabits_with_clean_counters_is_the_wedge(
    loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run(loaded, monkeypatch, played_pair(gbps=lambda _device, _rails: 13.42))
    finding = by_id(report, "fabric.test_rail")[0]
    assert finding.status == "fail"
    assert "13 Gb/s wedge" in finding.observed
    assert finding.remedy is not None
    assert "unplug power" in finding.remedy.text
    assert report.exit_code == 1


def test_thirteen_gigabits_with_errors_is_a_bad_link(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = played_pair(gbps=lambda _device, _rails: 13.42, errors={"rocep1s0f0": 5})
    report = run(loaded, monkeypatch, pair)
    finding = by_id(report, "fabric.test_rail")[0]
    assert "wedge" not in finding.observed
    assert by_id(report, "fabric.link_errors")[0].status == "fail"


def test_a_rehearsal_is_measured_and_judged_by_no_band(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(loaded, monkeypatch, played_pair(gbps=lambda _device, _rails: 0.2, hardware=False))
    assert report.exit_code == 0
    assert report.message.endswith("judged against no band: rehearsal")
    measured = by_id(report, "fabric.test_rail")
    assert all("no band: rehearsal" in f.observed and f.expected is None and f.look_alike for f in measured)


def test_a_device_that_cannot_be_opened_is_no_verdict(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-alike tree names devices that no kernel has."""
    said = " IB device rocep1s0f0 not found\n Unable to find the Infiniband/RoCE device\n"
    report = run(loaded, monkeypatch, played_pair(broken=said, hardware=False))
    assert (report.verdict, report.exit_code) == ("indeterminate", 3)
    assert "worker: IB device rocep1s0f0 not found" in report.message


def test_a_serving_engine_is_never_disturbed(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = played_pair(serving=True)
    with pytest.raises(RefusedError, match="the rank's container dspark-rank is running") as caught:
        run(loaded, monkeypatch, pair)
    assert caught.value.exit_code == 4
    assert all(not node.asked for node in pair.values())


@pytest.mark.parametrize("probe", ["docker.ps", "listeners.tcp", "gpu.identity"])
def test_what_is_not_known_forbids_traffic_too(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch, probe: str) -> None:
    with pytest.raises(RefusedError, match="could not be read"):
        run(loaded, monkeypatch, played_pair(drop=(probe,)))


def test_a_declined_plan_sends_nothing(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = played_pair()
    monkeypatch.setattr(module, "open_runner", lambda _site, role: pair[role])

    def decline(plan: str) -> None:
        assert "p0a, p0b, p1a, p1b" in plan
        raise RefusedError("declined")

    with pytest.raises(RefusedError):
        run_test(loaded, progress=lambda _line: None, consent=decline)
    assert all(not node.asked for node in pair.values())


def test_a_rail_without_a_gid_is_unknown_and_the_others_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "site.yml"
    path.write_text(SITE.format(image="sha256:" + "a" * 64).replace("10.77.3.1/24", "10.77.3.9/24"))
    report = run(load_site(path, environ={}), monkeypatch, played_pair(gbps=lambda _device, _rails: 98.0))
    unknown = [f for f in report.findings if f.status == "unknown"]
    assert ["no RoCE v2 GID of 10.77.3.9" in f.observed for f in unknown] == [True]
    assert report.exit_code == 3


def test_missing_perftest_is_no_verdict(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = played_pair()
    real = PlayedNode._answer

    def without(self: PlayedNode, probe: object, recorded: object) -> object:
        found = real(self, probe, recorded)  # type: ignore[arg-type]
        if found.id == "perf.ib_write_bw":
            return found.model_copy(update={"rc": None, "stdout": None, "error": "no such program: ib_write_bw"})
        return found

    monkeypatch.setattr(PlayedNode, "_answer", without)
    with pytest.raises(NoVerdictError, match="head and worker: ib_write_bw"):
        run(loaded, monkeypatch, pair)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": 61}, {"size_bytes": 0}, {"queue_pairs": 65}])
def test_numbers_out_of_range_contact_nobody(
    loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, int]
) -> None:
    monkeypatch.setattr(module, "open_runner", lambda *_: pytest.fail("contacted"))
    with pytest.raises(ConfigError):
        run_test(loaded, progress=lambda _line: None, consent=lambda _plan: None, **wrong)  # type: ignore[arg-type]
