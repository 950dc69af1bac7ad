"""Bare processes as tenants: real ones of this machine, ended as a tree and started again as they were."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import dspark_tenant_processes as bare

from tests.unit.roles.tenant_node import Killer, TenantNode, prepare

Starter = Callable[..., dict[str, Any]]


@pytest.fixture
def tenant_node(tmp_path: Path, on_path: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> TenantNode:
    return prepare(tmp_path, on_path, monkeypatch)


@pytest.fixture
def killer(tenant_node: TenantNode, monkeypatch: pytest.MonkeyPatch) -> Killer:
    return Killer(monkeypatch)


@pytest.fixture
def start(tmp_path: Path, tenant_node: TenantNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starter]:
    """Start a program away from the tests, as from a login that is over; it is killed in the end."""
    monkeypatch.setattr(bare, "_RESPAWN_WAIT_S", 0.5)
    mark = f"tenant-of-{os.getpid()}-{time.monotonic_ns()}"

    def begin(text: str, *, kind: str = "process", program: tuple[str, ...] = (sys.executable, "-IS", "-c")) -> Any:
        script = shlex.join((*program, text, mark))
        log = tmp_path / "log"
        subprocess.run(
            ["sh", "-c", f"cd {tmp_path} && umask 027 && COLOUR='deep blue' setsid {script} >{log} 2>/dev/null &"],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        until = time.monotonic() + 30
        while not (found := [stat for stat in _stats(mark) if stat["session"] == stat["pid"]]):
            assert time.monotonic() < until
            time.sleep(0.02)
        stat = found[-1]
        told = {"pid": stat["pid"], "start_ticks": stat["start_ticks"]}
        return {"key": f"{kind}:python/{stat['pid']}", "kind": kind, "what": "it", "process": told, "members": []}

    yield begin
    for pid in _pids(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, 9)


def _pids(mark: str) -> list[int]:
    return [pid for pid in bare.processes() if mark in bare.command_line(pid)]


def _stats(mark: str) -> list[dict[str, Any]]:
    """Those that are past `setsid`, oldest first."""
    table = bare.processes()
    mine = [table[pid] for pid in _pids(mark) if pid in table and bare.command_line(pid)[:1] != ["setsid"]]
    return sorted(mine, key=lambda stat: int(stat["start_ticks"]))


def _alive(tenant: dict[str, Any]) -> bool:
    return bare.is_alive(tenant["process"]["pid"], tenant["process"]["start_ticks"])


@pytest.fixture(autouse=True)
def _memory_returns(tenant_node: TenantNode, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = itertools.count(1 << 20, 4 << 20)
    monkeypatch.setattr("ansible.module_utils.dspark_tenant_transactions.available_kib", lambda: next(answers))


SLEEPS = "import time\nprint('up', flush=True)\ntime.sleep(600)"


def test_it_comes_back_as_it_was_only_by_consent(tenant_node: TenantNode, start: Starter, tmp_path: Path) -> None:
    tenant = start(SLEEPS)
    pid = tenant["process"]["pid"]
    before = bare._definition(pid, bare.processes())
    assert tenant_node.evict(tenant).outcome == "evicted"
    assert not _alive(tenant)
    asked = tenant_node.restore()
    assert [(result.outcome, result.consent, result.changed) for result in asked] == [("left", True, False)]
    assert "--start-processes" in asked[0].sentence
    done = tenant_node.restore(start_processes=True)
    assert [result.outcome for result in done] == ["restored"]
    now = int(done[0].sentence.rsplit(" ", 1)[1])
    after = bare._definition(now, bare.processes())
    changing = ("pid", "start_ticks")
    assert {k: v for k, v in after.items() if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }
    assert bare.environment(after) == {**bare.environment(after), "COLOUR": "deep blue"}
    assert os.getsid(now) == now
    until = time.monotonic() + 30
    while (tmp_path / "log").read_text() != "up\nup\n" and time.monotonic() < until:
        time.sleep(0.05)
    assert (tmp_path / "log").read_text() == "up\nup\n"
    assert tenant_node.states() == ["restored"]
    assert not list(tenant_node.records.glob("*.env.json")), "a kept environment may hold secrets"
    assert tenant_node.restore(start_processes=True) == []


def test_the_environment_is_for_root_and_no_record(tenant_node: TenantNode, start: Starter) -> None:
    tenant_node.evict(start(SLEEPS))
    kept = sorted(path.name for path in tenant_node.records.glob("*.json"))
    assert kept == ["run-1.env.json", "run-1.json"]
    assert "deep blue" not in (tenant_node.records / "run-1.json").read_text()
    assert oct((tenant_node.records / "run-1.env.json").stat().st_mode & 0o777) == "0o600"


def test_its_children_end_with_it(tenant_node: TenantNode, start: Starter) -> None:
    tenant = start("import os, time\nos.fork()\nos.fork()\ntime.sleep(600)")
    pid = tenant["process"]["pid"]
    until = time.monotonic() + 30
    while len(bare.tree({pid}, bare.processes())) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    members = {one: bare.processes()[one]["start_ticks"] for one in bare.tree({pid}, bare.processes())}
    assert len(members) == 4
    assert tenant_node.evict(tenant).outcome == "evicted"
    assert not any(bare.is_alive(one, ticks) for one, ticks in members.items())


def test_a_script_that_starts_it_again_is_its_owner(tenant_node: TenantNode, start: Starter) -> None:
    owner = start("while :; do sleep 601; done", program=("sh", "-c"))
    until = time.monotonic() + 30
    while not (born := [p for p, s in bare.processes().items() if s["ppid"] == owner["process"]["pid"]]):
        assert time.monotonic() < until
        time.sleep(0.02)
    child = {"pid": born[0], "start_ticks": bare.processes()[born[0]]["start_ticks"]}
    tenant = {**owner, "key": f"process:sleep/{born[0]}", "process": child}
    assert tenant_node.evict(tenant).outcome == "evicted"
    assert not _alive(owner)
    assert not _alive(tenant)
    done = tenant_node.restore(start_processes=True)
    assert [result.outcome for result in done] == ["restored"]
    assert "while :" in " ".join(bare.command_line(int(done[0].sentence.rsplit(" ", 1)[1])))


STUBBORN = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"


def _wait_until_up(log: Path) -> None:
    """Until it has said so: before that it would still obey."""
    until = time.monotonic() + 30
    while log.read_text() != "up\n":
        assert time.monotonic() < until, "it did not start"
        time.sleep(0.02)


def test_one_that_ignores_sigterm_needs_a_consent(tenant_node: TenantNode, start: Starter, tmp_path: Path) -> None:
    tenant = start(STUBBORN)
    _wait_until_up(tmp_path / "log")
    result = tenant_node.evict(tenant, timeout_s=0.5)
    assert (result.outcome, result.failed) == ("still-runs", True)
    assert _alive(tenant)
    assert tenant_node.evict(tenant, "second", timeout_s=2.0, kill=True).outcome == "evicted"
    assert not _alive(tenant)


def test_an_orphan_is_killed_and_owed_nothing(
    tenant_node: TenantNode, start: Starter, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("ansible.module_utils.dspark_tenant_transactions._ORPHAN_GRACE_S", 2.0)
    tenant = start(STUBBORN, kind="orphan")
    _wait_until_up(tmp_path / "log")
    result = tenant_node.evict(tenant)
    assert result.outcome == "evicted"
    assert "not brought back" in result.sentence
    assert tenant_node.states() == ["ended"]
    assert tenant_node.restore(start_processes=True) == []


def test_a_reused_pid_is_another_process(tenant_node: TenantNode, start: Starter) -> None:
    tenant = start(SLEEPS)
    shown = {**tenant, "process": {**tenant["process"], "start_ticks": tenant["process"]["start_ticks"] - 1}}
    result = tenant_node.evict(shown)
    assert (result.outcome, result.changed) == ("gone", False)
    assert _alive(tenant)


def test_what_is_owed_to_an_earlier_one_of_the_same_pid_stays_owed(tenant_node: TenantNode, start: Starter) -> None:
    first = start(SLEEPS)
    tenant_node.evict(first)
    second = {**start("import time\ntime.sleep(602)"), "key": first["key"]}
    tenant_node.evict(second, "second")
    assert tenant_node.states() == ["stopped", "stopped"]


@pytest.mark.parametrize("step", range(6))
def test_whatever_step_a_kill_comes_at_it_comes_back(
    tenant_node: TenantNode, start: Starter, killer: Killer, step: int
) -> None:
    tenant = start(SLEEPS)
    command = bare.command_line(tenant["process"]["pid"])  # ends in this test's own mark: workers run beside it
    killed = killer.run(step, lambda: tenant_node.evict(tenant))
    assert killed is (step < 5), "the number of steps has changed: mend the range"
    tenant_node.restore(start_processes=True)
    running = [pid for pid in bare.processes() if bare.command_line(pid) == command]
    assert [_colour(pid) for pid in running] == ["deep blue"]
    assert not {"intended", "stopped"} & set(tenant_node.states())


def _colour(pid: int) -> str:
    with suppress(OSError):
        environ = bare.parse_environ((Path("/proc") / str(pid) / "environ").read_bytes())
        return environ.get("COLOUR", "")
    return ""


def test_a_command_that_ends_at_once_stays_owed(tenant_node: TenantNode, start: Starter, tmp_path: Path) -> None:
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\nsleep 603\n")
    program.chmod(0o755)
    tenant = start("x", program=(str(program),))
    tenant_node.evict(tenant)
    program.write_text("#!/bin/sh\nexit 3\n")
    results = tenant_node.restore(start_processes=True)
    assert results[0].outcome == "left"
    assert "ended at once" in results[0].sentence
    assert tenant_node.states() == ["stopped"]
    assert list(tenant_node.records.glob("*.env.json"))
