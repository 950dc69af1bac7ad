"""Runs one playbook on the pair, streams its events, and sees to it that it ends when we do."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from dspark_ops.ansible_run.command import PlaybookRun, build_argv, build_environment
from dspark_ops.ansible_run.events import EventTail, PlayResult, Tally, TaskEvent, TaskFailure
from dspark_ops.ansible_run.inventory import render_inventory
from dspark_ops.ansible_run.lock import inherited_descriptors
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import Role
from dspark_ops.errors import DsparkError
from dspark_ops.paths import data_dir, state_dir

RC_OVER_TIME = 124
KEEP_RUNS = 20
_POLL_S = 0.05
_GRACE_S = 10.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class _Files:
    """The private directory of one run: what it was given and what it said."""

    folder: Path
    inventory: Path
    variables: Path
    events: Path
    log: Path
    control: Path


def run_playbook(
    name: str,
    loaded: LoadedSite,
    *,
    variables: Mapping[str, object] | None = None,
    host_variables: Mapping[Role, Mapping[str, object]] | None = None,
    check: bool = False,
    diff: bool = False,
    tags: Sequence[str] = (),
    on_event: Callable[[TaskEvent], None] | None = None,
    timeout_s: float = 1800,
) -> PlayResult:
    """Run `playbooks/<name>` against both nodes and return what it did. A failed play is a result, not an exception.

    The child has its own process group, is told to end when this process dies (even by SIGKILL), inherits the site
    lock, and is ended when this process is interrupted: then KeyboardInterrupt goes on to the caller.

    Raises:
        DsparkError: ansible-playbook cannot be started, or ended before the first play.
    """
    files = _prepare(name, loaded, variables or {}, host_variables or {})
    run = PlaybookRun(
        program=_program(),
        playbook=data_dir("playbooks") / name,
        inventory=files.inventory,
        variables=files.variables,
        events=files.events,
        home=state_dir() / "ansible",
        config=Path(__file__).with_name("ansible.cfg"),
        callback_plugins=Path(__file__).with_name("callback_plugins"),
        tags=tuple(tags),
        check=check,
        diff=diff,
    )
    began = time.monotonic()
    total = Tally()
    try:
        rc = _run(run, files, total, on_event, began + timeout_s)
    finally:
        _close_connections(files.control)
    elapsed = round(time.monotonic() - began, 2)
    _explain(rc, total, files, name, timeout_s)
    return PlayResult(
        rc=rc,
        changed=dict(total.changed),
        changes=tuple(total.changes),
        failures=tuple(total.failures),
        unreachable=tuple(dict.fromkeys(total.unreachable)),
        elapsed_s=elapsed,
        log=files.log,
        plays=total.play_seconds(),
    )


def _program() -> Path:
    """ansible-playbook of this very installation: never another one that PATH may find."""
    program = Path(sys.executable).parent / "ansible-playbook"
    if not program.is_file():
        raise DsparkError(
            f"{program} is missing: ansible-core is not installed beside dspark-ops",
            hint="reinstall dspark-ops in its own environment (pipx, or a venv)",
        )
    return program


def _prepare(
    name: str,
    loaded: LoadedSite,
    variables: Mapping[str, object],
    host_variables: Mapping[Role, Mapping[str, object]],
) -> _Files:
    runs = state_dir() / "runs"
    short = uuid.uuid4().hex[:6]
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    folder = runs / f"{stamp}-{name.removesuffix('.yml')}-{short}"
    control = state_dir() / "cp" / short
    try:
        for path in (folder, control, state_dir() / "ansible" / "tmp"):
            path.mkdir(parents=True, mode=0o700, exist_ok=True)
        files = _Files(
            folder=folder,
            inventory=folder / "inventory.json",
            variables=folder / "variables.json",
            events=folder / "events.jsonl",
            log=folder / "ansible.log",
            control=control,
        )
        inventory = render_inventory(loaded.site, host_variables, control_dir=control)
        _write_private(files.inventory, json.dumps(inventory, indent=1, default=str))
        _write_private(files.variables, json.dumps(dict(variables), indent=1, default=str))
        _drop_old(runs)
    except OSError as error:
        raise DsparkError(
            f"the run directory {folder} cannot be written: {error.strerror or error}",
            hint="make the state directory writable and check its free space, or set XDG_STATE_HOME",
        ) from error
    return files


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(text)


def _drop_old(runs: Path) -> None:
    for old in sorted((path for path in runs.iterdir() if path.is_dir()), reverse=True)[KEEP_RUNS:]:
        shutil.rmtree(old, ignore_errors=True)


def _run(
    run: PlaybookRun,
    files: _Files,
    total: Tally,
    on_event: Callable[[TaskEvent], None] | None,
    until: float,
) -> int:
    tail = EventTail(files.events)

    def drain() -> None:
        for event, at in tail.read():
            total.add(event, at)
            if on_event is not None:
                on_event(event)

    with files.log.open("wb") as log, _terminations_interrupt(), _child(run, log) as child:
        while child.poll() is None:
            drain()
            if time.monotonic() > until:
                _end(child)
                drain()
                return RC_OVER_TIME
            time.sleep(_POLL_S)
        drain()
        return child.returncode


@contextlib.contextmanager
def _child(run: PlaybookRun, log: object) -> Iterator[subprocess.Popen[bytes]]:
    parent = os.getpid()

    def die_with_parent() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    try:
        child = subprocess.Popen(
            build_argv(run),
            env=build_environment(run, os.environ),
            cwd=run.home,
            stdin=subprocess.DEVNULL,
            stdout=log,  # type: ignore[call-overload]
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=inherited_descriptors(),
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        raise DsparkError(
            f"{run.program} cannot be started: {error.strerror or error}", hint="reinstall dspark-ops"
        ) from error
    try:
        yield child
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and its group: asked first, then made to; nothing happens when it has ended."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextlib.contextmanager
def _terminations_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end a run as Ctrl-C does, while it lasts (main thread only: others cannot have handlers)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _close_connections(control: Path) -> None:
    """End the shared SSH connections of a run, so that none outlives it, and remove their directory."""
    if control.is_dir():
        for socket in control.iterdir():
            if socket.is_socket():
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    subprocess.run(
                        ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "pair"],
                        stdin=subprocess.DEVNULL,
                        capture_output=True,
                        timeout=5,
                        check=False,
                    )
    shutil.rmtree(control, ignore_errors=True)


def _explain(rc: int, total: Tally, files: _Files, name: str, timeout_s: float) -> None:
    """Give a run that failed without naming a task its reason."""
    if rc == 0 or total.failures:
        if rc == RC_OVER_TIME:
            total.failures.append(_own_failure(f"{name} did not end within {timeout_s:g} s and was ended"))
        return
    last = _last_words(files.log)
    if rc != RC_OVER_TIME and not total.starts:
        raise DsparkError(
            f"ansible-playbook ended with {rc} before the first play of {name}: {last}",
            hint=f"its whole output is in {files.log}",
        )
    doing = f" during {total.starts[-1][0]!r}" if total.starts else ""
    if rc == RC_OVER_TIME:
        total.failures.append(_own_failure(f"{name} did not end within {timeout_s:g} s{doing} and was ended"))
    else:
        total.failures.append(_own_failure(f"ansible-playbook ended with {rc}{doing}: {last}"))


def _own_failure(message: str) -> TaskFailure:
    return TaskFailure(node=None, task="ansible-playbook", message=message)


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "[ERROR]"))]
    return (errors or lines or ["no output"])[-1][:500]
