"""What the daemon asks of a node and when: in the process of the test, without a pair."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.supervise.core.model import Action, Settings
from dspark_ops.supervise.node import containers, evidence, holders, sight
from dspark_ops.supervise.node.config import Api, Canary, Config, Gate, WorkerLink
from dspark_ops.supervise.node.control import ControlServer, request
from dspark_ops.supervise.node.evidence import Bundles
from dspark_ops.supervise.node.eyes import Clock, Eyes
from dspark_ops.supervise.node.hands import Hands
from dspark_ops.supervise.node.journal import Journal
from dspark_ops.supervise.node.link import Link

SETTINGS = Settings(memory_needed_gib=1.0)
ENDED = "c0ffee" * 10


def _config(root: Path) -> Config:
    worker = WorkerLink((("management", "192.0.2.1"),), "root", 22, root / "key", root / "known")
    api = Api("http://127.0.0.1:1", "m", Canary("p", "e", 8, thinking=False))
    return Config("desk", "stopped", api, worker, Gate(), None, {"memory_needed_gib": 1.0})


class _Link(Link):
    """Answers what it is given and keeps what it was asked."""

    def __init__(self, config: Config, root: Path) -> None:
        super().__init__(config.worker, root)
        self.asked: list[dict[str, Any]] = []
        self.boot_id = "boot-1"

    def ask(self, verb: str, *, timeout_s: float, **fields: Any) -> Any:
        assert timeout_s > 0
        self.asked.append({"verb": verb, **fields})
        if verb != "look":
            return "done"
        slow = {"ended_in_order": self.boot_id == "boot-1", "clock_synced": True} if fields["slow"] else {}
        return {"boot_id": self.boot_id, "boot_s": 42.0, "container": None, "container_known": True, **slow}


def _eyes(root: Path) -> tuple[Eyes, _Link]:
    link = _Link(_config(root), root)
    return Eyes(_config(root), SETTINGS, link, Clock(), lambda: None), link


def test_the_first_look_after_a_boot_asks_how_the_last_one_ended(tmp_path: Path) -> None:
    """What the boot before told of itself must not be taken for this one: a reset would pass for a shutdown."""
    eyes, link = _eyes(tmp_path)
    assert eyes._look_worker().ended_in_order is True
    assert eyes._look_worker().ended_in_order is True
    assert [asked["slow"] for asked in link.asked] == [True, False]
    link.boot_id = "boot-2"
    seen = eyes._look_worker()
    assert (seen.boot_id, seen.ended_in_order, seen.up_s) == ("boot-2", False, 42.0)


def test_it_looks_every_second_while_the_pair_is_down_and_as_configured_else(tmp_path: Path) -> None:
    eyes, _ = _eyes(tmp_path)
    eyes.hurry(nodes=True, engine=False)
    assert [look.every_s for look in eyes.looks.values()] == [1.0, 1.0]
    assert eyes._engine.every_s == SETTINGS.probe_s
    eyes.hurry(nodes=False, engine=True)
    assert [look.every_s for look in eyes.looks.values()] == [SETTINGS.probe_s] * 2
    assert eyes._engine.every_s == 1.0


def _process(proc: Path, pid: int, states: str, group: str = ENDED) -> None:
    """A process of /proc with one thread per state; the first leads."""
    for offset, state in enumerate(states):
        task = proc / str(pid) / "task" / str(pid + offset)
        task.mkdir(parents=True)
        (task / "stat").write_text(f"{pid + offset} (VLLM) Worker (x) {state} 1 1 1 0 -1\n")
    (proc / str(pid) / "comm").write_text("VLLM::Worker\n")
    (proc / str(pid) / "cgroup").write_text(f"0::/system.slice/docker-{group}.scope\n")


def test_what_an_ended_rank_left_is_told_unless_it_holds_nothing(tmp_path: Path) -> None:
    _process(tmp_path, 100, "D")
    _process(tmp_path, 200, "ZZ")
    _process(tmp_path, 300, "ZD")
    _process(tmp_path, 400, "R", group="another")
    told = holders.of_ended(ENDED, tmp_path)
    assert sorted(word for line in told for word in line.split() if word[:1].isdigit()) == ["100)", "300)"]


def test_ports_that_nobody_can_tell_about_are_not_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "look", lambda: None)
    monkeypatch.setattr(sight, "_kernel", list)
    assert sight.look_here(ports=[8000], proc=tmp_path)["port_holders"]
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text("  sl  local_address\n")
    assert sight.look_here(ports=[8000], proc=tmp_path)["port_holders"] == []


def test_a_rank_is_given_the_grace_that_was_decided(tmp_path: Path) -> None:
    eyes, link = _eyes(tmp_path)
    hands = Hands(
        _config(tmp_path), SETTINGS, link, eyes, Bundles(tmp_path, 1), Journal(tmp_path / "journal"), Clock(), dict
    )
    hands._perform(Action(kind="stop_worker", reason="r", role="worker", epoch="e", limit_s=2.0))
    hands._perform(Action(kind="stop_worker", reason="r", role="worker", epoch="e"))
    assert [asked["grace_s"] for asked in link.asked] == [2, int(SETTINGS.stop_grace_s)]


def test_evidence_is_asked_for_within_what_a_node_accepts_however_little_time_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "gather_here", lambda _: {"meminfo.txt": "packed"})
    eyes, link = _eyes(tmp_path)
    hands = Hands(
        _config(tmp_path), SETTINGS, link, eyes, Bundles(tmp_path, 1), Journal(tmp_path / "journal"), Clock(), dict
    )
    parts: dict[str, dict[str, str] | str] = {}
    hands._gather("head", 1.0, parts)
    assert parts["head"] == {"meminfo.txt": "packed"}


def test_the_control_socket_outlives_a_moment_without_file_handles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()
    accept = socket.socket.accept

    def first_fails(self: socket.socket) -> Any:
        if not failed.is_set():
            failed.set()
            raise OSError(24, "Too many open files")
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", first_fails)
    path = tmp_path / "socket"
    server = ControlServer(path, lambda verb, _: {"verb": verb})
    try:
        assert failed.wait(60)
        assert json.dumps(request(path, "status")) == '{"verb": "status"}'
    finally:
        server.close()
