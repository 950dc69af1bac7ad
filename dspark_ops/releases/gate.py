"""The site's gate: what has the last word on a release that is ready, a program of the site's or our own gate."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import GateSite, Profile
from dspark_ops.errors import NoVerdictError
from dspark_ops.releases.model import GateOutcome, GateResult, hide_argv
from dspark_ops.report.models import now
from dspark_ops.report.recorder import Progress
from dspark_ops.transport.forward import forward
from dspark_ops.transport.ssh import SshRunner

_TAIL_LINES = 20
_TAIL_BYTES = 65536
_LINE_CHARS = 400
# From SIGTERM to SIGKILL for a gate that is past its time; it may have something of its own to put away.
_GRACE_S = 5.0
_TICK_S = 15.0


def run_gate(loaded: LoadedSite, runner_head: SshRunner, release_id: str, progress: Progress) -> GateResult | None:
    """Run the site's gate against the release that serves; None: the site has no gate.

    Never raises for a gate that fails, hangs or cannot start: that is the result. Interrupted, it takes the gate with
    it.
    """
    gate = loaded.site.gate
    if gate is None:
        return None
    serve = loaded.site.serve
    began, clock = now(), time.monotonic()
    command = command_of(gate, loaded.profile)
    api_host = "127.0.0.1" if serve.api_host.is_unspecified else str(serve.api_host)
    try:
        with forward(runner_head, api_host, serve.api_port) as local:
            environment = {
                "DSPARK_API_URL": f"http://127.0.0.1:{local.port}",
                "DSPARK_MODEL": loaded.site.model.served_name,
                "DSPARK_RELEASE": release_id,
            }
            result = run_program(command, gate.timeout_s, environment, progress, folder=loaded.path.parent)
            if result.passed or not local.failures:
                return result
            lost = f"; {len(local.failures)} connections to the API were not carried: {local.failures[-1]}"
            return result.model_copy(update={"message": result.message + lost})
    except NoVerdictError as failure:
        return GateResult(
            command=hide_argv(command),
            outcome="not-startable",
            started_at=began,
            elapsed_s=round(time.monotonic() - clock, 2),
            message=f"the gate was not started: {failure.message}",
        )


def command_of(gate: GateSite, profile: Profile) -> tuple[str, ...]:
    """The site's program, or our own gate as a program of its own, so that both have one time limit and one end.

    Our own asks the address in `DSPARK_API_URL`. A model that can say but one text, as a rehearsal's, is asked for it.
    """
    if gate.command is not None:
        return gate.command
    # -P: it runs in the site's folder, whose files are no modules of ours.
    words = (sys.executable, "-P", "-m", "dspark_ops", "gate", gate.builtin or "smoke")
    if profile.gpu:
        return words
    known = {"--known-call": profile.known.call, "--known-long": profile.known.long}
    given = [(option, answer.model_dump_json()) for option, answer in known.items() if answer is not None]
    return (*words, "--known-text", profile.canary.expect, *(word for pair in given for word in pair))


def run_program(
    command: Sequence[str],
    timeout_s: float,
    environment: Mapping[str, str],
    progress: Progress,
    *,
    folder: Path | None = None,
) -> GateResult:
    """Run the gate's command without a shell, in a process group of its own, for at most its time.

    folder: where it runs. Its standard input is empty; both outputs are one text, of which the last lines are kept.
    """
    began, clock = now(), time.monotonic()
    shown = hide_argv(command)
    with tempfile.TemporaryFile() as output:

        def result(outcome: GateOutcome, message: str, rc: int | None = None) -> GateResult:
            elapsed = round(time.monotonic() - clock, 2)
            return GateResult(
                command=shown,
                outcome=outcome,
                rc=rc,
                started_at=began,
                elapsed_s=elapsed,
                message=message,
                tail=_tail(output),
            )

        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return result("not-startable", f"the gate {command[0]} cannot be started: {_reason(error)}")
        try:
            rc = _wait(process, timeout_s, clock, progress)
        finally:
            _end_group(process)
        if rc is None:
            return result("timed-out", f"the gate gave no verdict within {timeout_s:g} s and was ended")
        if rc == 0:
            return result("passed", "the gate passed", rc)
        how = f"was killed by {_signal_name(-rc)}" if rc < 0 else f"ended with {rc}"
        last = next(iter(reversed(_tail(output))), None)
        return result("failed", f"the gate {how}, expected 0" + (f"; its last line: {last}" if last else ""), rc)


def _wait(process: subprocess.Popen[bytes], timeout_s: float, clock: float, progress: Progress) -> int | None:
    """The exit code, or None when the time is over; says now and then that it still waits."""
    while True:
        elapsed = time.monotonic() - clock
        if elapsed >= timeout_s:
            return None
        try:
            return process.wait(timeout=min(_TICK_S, timeout_s - elapsed))
        except subprocess.TimeoutExpired:
            progress(f"gate: {time.monotonic() - clock:.0f} s of at most {timeout_s:g} s")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever of the gate's process group still lives: a request first, then SIGKILL."""
    for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        except PermissionError:
            break  # it became another user's: not ours to end
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and _group_lives(process):
            time.sleep(0.05)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE_S)


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _tail(output: IO[bytes]) -> tuple[str, ...]:
    """The last lines of the gate's output, without what a terminal would obey."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _TAIL_BYTES))
    text = output.read().decode("utf-8", "replace")
    clean = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text.replace("\r\n", "\n"))
    lines = [line.rstrip()[:_LINE_CHARS] for line in clean.split("\n") if line.strip()]
    return tuple(lines[-_TAIL_LINES:])


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.filename}: there is no such file"
    if isinstance(error, OSError):
        return f"{error.filename or 'it'}: {error.strerror or error}"
    return str(error)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
