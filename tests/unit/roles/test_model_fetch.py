"""A pinned revision from a hub on loopback into the cache: whole and in the hub's own layout, or said why not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import HubServer
from tests.unit.roles.conftest import Call
from tests.unit.weights.conftest import INDEX, REPO, REVISION, SHARDS, write_repository

TOKEN = "-".join(("hf", "of", "a", "test"))


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


class Node:
    """A node's cache and the modules run on it."""

    def __init__(self, call: Call, hub: HubServer, tmp_path: Path) -> None:
        self.call, self.hub = call, hub
        self.cache, self.records = tmp_path / "cache", tmp_path / "records"
        self.folder = self.cache / "models--acme--tiny-moe"
        self.token: str | None = None

    def module(self, step: str, **more: Any) -> dict[str, Any]:
        given = {"endpoint": self.hub.address, "cache": str(self.cache), "records": str(self.records)}
        quick = {"attempts": 3, "silence_s": 0.5, "pause_s": 0.01, "token": self.token}
        return self.call("dspark_model_fetch", step=step, repo=REPO, revision=REVISION, **given, **quick, **more)

    def manifest(self) -> dict[str, Any]:
        answer = self.module("metadata")
        assert "dspark_summary" in answer, answer
        found: dict[str, Any] = answer["dspark_summary"]["manifest"]
        return found

    def download(self, **more: Any) -> dict[str, Any]:
        return self.module("download", files=self.manifest()["files"], **more)

    def settle(self, files: Any, *, check: bool = False) -> dict[str, Any]:
        document = {"version": 1, "repo": REPO, "revision": REVISION, "files": files}
        return self.call(
            "dspark_model_cache", check=check, cache=str(self.cache), records=str(self.records), document=document
        )

    def fetch(self) -> dict[str, Any]:
        done = self.download()
        assert "dspark_summary" in done, done
        return self.settle(done["dspark_summary"]["files"])

    def blobs(self) -> set[str]:
        return {path.name for path in (self.folder / "blobs").iterdir()}


@pytest.fixture
def node(call: Call, hub: HubServer, tmp_path: Path) -> Node:
    return Node(call, hub, tmp_path)


def test_what_came_is_what_the_hubs_own_library_takes_for_a_whole_snapshot(node: Node, hub: HubServer) -> None:
    from huggingface_hub import scan_cache_dir, snapshot_download

    assert node.fetch()["changed"] is True
    found = Path(snapshot_download(REPO, revision=REVISION, cache_dir=node.cache, local_files_only=True))
    assert found == node.folder / "snapshots" / REVISION
    assert snapshot_download(REPO, cache_dir=node.cache, local_files_only=True) == str(found)
    for name, file in hub.files.items():
        assert (found / name).read_bytes() == file.path.read_bytes()
        assert not (found / name).readlink().is_absolute()
        assert (found / name).resolve().name == (file.sha256 if file.lfs else file.git)
    scanned = scan_cache_dir(node.cache)
    assert not scanned.warnings
    [repo] = scanned.repos
    [revision] = repo.revisions
    assert (repo.repo_id, revision.commit_hash, revision.refs) == (REPO, REVISION, {"main"})
    assert {str(file.file_name) for file in revision.files} == {Path(name).name for name in hub.files}
    assert (node.folder / "refs" / "main").read_bytes() == REVISION.encode()


