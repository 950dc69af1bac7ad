"""The monitor's client against a small server that speaks the emulator's protocol."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.errors import NoVerdictError
from dspark_ops.lab.vm.monitor import Monitor

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}
Answer = Callable[[dict[str, Any]], list[dict[str, Any]] | None]


@contextmanager
def emulator(path: Path, answer: Answer, greeting: dict[str, Any] = GREETING) -> Iterator[list[dict[str, Any]]]:
    """A server at `path`; yields the commands it was given. An answer of None closes the connection."""
    heard: list[dict[str, Any]] = []
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen(1)

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as lines:
            lines.write(json.dumps(greeting) + "\n")
            lines.flush()
            for line in lines:
                heard.append(json.loads(line))
                said = [{"return": {}}] if heard[-1]["execute"] == "qmp_capabilities" else answer(heard[-1])
                if said is None:
                    return
                lines.write("".join(json.dumps(item) + "\n" for item in said))
                lines.flush()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        server.close()
        thread.join(5)


def test_capabilities_are_negotiated_before_the_first_command(tmp_path: Path) -> None:
    with emulator(tmp_path / "m", lambda _: [{"return": {}}]) as heard, Monitor(tmp_path / "m") as monitor:
        monitor.pause()
        monitor.resume()
    assert [item["execute"] for item in heard] == ["qmp_capabilities", "stop", "cont"]


def test_events_between_command_and_answer_are_no_answers(tmp_path: Path) -> None:
    event = {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}
    answer: Answer = lambda _: [event, event, {"return": {"running": False, "status": "paused"}}]  # noqa: E731
    with emulator(tmp_path / "m", answer), Monitor(tmp_path / "m") as monitor:
        assert monitor.running() is False


def test_a_refused_command_is_an_error_with_what_the_emulator_said(tmp_path: Path) -> None:
    answer: Answer = lambda _: [{"error": {"class": "DeviceNotFound", "desc": "Device 'nic-x' not found"}}]  # noqa: E731
    with (
        emulator(tmp_path / "m", answer),
        Monitor(tmp_path / "m") as monitor,
        pytest.raises(NoVerdictError, match="refused set_link: Device 'nic-x' not found"),
    ):
        monitor.set_link("nic-x", up=False)


def test_a_snapshot_that_says_anything_has_failed(tmp_path: Path) -> None:
    answer: Answer = lambda _: [{"return": "Error: Snapshot 'clean' does not exist in one or more devices\r\n"}]  # noqa: E731
    with (
        emulator(tmp_path / "m", answer) as heard,
        Monitor(tmp_path / "m") as monitor,
        pytest.raises(NoVerdictError, match="refused loadvm: Error: Snapshot 'clean' does not exist"),
    ):
        monitor.load("clean")
    assert heard[-1]["arguments"] == {"command-line": "loadvm clean"}


def test_a_silent_snapshot_has_been_taken(tmp_path: Path) -> None:
    with emulator(tmp_path / "m", lambda _: [{"return": ""}]) as heard, Monitor(tmp_path / "m") as monitor:
        monitor.save("clean")
    assert heard[-1]["arguments"] == {"command-line": "savevm clean"}


def test_an_emulator_that_goes_away_is_no_answer(tmp_path: Path) -> None:
    with (
        emulator(tmp_path / "m", lambda _: None),
        Monitor(tmp_path / "m") as monitor,
        pytest.raises(NoVerdictError, match=r"went away|did not end"),
    ):
        monitor.pause()


def test_an_emulator_that_stays_silent_is_given_up(tmp_path: Path) -> None:
    with (
        emulator(tmp_path / "m", lambda _: []),
        Monitor(tmp_path / "m", timeout_s=0.2) as monitor,
        pytest.raises(NoVerdictError, match="did not end stop"),
    ):
        monitor.pause()


def test_no_socket_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(NoVerdictError, match="does not answer at"), Monitor(tmp_path / "none"):
        pass


def test_another_service_at_the_socket_is_not_taken_for_an_emulator(tmp_path: Path) -> None:
    with (
        emulator(tmp_path / "m", lambda _: [], greeting={"hello": "there"}),
        pytest.raises(NoVerdictError, match="does not greet"),
        Monitor(tmp_path / "m"),
    ):
        pass
