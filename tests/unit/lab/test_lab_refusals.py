"""Bad circumstances end in one clear error before anything is made."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from dspark_ops.errors import ConfigError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.lab import pair, prerequisites
from dspark_ops.lab.lab_lock import lab_lock
from dspark_ops.lab.vm import pair as vm_pair


def quiet(_: str) -> None:
    pass


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these programs be absent."""

    def which(name: str, **_: object) -> str | None:
        return None if name in names else name

    monkeypatch.setattr(shutil, "which", which)


def test_missing_programs_are_named_in_one_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "mmdebstrap", "dockerd")
    with pytest.raises(ConfigError) as caught:
        prerequisites.ensure(engine_answers=False, install=False, progress=quiet)
    assert "mmdebstrap, dockerd" in caught.value.message
    assert "apt-get install -y --no-install-recommends docker.io mmdebstrap" in (caught.value.hint or "")
    assert "--install-prerequisites" in (caught.value.hint or "")


def test_no_dockerd_is_needed_where_an_engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "dockerd")
    assert "dockerd" not in {p.name for p in prerequisites.missing(engine_answers=True)}


def test_not_root_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="needs root") as caught:
        pair.up()
    assert caught.value.exit_code is ExitCode.USAGE


def test_not_linux_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(ConfigError, match="this is Darwin"):
        pair.down()


@pytest.mark.parametrize("cables", [0, 3])
def test_a_spark_has_two_cages(cables: int) -> None:
    with pytest.raises(ConfigError, match="1 or 2"):
        pair.up(cables=cables)


def test_a_second_run_waits_then_names_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lab.lock"
    said: list[str] = []
    held, done = multiprocessing.Event(), multiprocessing.Event()

    def hold() -> None:
        with lab_lock(path, wait_s=1, progress=quiet):
            held.set()
            done.wait(20)

    holder = multiprocessing.get_context("fork").Process(target=hold)
    holder.start()
    try:
        assert held.wait(10)
        with pytest.raises(RefusedError, match=f"pid {holder.pid}"), lab_lock(path, wait_s=0.6, progress=said.append):
            pass
        assert said == [f"waiting for another dspark-ops lab command (pid {holder.pid})"]
    finally:
        done.set()
        holder.join(10)
    with lab_lock(path, wait_s=1, progress=quiet):
        assert path.read_text().strip() == str(os.getpid())


def test_a_lock_file_removed_by_its_holder_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "lab.lock"
    with lab_lock(path, wait_s=1, progress=quiet):
        path.unlink()
        with lab_lock(path, wait_s=1, progress=quiet):
            assert path.exists()


def test_the_vm_pair_needs_the_emulator_and_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "qemu-system-x86_64", "qemu-img", "dockerd")
    with pytest.raises(ConfigError) as caught:
        prerequisites.ensure_all(prerequisites.FOR_VMS, install=False, verb="dspark-ops lab up --vm", progress=quiet)
    assert "qemu-system-x86_64, qemu-img" in caught.value.message
    assert "install -y --no-install-recommends qemu-system-x86 qemu-utils" in (caught.value.hint or "")
    assert "`dspark-ops lab up --vm --install-prerequisites`" in (caught.value.hint or "")


@pytest.mark.parametrize("verb", ["up", "reset", "down"])
def test_the_vm_pair_refuses_what_is_no_linux(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(ConfigError, match="this is Darwin"):
        getattr(vm_pair, verb)()


def test_a_reset_or_a_cable_without_a_pair_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(RefusedError, match="not up"):
        vm_pair.reset()
    with pytest.raises(RefusedError, match="not up"):
        vm_pair.set_cable("1", plugged=False)