def test_the_hubs_own_library_lays_the_same_files_in_the_same_way(node: Node, hub: HubServer, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    node.fetch()
    theirs = tmp_path / "theirs"
    snapshot_download(REPO, revision="main", cache_dir=theirs, endpoint=hub.address)

    def tree(root: Path) -> dict[str, str]:
        found = {}
        for path in sorted((root / "models--acme--tiny-moe").rglob("*")):
            inside = str(path.relative_to(root))
            if path.is_symlink():
                found[inside] = f"-> {path.readlink()}"
            elif path.is_file():
                found[inside] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    # It keeps the listing too, which is its own affair.
    assert {k: v for k, v in tree(theirs).items() if "/trees/" not in k} == tree(node.cache)


def test_a_second_time_nothing_is_moved_and_nothing_changes(node: Node, hub: HubServer) -> None:
    node.fetch()
    hub.asked.clear()
    done = node.download()
    assert (done["changed"], done["dspark_summary"]["came_bytes"]) == (False, 0)
    assert node.settle(done["dspark_summary"]["files"])["changed"] is False
    assert [path for _, path, _ in hub.asked if SHARDS[0] in path] == []


@pytest.mark.parametrize("have", [1, 1 << 20, 3 << 20])
def test_what_an_earlier_run_left_is_gone_on_with(node: Node, hub: HubServer, have: int) -> None:
    file = hub.files[SHARDS[0]]
    (node.folder / "blobs").mkdir(parents=True)
    (node.folder / "blobs" / f"{file.sha256}.incomplete").write_bytes(file.path.read_bytes()[:have])
    done = node.download()["dspark_summary"]
    assert done["kept_bytes"] == have
    assert done["came_bytes"] == sum(each.size for each in hub.files.values()) - have
    assert (node.folder / "blobs" / file.sha256).read_bytes() == file.path.read_bytes()
    assert [name for name in node.blobs() if "incomplete" in name] == []


def test_a_wrong_beginning_that_an_earlier_run_left_costs_one_more_download(node: Node, hub: HubServer) -> None:
    file = hub.files[SHARDS[0]]
    (node.folder / "blobs").mkdir(parents=True)
    (node.folder / "blobs" / f"{file.sha256}.incomplete").write_bytes(b"x" * 1000)
    node.fetch()
    assert (node.folder / "blobs" / file.sha256).read_bytes() == file.path.read_bytes()


def test_a_blob_that_rotted_is_fetched_again_and_only_it(node: Node, hub: HubServer) -> None:
    node.fetch()
    file = hub.files["config.json"]
    (node.folder / "blobs" / file.git).write_bytes(b"x" * file.size)
    done = node.download()["dspark_summary"]
    assert done["came_bytes"] == file.size
    assert (node.folder / "blobs" / file.git).read_bytes() == file.path.read_bytes()


@pytest.mark.parametrize("name", [SHARDS[0], "config.json"])
def test_a_corrupted_file_is_thrown_away_and_named(node: Node, hub: HubServer, name: str) -> None:
    hub.harm.corrupt.add(name)
    failed = node.download()
    assert failed["failed"]
    assert name in failed["msg"]
    assert failed["msg"].endswith("[weights.digest]")
    assert not [blob for blob in node.blobs() if blob.startswith(hub.files[name].etag)]
    hub.harm.corrupt.clear()
    assert node.fetch()["changed"] is True


@pytest.mark.parametrize("harm", ["etag", "size", "commit"])
def test_a_file_that_changed_since_the_metadata_is_refused(node: Node, hub: HubServer, harm: str) -> None:
    files = node.manifest()["files"]
    getattr(hub.harm, harm).add(SHARDS[1])
    failed = node.module("download", files=files)
    assert failed["failed"]
    assert f"{SHARDS[1]} changed while it was fetched: the hub now says" in failed["msg"]
    assert failed["msg"].endswith("[weights.changed]")
    assert not (node.folder / "snapshots").exists()


def test_a_connection_that_is_cut_again_and_again_is_gone_on_with(node: Node, hub: HubServer) -> None:
    hub.harm.cut[SHARDS[0]] = 700_000
    node.fetch()
    asked = [span for _, path, span in hub.store.asked if hub.files[SHARDS[0]].sha256 in path] if hub.store else []
    assert len(asked) == 5
    assert asked[:2] == [None, "bytes=700000-"]


def test_a_file_that_is_always_truncated_ends_after_bounded_attempts_and_keeps_what_came(
    node: Node, hub: HubServer
) -> None:
    files = node.manifest()["files"]
    file = hub.files[SHARDS[0]]
    hub.harm.stall.add(SHARDS[0])
    failed = node.module("download", files=files)
    assert failed["failed"]
    assert f"{SHARDS[0]}: nothing came in 3 attempts in a row" in failed["msg"]
    assert f"{file.size // 2} of {file.size} bytes are kept" in failed["msg"]
    assert (node.folder / "blobs" / f"{file.sha256}.incomplete").stat().st_size == file.size // 2
    hub.harm.stall.clear()
    assert node.download()["dspark_summary"]["kept_bytes"] >= file.size // 2


def test_a_server_without_ranges_sends_from_the_beginning(node: Node, hub: HubServer) -> None:
    file = hub.files[SHARDS[0]]
    (node.folder / "blobs").mkdir(parents=True)
    (node.folder / "blobs" / f"{file.sha256}.incomplete").write_bytes(file.path.read_bytes()[:1000])
    hub.harm.no_range.add(SHARDS[0])
    node.fetch()
    assert (node.folder / "blobs" / file.sha256).read_bytes() == file.path.read_bytes()


def test_a_busy_hub_is_asked_again(node: Node, hub: HubServer) -> None:
    hub.harm.busy["config.json"] = 2
    assert node.fetch()["changed"] is True


def test_a_file_that_is_missing_there_is_named(node: Node, hub: HubServer) -> None:
    files = node.manifest()["files"]
    hub.harm.missing.add(SHARDS[0])
    failed = node.module("download", files=files)
    assert f"has no {SHARDS[0]} of {REPO}" in failed["msg"]
    assert failed["msg"].endswith("[weights.hub_absent]")


def test_an_index_that_names_a_shard_which_is_not_there_is_refused(node: Node, hub: HubServer) -> None:
    hub.harm.unlisted.add(SHARDS[1])
    failed = node.module("metadata")
    assert failed["msg"].startswith(f"{INDEX} names {SHARDS[1]}, which {REPO} does not have")
    assert failed["msg"].endswith("[weights.index]")


def test_an_unknown_revision_and_a_silent_hub_are_told_apart(node: Node, hub: HubServer, call: Call) -> None:
    more = {"attempts": 2, "silence_s": 0.5, "pause_s": 0.01}
    unknown = call("dspark_model_fetch", step="metadata", repo=REPO, revision="a" * 40, endpoint=hub.address, **more)
    assert unknown["msg"].endswith("[weights.hub_absent]")
    gone = call(
        "dspark_model_fetch", step="metadata", repo=REPO, revision=REVISION, endpoint="http://127.0.0.1:9", **more
    )
    assert gone["msg"].endswith("[weights.hub_unreachable]")


def test_a_gated_repository_wants_the_token_and_the_store_never_gets_it(node: Node, hub: HubServer) -> None:
    """The store is another host, and refuses a request that carries our token."""
    hub.harm.token = TOKEN
    failed = node.module("metadata")
    assert "HF_TOKEN" in failed["msg"]
    assert failed["msg"].endswith("[weights.hub_denied]")
    node.token = TOKEN
    assert node.fetch()["changed"] is True


def test_without_room_nothing_is_written(node: Node) -> None:
    failed = node.download(need_bytes=1 << 60)
    assert failed["msg"].endswith("[weights.disk_space]")
    assert node.blobs() == set()


def test_check_mode_writes_nothing(node: Node, call: Call) -> None:
    manifest = node.manifest()
    planned = call(
        "dspark_model_fetch",
        check=True,
        step="download",
        repo=REPO,
        revision=REVISION,
        endpoint=node.hub.address,
        cache=str(node.cache),
        files=manifest["files"],
    )
    assert planned["changed"] is True
    assert node.settle(manifest["files"], check=True)["changed"] is True
    assert not node.cache.exists()
    assert not node.records.exists()


def test_a_snapshot_is_never_made_of_what_is_not_whole(node: Node, hub: HubServer) -> None:
    files = node.download()["dspark_summary"]["files"]
    os.truncate(node.folder / "blobs" / hub.files[SHARDS[0]].sha256, 5)
    failed = node.settle(files)
    assert f"{SHARDS[0]} is not whole" in failed["msg"]
    assert not (node.folder / "snapshots").exists()


def test_an_operators_own_ref_and_leftovers_are_mended_and_said(node: Node, hub: HubServer) -> None:
    node.fetch()
    files = node.download()["dspark_summary"]["files"]
    (node.folder / "refs" / "main").write_text(REVISION + "\n")
    (node.folder / "blobs" / f"{hub.files[SHARDS[0]].sha256}.incomplete").write_bytes(b"left")
    (node.folder / "snapshots" / REVISION / "config.json").unlink()
    mended = node.settle(files)
    assert mended["changed"] is True
    for what in ("snapshot", "refs/main", "unfinished"):
        assert what in mended["dspark_summary"]["what"]
    assert (node.folder / "refs" / "main").read_bytes() == REVISION.encode()
    assert node.settle(files)["changed"] is False


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../b", "a//b", "", "a\nb"])
def test_a_name_that_leaves_the_snapshot_is_refused(node: Node, name: str) -> None:
    failed = node.settle([{"name": name, "size": 0, "blob": "a" * 40, "sha256": "b" * 64}])
    assert failed["msg"].endswith("[weights.name]")
    assert not node.cache.exists()
