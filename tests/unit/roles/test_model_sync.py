"""The worker's side of a mirror, from real servers on loopback: all rails at once, a lost rail, a rotten source."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.roles.conftest import PLAYBOOKS, Call, load

REPO = "acme/tiny-moe"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return load(PLAYBOOKS / "files/rail_server.py", "rail_server")


class Pair:
    """The head's blobs behind one server a rail, and the worker's cache."""

    def __init__(self, call: Call, program: ModuleType, tmp_path: Path) -> None:
        self.call = call
        self.head, self.cache, self.records = tmp_path / "head", tmp_path / "cache", tmp_path / "records"
        self.blobs = self.cache / "models--acme--tiny-moe" / "blobs"
        self.head.mkdir()
        self.files = []
        for number in range(6):
            content = hashlib.shake_128(b"%d" % number).digest((2 << 20) + number)
            digest = hashlib.sha256(content).hexdigest()
            blob = digest if number else hashlib.sha1(content, usedforsecurity=False).hexdigest()
            (self.head / blob).write_bytes(content)
            self.files.append({"name": f"model-{number}", "size": len(content), "blob": blob, "sha256": digest})
        self.servers = [program.RailServer(self.head, "127.0.0.1", None) for _ in range(2)]
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def total(self) -> int:
        return sum(int(file["size"]) for file in self.files)  # type: ignore[call-overload]

    def rails(self) -> list[dict[str, Any]]:
        device = "lo" if os.geteuid() == 0 else None
        return [{"name": f"p{n}a", "address": "127.0.0.1", "local": "127.0.0.1", "device": device} for n in range(2)]

    def doors(self) -> list[dict[str, Any]]:
        return [{"port": server.server_address[1], "token": server.token} for server in self.servers]

    def bring(self, **more: Any) -> dict[str, Any]:
        given = {"rails": self.rails(), "doors": self.doors(), "files": self.files, "silence_s": 0.5} | more
        return self.call(
            "dspark_model_sync", step="fetch", repo=REPO, cache=str(self.cache), records=str(self.records), **given
        )


@pytest.fixture
def pair(call: Call, program: ModuleType, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(call, program, tmp_path)
    yield made
    for server in made.servers:
        server.shutdown()
        server.server_close()


def test_all_rails_carry_at_once_and_every_blob_arrives_proven(pair: Pair) -> None:
    done = pair.bring()["dspark_summary"]
    assert done["came_bytes"] == pair.total
    assert set(done["rails"]) == {"p0a", "p1a"}
    assert sum(done["rails"].values()) == pair.total
    assert {path.name for path in pair.blobs.iterdir()} == {file["blob"] for file in pair.files}
    for path in pair.blobs.iterdir():
        assert path.read_bytes() == (pair.head / path.name).read_bytes()


def test_a_second_time_nothing_is_moved_or_changed(pair: Pair) -> None:
    pair.bring()
    done = pair.bring()
    assert (done["changed"], done["dspark_summary"]["came_bytes"]) == (False, 0)


def test_what_an_earlier_run_left_is_kept_and_a_rotten_blob_is_replaced(pair: Pair) -> None:
    pair.bring()
    first, second = pair.files[1]["blob"], pair.files[2]["blob"]
    (pair.blobs / str(first)).rename(pair.blobs / f"{first}.incomplete")
    os.truncate(pair.blobs / f"{first}.incomplete", 1 << 20)
    with (pair.blobs / str(second)).open("r+b") as out:
        out.seek(1000)
        out.write(b"rotten")
    done = pair.bring()["dspark_summary"]
    assert done["came_bytes"] == int(str(pair.files[1]["size"])) - (1 << 20) + int(str(pair.files[2]["size"]))
    for blob in (str(first), str(second)):
        assert (pair.blobs / blob).read_bytes() == (pair.head / blob).read_bytes()


def test_a_rail_that_goes_silent_is_given_up_and_the_other_carries_its_files(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ansible.module_utils.dspark_rail_fetch as fetching

    monkeypatch.setattr(fetching, "_ATTEMPT_S", 0.3)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        doors = pair.doors()
        doors[0]["port"] = silent.getsockname()[1]
        done = pair.bring(doors=doors)["dspark_summary"]
    assert (done["came_bytes"], set(done["rails"])) == (pair.total, {"p1a"})
    assert "nothing came" in done["lost"]["p0a"]


def test_without_any_rail_it_ends_and_says_what_is_kept(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    import ansible.module_utils.dspark_rail_fetch as fetching

    monkeypatch.setattr(fetching, "_ATTEMPT_S", 0.3)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        doors = [door | {"port": silent.getsockname()[1]} for door in pair.doors()]
        failed = pair.bring(doors=doors)
    assert "p0a: nothing came" in failed["msg"]
    assert f"0 of {pair.total} bytes are kept here" in failed["msg"]
    assert failed["msg"].endswith("[weights.sync_silent]")
    assert pair.bring()["dspark_summary"]["came_bytes"] == pair.total


def test_a_head_whose_blob_is_rotten_is_named_and_its_bytes_are_thrown_away(pair: Pair) -> None:
    blob = str(pair.files[3]["blob"])
    (pair.head / blob).write_bytes(b"x" * int(str(pair.files[3]["size"])))
    failed = pair.bring()
    assert failed["msg"].startswith("model-3: ")
    assert failed["msg"].endswith("[weights.sync_digest]")
    assert not [path for path in pair.blobs.iterdir() if path.name.startswith(blob)]


def test_a_file_without_a_sha256_is_never_taken_on_trust(pair: Pair) -> None:
    failed = pair.bring(files=[pair.files[0] | {"sha256": None}])
    assert failed["msg"].endswith("[weights.record]")


def test_without_room_nothing_is_written(pair: Pair) -> None:
    failed = pair.bring(need_bytes=1 << 60)
    assert failed["msg"].endswith("[weights.disk_space]")
    assert list(pair.blobs.iterdir()) == []


def test_a_run_that_nobody_listens_to_ends_and_lets_the_next_one_begin(tmp_path: Path) -> None:
    progress = load(PLAYBOOKS / "module_utils/dspark_model_progress.py", "dspark_model_progress")
    reader, writer = os.pipe()
    with progress.Progress("fetch", 10, tmp_path / "progress.json", listener=writer) as running:
        assert not running.stop.wait(1.2)
        os.close(reader)
        assert running.stop.wait(3)
        assert running.orphaned
    os.close(writer)
    assert list(tmp_path.iterdir()) == []
