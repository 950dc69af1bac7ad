"""The head's server and the worker's fetch, on loopback: resumed, checked by digest, with a token or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.roles.conftest import PLAYBOOKS, load

node = load(PLAYBOOKS / "module_utils/dspark_rail_fetch.py", "dspark_rail_fetch")
PROGRAM = PLAYBOOKS / "files/rail_server.py"
LAYER = hashlib.shake_128(b"layer").digest(9 << 20)
NAME = hashlib.sha256(LAYER).hexdigest()


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return load(PROGRAM, "rail_server")


@pytest.fixture
def server(program: ModuleType, tmp_path: Path) -> Iterator[Any]:
    folder = tmp_path / "head"
    folder.mkdir()
    (folder / NAME).write_bytes(LAYER)
    (tmp_path / "secret").write_text("not for the network")
    (folder / ("a" * 64)).symlink_to(tmp_path / "secret")
    made = program.RailServer(folder, "127.0.0.1", "lo" if os.geteuid() == 0 else None)
    thread = threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    folder = tmp_path / "worker"
    folder.mkdir()
    return folder


def source(server: Any, token: str | None = None) -> Any:
    return node.Source("127.0.0.1", server.server_address[1], token or server.token, "127.0.0.1")


def bring(server: Any, folder: Path, **other: Any) -> tuple[int, int]:
    given = {"digest": NAME, "size": len(LAYER), "silence_s": 0.3} | other
    came, kept = node.fetch(source(server), NAME, given["digest"], given["size"], folder, given["silence_s"])
    return came, kept


def test_a_layer_comes_whole_and_a_second_time_nothing_does(server: Any, worker: Path) -> None:
    assert bring(server, worker) == (len(LAYER), 0)
    assert (worker / NAME).read_bytes() == LAYER
    assert bring(server, worker) == (0, len(LAYER))


@pytest.mark.parametrize("have", [1, 4 << 20, len(LAYER) - 1, len(LAYER)])
def test_what_an_earlier_run_kept_is_not_moved_again(server: Any, worker: Path, have: int) -> None:
    (worker / f"{NAME}.part").write_bytes(LAYER[:have])
    assert bring(server, worker) == (len(LAYER) - have, have)
    assert [path.name for path in worker.iterdir()] == [NAME]
    assert (worker / NAME).read_bytes() == LAYER


def test_a_kept_part_with_a_wrong_byte_is_named_and_thrown_away_and_then_it_works(server: Any, worker: Path) -> None:
    (worker / f"{NAME}.part").write_bytes(b"x" + LAYER[1 : 1 << 20])
    with pytest.raises(node.FetchError, match=f"expected sha256:{NAME}; it was thrown away") as failure:
        bring(server, worker)
    assert failure.value.check == "sync_digest"
    assert list(worker.iterdir()) == []
    assert bring(server, worker) == (len(LAYER), 0)


def test_a_complete_file_that_rotted_is_fetched_again(server: Any, worker: Path) -> None:
    (worker / NAME).write_bytes(b"x" + LAYER[1:])
    assert bring(server, worker) == (len(LAYER), 0)
    assert (worker / NAME).read_bytes() == LAYER


def test_another_token_is_refused_at_once(server: Any, worker: Path) -> None:
    began = time.monotonic()
    with pytest.raises(node.FetchError, match="refused our token") as failure:
        node.fetch(source(server, "0" * 64), NAME, NAME, len(LAYER), worker, 20)
    assert failure.value.check == "sync_refused"
    assert time.monotonic() - began < 15, "it waited for the silence of 20 s"


@pytest.mark.parametrize(
    ("path", "token", "span", "status"),
    [
        (f"/{NAME}", None, None, 401),
        (f"/{NAME}", "", None, 401),
        ("/../secret", "right", None, 404),
        (f"/{'a' * 64}", "right", None, 404),
        (f"/{'b' * 64}", "right", None, 404),
        ("/", "right", None, 404),
        (f"/{NAME}", "right", f"bytes={len(LAYER)}-", 416),
        (f"/{NAME}", "right", "bytes=-5", 416),
        (f"/{NAME}", "right", f"bytes={len(LAYER) - 5}-", 206),
    ],
)
def test_the_server_gives_layers_by_range_and_nothing_else(
    server: Any, path: str, token: str | None, span: str | None, status: int
) -> None:
    headers = {} if span is None else {"Range": span}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}".replace("right", server.token)
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert answer.status == status
        assert answer.read() == (LAYER[-5:] if status == 206 else b"")


def test_nothing_but_get_is_answered(server: Any) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)) as connection:
        connection.request("PUT", f"/{NAME}", body=b"x", headers={"Authorization": f"Bearer {server.token}"})
        assert connection.getresponse().status == 501


def test_a_server_that_is_gone_ends_the_fetch_at_once_and_what_came_is_kept(server: Any, worker: Path) -> None:
    """What a killed run left behind must not hold the spool while the next one waits for it."""
    (worker / f"{NAME}.part").write_bytes(LAYER[:1000])
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = node.Source("127.0.0.1", closed.getsockname()[1], server.token)
    began = time.monotonic()
    with pytest.raises(node.FetchError, match="nobody serves") as failure:
        node.fetch(gone, NAME, NAME, len(LAYER), worker, 20)
    assert failure.value.check == "sync_refused"
    assert time.monotonic() - began < 15, "it waited for the silence of 20 s"
    assert bring(server, worker) == (len(LAYER) - 1000, 1000)


class Cutter:
    """Stands between: ends each connection after some bytes, and is silent once it has let `total` through."""

    def __init__(self, server: Any, each: int, total: int) -> None:
        self._behind, self._each, self._left = server.server_address, each, total
        self.token = server.token
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.server_address = self.listener.getsockname()
        self.accepted: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            self.accepted.append(near)
            with socket.create_connection(self._behind) as far:
                far.sendall(near.recv(65536))
                here = min(self._each, self._left)
                while here and (data := far.recv(min(here, 65536))):
                    near.sendall(data)
                    here -= len(data)
                    self._left -= len(data)
            if self._left:
                near.close()


def test_a_connection_that_breaks_is_made_again_and_goes_on_where_it_was(
    server: Any, worker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_PAUSE_S", 0.01)
    cutter = Cutter(server, 2 << 20, 1 << 30)
    with closing(cutter.listener):
        assert bring(cutter, worker, silence_s=5) == (len(LAYER), 0)
    assert len(cutter.accepted) == 5
    assert (worker / NAME).read_bytes() == LAYER


def test_silence_ends_the_fetch_and_what_came_is_kept(
    server: Any, worker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_ATTEMPT_S", 0.3)
    cutter = Cutter(server, 1 << 30, 3 << 20)
    with closing(cutter.listener), pytest.raises(node.FetchError, match="nothing came") as failure:
        bring(cutter, worker, silence_s=0.5)
    assert failure.value.check == "sync_silent"
    kept = (worker / f"{NAME}.part").stat().st_size
    assert 2 << 20 < kept < 3 << 20
    assert bring(server, worker) == (len(LAYER) - kept, kept)


def test_the_program_keeps_its_token_in_a_private_file_and_ends_when_nobody_asks(tmp_path: Path) -> None:
    access = tmp_path / "access.json"
    words = ["--folder", str(tmp_path), "--address", "127.0.0.1", "--access", str(access), "--idle-s", "1"]
    with subprocess.Popen([sys.executable, "-I", str(PROGRAM), *words]) as process:
        try:
            until = time.monotonic() + 30
            while not access.exists() and time.monotonic() < until:
                time.sleep(0.05)
            assert access.stat().st_mode & 0o777 == 0o600
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
