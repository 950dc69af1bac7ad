"""What is kept on disk and sent on sockets: state, journal, evidence, notifications, configuration."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from dspark_ops.supervise.node import evidence
from dspark_ops.supervise.node.config import Config, load_config
from dspark_ops.supervise.node.control import read_request
from dspark_ops.supervise.node.journal import Journal
from dspark_ops.supervise.node.link import Link, LinkError
from dspark_ops.supervise.node.notify import Notifier
from dspark_ops.supervise.node.store import Store
from dspark_ops.supervise.node.strict import DocumentError
from tests.unit.supervise.node.stand_in import PROGRAMS, config_document


def test_the_state_is_whole_after_any_write_and_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    store = Store(path)
    assert (store.load().document, store.load().problem) == (None, None)
    for number in range(3):
        assert store.save({"number": number})
    assert Store(path).load().document == {"number": 2}
    good = path.read_text()
    for bad in (good[:-20], good.replace('"number":2', '"number":3'), "", "[]", good.replace("-state/v1", "-state/v2")):
        path.write_text(bad)
        loaded = Store(path).load()
        assert loaded.document == {"number": 1}
        assert "cannot be trusted" in str(loaded.problem)
    path.unlink()
    assert "is gone" in str(Store(path).load().problem)
    path.write_bytes(b"\xff")
    (tmp_path / "state.json.previous").write_text("{}")
    loaded = Store(path).load()
    assert loaded.document is None
    assert "nor can the copy" in str(loaded.problem)


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    store = Store(path)
    assert store.save({"number": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert not store.save({"number": 2})
        assert "No space left" in str(store.problem)
        assert sorted(os.listdir(tmp_path)) == ["state.json"]  # noqa: PTH208
    assert Store(path).load().document == {"number": 1}
    assert store.save({"number": 2})
    assert store.problem is None


def test_the_journal_is_bounded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", largest=2000)
    for number in range(200):
        journal.write("action", 1.0, number=number)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 5000
    assert json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[-1])["number"] == 199
    assert len(journal.recent) == 50


def test_bundles_are_pruned_and_stay_in_their_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = evidence.Bundles(tmp_path / "evidence", keep=2)
    for number in range(4):
        path = bundles.write(f"i{number}", {"head": {"../../escape": evidence.pack("x")}, "worker": "not reached\n"})
        os.utime(path, (number, number))
    assert sorted(path.name for path in (tmp_path / "evidence").iterdir()) == ["i2", "i3"]
    assert (path / "head/escape").read_text() == "x"
    assert (path / "worker/missing.txt").read_text() == "not reached\n"
    assert not (tmp_path / "escape").exists()
    bomb = evidence.pack("0" * (1 << 20)) * 1
    assert len(evidence.unpack(bomb)) <= 1 << 20
    with pytest.raises(ValueError, match=r"damaged|base64|padding"):
        evidence.unpack("AAAA")
    with monkeypatch.context() as patched:
        patched.setattr(evidence, "_ROOM_BYTES", 1 << 60)
        with pytest.raises(OSError, match="are free"):
            bundles.write("i9", {})


def test_systemd_is_told_through_its_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
        assert notifier.watchdog_s == 30.0
        notifier.ready("serving\nREADY=0")
        assert told.recv(999) == b"READY=1\nSTATUS=serving READY=0"
        notifier.progress()
        assert told.recv(999) == b"WATCHDOG=1"
    Notifier({}).progress()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": "v0"}, "schema is 'v0'"),
        ({"wanted": "maybe"}, "wanted is 'maybe'"),
        ({"ranks": None}, "has no ranks"),
        ({"more": 1}, "unknown fields: more"),
        ({"status_port": True}, "a truth value, expected a whole number"),
        ({"webhook": "ftp://x"}, "neither null nor an http"),
        ({"worker": {"addresses": []}}, "one or more addresses"),
    ],
)
def test_a_wrong_configuration_names_its_field(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    path = tmp_path / "supervise.json"
    path.write_text(json.dumps(config_document(tmp_path, 8000, **changes)))
    with pytest.raises(DocumentError, match=said):
        load_config(path)


def test_a_rank_of_another_site_or_name_is_refused(tmp_path: Path) -> None:
    for key, value in (("name", "other"), ("labels", {})):
        document = config_document(tmp_path, 8000)
        document["ranks"]["worker"][key] = value
        with pytest.raises(DocumentError, match=r"ranks\.worker"):
            Config.from_document(document)


def test_requests_of_the_control_socket_are_strict() -> None:
    assert read_request('{"verb": "status"}') == ("status", {})
    for text in ('{"verb": "run"}', '{"verb": "status", "x": 1}', '{"verb": "hold", "reason": "r", "owner": "o"}', "x"):
        with pytest.raises(DocumentError):
            read_request(text)


def test_the_link_tries_management_then_fabric_with_pinned_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "argv"
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\necho "$@" >> {record}\nexit 255\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{PROGRAMS}:{os.environ['PATH']}")
    link = Link(Config.from_document(config_document(tmp_path, 8000)).worker, tmp_path)
    with pytest.raises(LinkError, match=r"management .*fabric") as failed:
        link.ask("memory", timeout_s=10)
    link.close()
    assert not failed.value.reached
    assert link.reachable() == {"management": False, "fabric": False}
    asked = [line for line in record.read_text().splitlines() if line.endswith(" rank")]
    assert [line.split(" -- ")[1] for line in asked] == ["mgmt.worker rank", "fab.worker rank"]
    for word in ("StrictHostKeyChecking=yes", "BatchMode=yes", "IdentitiesOnly=yes", "HostKeyAlias=dspark-worker"):
        assert all(word in line for line in asked)
