"""The timer of the doctor: its units as systemd reads them, and the verbs that install and remove it, run for real.

The playbook is run by ansible-playbook on this machine; only `systemctl` is the test's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.doctor import timer
from dspark_ops.doctor.timer import (
    Owner,
    TimerWish,
    install,
    installed_textfile,
    remove,
    timer_variables,
    unit_name,
    unit_word,
)
from dspark_ops.errors import ConfigError, RefusedError
from dspark_ops.report.models import Report
from tests.unit.doctor.pair_fixture import load_case_site
from tests.unit.roles.fake_systemd import SYSTEMCTL
from tests.unit.roles.test_templates import render

# Several runs of ansible-playbook on a busy machine.
pytestmark = pytest.mark.timeout(180)


class Machine:
    """This machine as the verbs see it: a user's home, systemd's state, a directory of metrics."""

    def __init__(self, root: Path) -> None:
        self.owner = Owner("tester", root / "home", root=False)
        self.systemd = root / "systemd"
        self.metrics = root / "metrics/dspark $pair 100%.prom"
        for folder in (self.owner.unit_dir, self.systemd, self.metrics.parent):
            folder.mkdir(parents=True)
        (self.systemd / "state").write_text('{"known": [], "enabled": [], "active": []}')

    @property
    def state(self) -> str:
        return (self.systemd / "state").read_text()

    @property
    def units(self) -> list[str]:
        return sorted(path.name for path in self.owner.unit_dir.iterdir())

    @property
    def texts(self) -> dict[str, str]:
        return {name: (self.owner.unit_dir / name).read_text() for name in self.units}

    @property
    def wish(self) -> TimerWish:
        return TimerWish(textfile=self.metrics, ignore=("host.clock",))

    def put_in_place(self, *, active: bool = True) -> None:
        """As after an installation."""
        variables = timer_variables(site(), self.wish, self.owner, os.environ)
        for ending in ("service", "timer"):
            text = render(f"dspark-doctor.{ending}.j2", **variables, doctor_timer_timeout_s=120)
            (self.owner.unit_dir / f"{NAME}.{ending}").write_text(text)
        state = {"known": self.units, "enabled": [f"{NAME}.timer"], "active": []}
        (self.systemd / "state").write_text(json.dumps(state | ({"active": [f"{NAME}.timer"]} if active else {})))

    def install(self, every_s: int = 300, *, check: bool = False) -> Report:
        wish = replace(self.wish, every_s=every_s)
        return install(site(), wish, consent=lambda _: None, progress=print, check=check, owner=self.owner)

    def remove(self, *, check: bool = False) -> Report:
        return remove(site(), TimerWish(), consent=lambda _: None, progress=print, check=check, owner=self.owner)


def site() -> LoadedSite:
    return load_case_site()


NAME = unit_name(site().site.name)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: Callable[[str, str], None]) -> Machine:
    made = Machine(tmp_path)
    on_path("systemctl", SYSTEMCTL)
    monkeypatch.setattr(timer, "SYSTEMD", tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FAKE_SYSTEMD", str(made.systemd))
    monkeypatch.setenv("FAKE_UNITS", str(made.owner.unit_dir))
    return made


def test_check_changes_nothing_and_says_what_would_change(machine: Machine) -> None:
    report = machine.install(check=True)
    assert (report.verdict, report.exit_code) == ("planned", 0)
    assert {change.what for change in report.changes} >= {"Write the service", "Write the timer"}
    assert machine.units == []
    assert '"known": []' in machine.state


def test_installed_and_a_second_time_unchanged(machine: Machine) -> None:
    made = machine.install()
    assert (made.verdict, made.exit_code) == ("changed", 0), made
    assert {change.node for change in made.changes} == {"control"}
    assert "loginctl enable-linger tester" in made.message
    files, state = machine.texts, machine.state
    assert machine.install().verdict == "unchanged"
    machine.put_in_place()
    assert (machine.texts, machine.state) == (files, state), "what the next tests begin with is what was installed"


def test_another_interval_restarts_the_timer(machine: Machine) -> None:
    machine.put_in_place()
    assert machine.install(every_s=60).verdict == "changed"
    assert "OnUnitInactiveSec=60" in machine.texts[f"{NAME}.timer"]
    assert f"--user restart {NAME}.timer" in (machine.systemd / "calls").read_text()


def test_a_timer_that_was_stopped_by_hand_is_started_again(machine: Machine) -> None:
    machine.put_in_place(active=False)
    assert [change.what for change in machine.install().changes] == ["Start the timer now and at every boot"]
    assert f'"active": ["{NAME}.timer"]' in machine.state


def test_removed_with_its_metrics_and_a_second_time_unchanged(machine: Machine) -> None:
    machine.put_in_place()
    machine.metrics.write_text("# metrics\n")
    removed = machine.remove()
    assert (removed.verdict, removed.exit_code) == ("changed", 0), removed
    assert machine.units == []
    assert not machine.metrics.exists()
    assert '"enabled": [], "active": []' in machine.state
    assert machine.remove().verdict == "unchanged"


def test_a_systemd_that_fails_leaves_what_the_report_says(
    machine: Machine, on_path: Callable[[str, str], None]
) -> None:
    on_path("systemctl", "sys.exit('Failed to connect to bus')")
    report = machine.install()
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert "Failed to connect to bus" in report.message
    assert report.left


def test_nothing_is_done_where_there_is_no_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "SYSTEMD", tmp_path / "absent")
    with pytest.raises(RefusedError, match="does not run systemd"):
        Machine(tmp_path).install()


def test_a_wrong_wish_is_told_before_anything_is_done(tmp_path: Path) -> None:
    for wish in (TimerWish(textfile=tmp_path / "absent/x.prom"), TimerWish(tmp_path / "x.prom", ignore=("no.such",))):
        with pytest.raises(ConfigError):
            install(site(), wish, consent=lambda _: None, progress=print)


def rendered(owner: Owner, wish: TimerWish, name: str) -> str:
    environ = {"HOME": "/home/a b", "PATH": "/usr/bin:/bin", "OTHER": "1", "XDG_STATE_HOME": ""}
    variables = timer_variables(site(), wish, owner, environ, python="/opt/a b/python")
    return render(name, **variables, doctor_timer_timeout_s=120)


def test_the_service_is_quoted_for_systemd() -> None:
    wish = TimerWish(Path('/m/100% $x "q".prom'), ignore=("fabric.*",))
    text = rendered(Owner("root", Path("/root"), root=True), wish, "dspark-doctor.service.j2")
    lines = text.splitlines()
    (command,) = [line for line in lines if line.startswith("ExecStart=")]
    assert command.startswith('ExecStart="/opt/a b/python" "-m" "dspark_ops" "doctor" "--site" "/')
    assert command.endswith('"--textfile" "/m/100%% $$x \\"q\\".prom" "--ignore" "fabric.*"')
    assert "User=root" in lines
    assert [line for line in lines if line.startswith("Environment=")] == [
        'Environment="HOME=/home/a b"',
        'Environment="PATH=/usr/bin:/bin"',
    ]
    assert "SuccessExitStatus=1 3" in lines


def test_the_file_of_metrics_is_read_back_from_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "a.service"
    assert installed_textfile(unit) is None
    wish = TimerWish(Path('/m/100% $x "q" \\.prom'))
    unit.write_text(rendered(Owner("a", tmp_path, root=False), wish, "dspark-doctor.service.j2"))
    assert installed_textfile(unit) == wish.textfile
    assert "User=" not in unit.read_text()
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert installed_textfile(unit) is None


def test_a_line_end_does_not_get_into_a_unit() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        unit_word("a\nExecStartPre=b")


@pytest.mark.parametrize(
    ("site_name", "unit"), [("lab", "dspark-doctor-lab"), ("My_Pair-2", "dspark-doctor-My_Pair-2")]
)
def test_a_plain_site_keeps_its_name(site_name: str, unit: str) -> None:
    assert unit_name(site_name) == unit


def test_two_sites_never_share_a_unit() -> None:
    names = {unit_name(name) for name in ("a b", "a/b", "a-b", "../x", "")}
    assert len(names) == 5
    assert all("/" not in name for name in names)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_itself_accepts_the_units(tmp_path: Path) -> None:
    owner = Owner("root", Path("/root"), root=True)
    variables = timer_variables(site(), TimerWish(tmp_path / "a.prom"), owner, os.environ, python="/bin/true")
    for ending in ("service", "timer"):
        text = render(f"dspark-doctor.{ending}.j2", **variables, doctor_timer_timeout_s=120)
        (tmp_path / f"{variables['doctor_timer_name']}.{ending}").write_text(text)
    units = [str(path) for path in sorted(tmp_path.glob("dspark-doctor-*"))]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False, timeout=30
    )
    told = [line for line in done.stderr.splitlines() if "dspark-doctor" in line]
    assert told == [], done.stderr


def test_a_directory_is_never_removed_in_place_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "SYSTEMD", tmp_path)
    monkeypatch.setattr(timer, "run_playbook", lambda *_, **__: pytest.fail("it went on"))
    (tmp_path / "all-metrics").mkdir()
    wish = TimerWish(textfile=tmp_path / "all-metrics")
    with pytest.raises(ConfigError, match="is no file"):
        remove(site(), wish, consent=print, progress=print, owner=Owner("tester", tmp_path, root=False))
