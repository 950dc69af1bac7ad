"""A hub on loopback with a small repository: two shards in LFS, an index and a configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import HubServer

REPO, REVISION = "acme/tiny-moe", hashlib.sha1(b"a commit", usedforsecurity=False).hexdigest()
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def write_repository(folder: Path) -> None:
    """The files of the commit."""
    (folder / "encoding").mkdir(parents=True)
    for number, name in enumerate(SHARDS):
        (folder / name).write_bytes(hashlib.shake_128(name.encode()).digest((3 << 20) + number))
    weights = {f"layer.{number}": name for number, name in enumerate(SHARDS)}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    (folder / "encoding" / "map.py").write_text("# maps\n")
    (folder / "empty.txt").write_text("")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    folder = tmp_path / "upstream"
    write_repository(folder)
    store = HubServer(folder, REPO, REVISION)
    made = HubServer(folder, REPO, REVISION, store=store)
    for server in (store, made):
        server.start()
    yield made
    for server in (made, store):
        server.stop()
