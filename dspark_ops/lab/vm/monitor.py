"""QEMU's own protocol (QMP): JSON lines over a Unix socket, one answer to each command, events in between."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from dspark_ops.errors import NoVerdictError

#: A snapshot of a VM under load is the longest command.
_TIMEOUT_S = 120.0


class Monitor:
    """A connection to one emulator, to be used in a `with` block; an emulator has one client at a time."""

    def __init__(self, path: Path, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def __enter__(self) -> Monitor:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(self._timeout_s)
        try:
            self._socket.connect(str(self._path))
            self._lines = self._socket.makefile("r", encoding="utf-8")
            if "QMP" not in self._next():
                raise NoVerdictError(f"{self._path} does not greet as an emulator's monitor does")
            self.execute("qmp_capabilities")
        except OSError as failure:
            self._socket.close()
            raise NoVerdictError(
                f"the emulator does not answer at {self._path}: {failure}",
                hint="`dspark-ops lab down --vm`, then up again",
            ) from failure
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run one command and return what it returns.

        Raises:
            NoVerdictError: the emulator refused it, went away or stayed silent.
        """
        message = {"execute": command, **({"arguments": arguments} if arguments else {})}
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
            while True:
                answer = self._next()
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise NoVerdictError(f"the emulator refused {command}: {answer['error'].get('desc', answer)}")
        except OSError as failure:
            raise NoVerdictError(
                f"the emulator at {self._path} did not end {command}: {failure}",
                hint="`dspark-ops lab down --vm`, then up again",
            ) from failure

    def running(self) -> bool:
        """Whether the virtual processor runs (it does not after `pause`, nor before the first `resume`)."""
        return bool(self.execute("query-status")["running"])

    def pause(self) -> None:
        """Stop the virtual processor."""
        self.execute("stop")

    def resume(self) -> None:
        """Let the virtual processor run."""
        self.execute("cont")

    def save(self, name: str) -> None:
        """Keep memory and disk under `name` in the disk, in place of an older state of that name."""
        self._human(f"savevm {name}")

    def load(self, name: str) -> None:
        """Go back to what was kept under `name`."""
        self._human(f"loadvm {name}")

    def set_link(self, device: str, *, up: bool) -> None:
        """Plug or pull the cable of a network card."""
        self.execute("set_link", name=device, up=up)

    def reset(self) -> None:
        """Press the reset button: memory is lost, what the disk was given is kept."""
        self.execute("system_reset")

    def quit(self) -> None:
        """End the emulator at once, as pulling the plug would."""
        self.execute("quit")

    def _human(self, line: str) -> None:
        """Run a command that only the human monitor has; whatever it says is why it failed."""
        said = self.execute("human-monitor-command", **{"command-line": line})
        if said.strip():
            raise NoVerdictError(f"the emulator refused {line.split()[0]}: {said.strip()}")

    def _next(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise NoVerdictError(f"the emulator at {self._path} went away in the middle of an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer
