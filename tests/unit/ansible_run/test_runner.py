"""Running a playbook: results, reasons, and how it ends when we do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from dspark_ops.ansible_run import runner
from dspark_ops.ansible_run.events import TaskEvent
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import KEEP_RUNS, run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import DsparkError
from dspark_ops.paths import data_dir
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


#: A program that had not even begun when its time was over proves nothing, and gets more: on a busy machine alone.
LIMITS_S = (2, 20)


def test_a_run_over_time_is_ended_and_says_so(loaded: LoadedSite, program: Path) -> None:
    write_program(program, PLAY + "emit(kind='task', task=str(os.getpid()))\ntime.sleep(60)")
    pids: list[int] = []
    for limit_s in LIMITS_S:
        began = time.monotonic()
        result = run_playbook(
            "deploy.yml", loaded, on_event=lambda e: pids.append(int(e.task)) if e.task else None, timeout_s=limit_s
        )
        assert time.monotonic() - began < limit_s + 18
        assert result.rc == 124
        assert f"did not end within {limit_s:g} s" in result.failures[-1].message
        if pids:
            break
    assert not alive(pids[0])


def test_over_time_before_the_first_play_is_a_result_too(loaded: LoadedSite, program: Path) -> None:
    write_program(program, "time.sleep(60)")
    result = run_playbook("deploy.yml", loaded, timeout_s=0.5)
    assert (result.rc, result.plays) == (124, ())
    assert [f.message for f in result.failures] == ["deploy.yml did not end within 0.5 s and was ended"]


def test_a_run_that_will_not_end_is_made_to_with_what_it_started(
    loaded: LoadedSite, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_GRACE_S", 0.3)
    write_program(
        program,
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\nchild = os.fork()\n"
        f"open({str(tmp_path)!r} + '/' + ('parent' if child else 'child'), 'w').write(str(os.getpid()))\n"
        f"{PLAY}time.sleep(60)",
    )
    for limit_s in LIMITS_S:
        assert run_playbook("deploy.yml", loaded, timeout_s=limit_s).rc == 124
        if (tmp_path / "child").exists():
            break
    for name in ("parent", "child"):
        _wait_until_gone(_wait_for_pid(tmp_path / name))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_the_child_has_ended_before_the_caller_sees_what_interrupted_it(
    loaded: LoadedSite, program: Path, kind: type[BaseException]
) -> None:
    write_program(program, PLAY + "emit(kind='task', task=str(os.getpid()))\ntime.sleep(60)")
    pids: list[int] = []

    def interrupt(event: TaskEvent) -> None:
        if event.kind == "task":
            pids.append(int(event.task or ""))
            raise kind

    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(kind):
        run_playbook("deploy.yml", loaded, on_event=interrupt)
    assert not alive(pids[0])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == handlers


def test_the_child_holds_the_site_lock_with_us(loaded: LoadedSite, program: Path) -> None:
    """Our lock's file is open in the child: when we are killed, whoever still works for us keeps it."""
    write_program(
        program,
        EMIT
        + "held = [os.readlink('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd') "
        + "if os.path.exists('/proc/self/fd/' + fd)]\nemit(kind='play', play=' '.join(held))",
    )
    with site_lock("desk"):
        held = run_playbook("deploy.yml", loaded).plays[0][0]
    assert held.count("locks/desk.lock") == 1
    assert "desk.lock" not in run_playbook("deploy.yml", loaded).plays[0][0]


def test_what_the_program_is_given_is_private_and_nothing_comes_from_where_we_stand(
    loaded: LoadedSite, program: Path, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ansible.cfg, a playbook and a variable of the directory or the shell that the operator happens to be in."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "ansible.cfg").write_text("[defaults]\nhost_key_checking = false\n")
    (here / "deploy.yml").write_text("[]\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("ANSIBLE_CONFIG", "ansible.cfg")
    write_program(
        program,
        EMIT
        + "modes = [oct(os.stat(sys.argv[sys.argv.index(name) + 1].lstrip('@')).st_mode & 0o777)\n"
        + "         for name in ('--inventory', '--extra-vars')]\n"
        + "emit(kind='play', play=json.dumps([os.getcwd(), os.environ['ANSIBLE_CONFIG'], sys.argv, modes]))",
    )
    secret = {"pass_word": "hunter2"}
    result = run_playbook("deploy.yml", loaded, variables=secret, tags=("image",), check=True)
    cwd, config, argv, modes = json.loads(result.plays[0][0])
    assert cwd == str(state / "ansible")
    assert config == str(Path(runner.__file__).with_name("ansible.cfg"))
    assert argv[-1] == str(data_dir("playbooks") / "deploy.yml")
    assert argv[-4:-1] == ["--tags", "image", "--check"]
    assert "hunter2" not in " ".join(argv)
    assert modes == ["0o600", "0o600"]


def test_the_program_is_the_one_beside_our_python_whatever_path_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "ansible-playbook", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runner._program() == Path(sys.executable).parent / "ansible-playbook"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))
    with pytest.raises(DsparkError, match="ansible-core is not installed beside dspark-ops"):
        runner._program()


def test_a_state_directory_that_cannot_be_written_is_an_error_with_a_hint(
    loaded: LoadedSite, program: Path, state: Path
) -> None:
    write_program(program, PLAY)
    state.parent.write_text("a file, no directory")
    with pytest.raises(DsparkError) as caught:
        run_playbook("deploy.yml", loaded)
    assert str(state) in caught.value.message
    assert "XDG_STATE_HOME" in (caught.value.hint or "")


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
        import signal
        from pathlib import Path
        from dspark_ops.ansible_run import runner
        # Started in the background by a shell, a process ignores SIGINT; an operator's does not.
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
    _wait_until_gone(child)


def _wait_until_gone(pid: int) -> None:
    until = time.monotonic() + 30
    while alive(pid):
        assert time.monotonic() < until, "it outlived its caller"
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
