"""Running a playbook: results, reasons, and how it ends when we do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from dspark_ops.ansible_run.runner import KEEP_RUNS, run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import DsparkError
from tests.unit.ansible_run.conftest import alive, write_program

EMIT = "def emit(**f): open(os.environ['DSPARK_EVENTS'], 'a').write(json.dumps({'time': time.time(), **f}) + '\\n')\n"
PLAY = EMIT + "emit(kind='play', play='Precheck')\n"


def test_nodes_that_refuse_a_connection_are_unreachable_not_failed(loaded: LoadedSite) -> None:
    """The real ansible-playbook, our configuration, callback and inventory, against a closed port."""
    result = run_playbook("deploy.yml", loaded, variables=_image(), tags=("image",), timeout_s=50)
    assert result.rc == 4
    assert set(result.unreachable) == {"head", "worker"}
    assert result.total_changed == 0
    assert all("refused" in failure.message for failure in result.failures)
    assert {failure.play for failure in result.failures} == {"Check image"}


def test_a_missing_variable_is_named_before_any_host_is_asked(loaded: LoadedSite) -> None:
    result = run_playbook("stop.yml", loaded, timeout_s=50)
    assert result.rc == 2
    assert result.unreachable == ()
    assert "rank_service_spec" in result.failures[0].message


def test_events_come_while_it_runs_and_are_summed(loaded: LoadedSite, program: Path) -> None:
    write_program(
        program,
        PLAY + "emit(kind='changed', node='worker', task='Do it')\nemit(kind='end')\nprint('out')",
    )
    seen: list[str] = []
    result = run_playbook("deploy.yml", loaded, on_event=lambda event: seen.append(event.kind))
    assert seen == ["play", "changed", "end"]
    assert (result.rc, result.ok, result.changed) == (0, True, {"head": 0, "worker": 1})
    assert result.log.read_text() == "out\n"
    assert (result.log.parent.stat().st_mode & 0o777) == 0o700


def test_a_program_that_never_gets_to_a_play_is_an_error_with_its_last_words(loaded: LoadedSite, program: Path) -> None:
    write_program(program, "print('[ERROR]: the playbook is not there'); sys.exit(1)")
    with pytest.raises(DsparkError, match="the playbook is not there"):
        run_playbook("deploy.yml", loaded)


def test_a_run_that_dies_without_naming_a_task_still_has_a_failure(loaded: LoadedSite, program: Path) -> None:
    write_program(program, PLAY + "print('boom'); sys.exit(250)")
    result = run_playbook("deploy.yml", loaded)
    assert [(f.node, f.message) for f in result.failures] == [
        (None, "ansible-playbook ended with 250 during 'Precheck': boom")
    ]


def test_a_run_over_time_is_ended_and_says_so(loaded: LoadedSite, program: Path) -> None:
    write_program(program, PLAY + "emit(kind='task', task=str(os.getpid()))\ntime.sleep(60)")
    pids: list[int] = []
    began = time.monotonic()
    result = run_playbook(
        "deploy.yml", loaded, on_event=lambda e: pids.append(int(e.task)) if e.task else None, timeout_s=2
    )
    assert time.monotonic() - began < 20
    assert result.rc == 124
    assert "did not end within 2 s" in result.failures[-1].message
    assert not alive(pids[0])


def test_only_the_newest_runs_are_kept(loaded: LoadedSite, program: Path, state: Path) -> None:
    write_program(program, PLAY)
    for number in range(KEEP_RUNS + 3):
        (state / "runs" / f"20200101T0000{number:02d}-old-x").mkdir(parents=True)
    run_playbook("deploy.yml", loaded)
    assert len(list((state / "runs").iterdir())) == KEEP_RUNS
    assert list((state / "cp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_child_ends_when_we_do(loaded: LoadedSite, program: Path, tmp_path: Path, number: int) -> None:
    write_program(program, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n{PLAY}time.sleep(60)")
    caller = textwrap.dedent(
        f"""
        from pathlib import Path
        from dspark_ops.ansible_run import runner
        from dspark_ops.config.load import load_site
        runner._program = lambda: Path({str(program)!r})
        try:
            runner.run_playbook("deploy.yml", load_site(Path({str(loaded.path)!r}), environ={{}}))
        except KeyboardInterrupt:
            raise SystemExit(130)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", caller], env=dict(os.environ))
    child = _wait_for_pid(tmp_path / "pid")
    process.send_signal(number)
    code = process.wait(20)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    until = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < until, "the child outlived its caller"
        time.sleep(0.05)


def _wait_for_pid(path: Path) -> int:
    until = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until, "the child did not start"
        time.sleep(0.05)
    return int(path.read_text())


def _image() -> dict[str, object]:
    return {
        "engine_image_id": "sha256:" + "1" * 64,
        "engine_image_reference": "dspark-engine-rehearsal:abc",
        "engine_image_archive": None,
    }
