"""A pinned revision in the hub cache of a node: blobs, snapshot, ref, and our record of what is whole."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.dspark_node_lock import lock_within

INCOMPLETE = ".incomplete"
_COMPONENT = re.compile(r"[A-Za-z0-9_+=,@()\[\]. -]{1,200}")
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class LayoutError(Exception):
    """The cache cannot be as it should; the message ends with the id of its check."""


def repo_folder(repo: str) -> str:
    """The directory of a repository in a hub cache."""
    return "models--" + repo.replace("/", "--")


def require_safe(files: list[dict[str, Any]]) -> None:
    """Raises LayoutError unless every name stays inside the snapshot and every blob is a digest.

    The list comes from a server: what it says becomes paths that root writes.
    """
    names = [str(file["name"]) for file in files]
    for name in names:
        parts = name.split("/")
        if not all(_COMPONENT.fullmatch(part) and part not in (".", "..") for part in parts) or len(parts) > 8:
            raise LayoutError(f"the repository names a file {name!r}, which is no plain relative path [weights.name]")
    if len(set(names)) != len(names):
        raise LayoutError("the repository names one file twice [weights.name]")
    for file in files:
        if not _BLOB.fullmatch(str(file["blob"])) or int(file["size"]) < 0:
            raise LayoutError(f"{file['name']}: {file['blob']!r} is no digest of git or LFS [weights.name]")
        if file.get("sha256") is not None and not _SHA256.fullmatch(str(file["sha256"])):
            raise LayoutError(f"{file['name']}: {file['sha256']!r} is no sha256 [weights.name]")


def git_header(size: int) -> bytes:
    """What git hashes before the content of a file."""
    return b"blob %d\0" % size


@contextlib.contextmanager
def alone(records: Path, wait_s: float) -> Iterator[None]:
    """The weights of this node for us alone.

    Raises:
        LayoutError: another run of ours still works on them.
    """
    records.mkdir(parents=True, exist_ok=True)
    records.chmod(0o700)
    descriptor = os.open(records / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not lock_within(descriptor, wait_s):
            raise LayoutError(
                f"another run works on the weights here and did not end within {wait_s:g} s [weights.busy]"
            )
        yield
    finally:
        os.close(descriptor)


def completed(document: dict[str, Any], fetched: list[dict[str, Any]]) -> dict[str, Any]:
    """The document with each sha256 that a download has learnt, its numbers as numbers."""
    learnt = {file["blob"]: file["sha256"] for file in fetched}
    files = [
        {
            "name": file["name"],
            "size": int(file["size"]),
            "blob": file["blob"],
            "sha256": file.get("sha256") or learnt.get(file["blob"]),
        }
        for file in document["files"]
    ]
    return {"version": 1, "repo": document["repo"], "revision": document["revision"], "files": files}


def settle(cache: Path, records: Path, document: dict[str, Any], *, check: bool) -> list[tuple[str, Any, Any]]:
    """Make snapshot, ref and record say what the blobs are; the changes as (what, before, after).

    Raises:
        LayoutError: a blob is not there in its size: the snapshot is never made of what is not whole.
    """
    files, revision = document["files"], document["revision"]
    require_safe(files)
    folder = cache / repo_folder(document["repo"])
    if not check:
        _require_whole(folder / "blobs", files)
    changes: list[tuple[str, Any, Any]] = []
    linked = [file for file in files if _link(folder, revision, file, check=check)]
    if linked:
        changes.append((f"snapshot {revision[:12]} of {document['repo']}", None, f"{len(linked)} files"))
    ref = folder / "refs" / "main"
    before = ref.read_text(encoding="utf-8", errors="replace") if ref.is_file() else None
    if before != revision:
        changes.append((f"refs/main of {document['repo']}", before, revision))
        if not check:
            _write(ref, revision, 0o644)
    stale = [path for file in files if (path := folder / "blobs" / (file["blob"] + INCOMPLETE)).exists()]
    if stale:
        changes.append((f"unfinished downloads of {document['repo']}", f"{len(stale)} files", None))
        for path in [] if check else stale:
            path.unlink()
    record = record_path(records, document)
    text = json.dumps(document, indent=1, sort_keys=True)
    if not record.is_file() or record.read_text(encoding="utf-8") != text:
        changes.append((f"record of {document['repo']}", None if not record.is_file() else "another", str(record)))
        if not check:
            _write(record, text, 0o600)
    return changes


def _require_whole(blobs: Path, files: list[dict[str, Any]]) -> None:
    """Raises LayoutError unless every blob is there in its size and has a sha256 to be put on record."""
    for file in files:
        if file.get("sha256") is None:
            raise LayoutError(f"{file['name']} has no sha256 to be put on record [weights.record]")
        blob = blobs / file["blob"]
        if not blob.is_file() or blob.stat().st_size != int(file["size"]):
            raise LayoutError(f"{file['name']} is not whole: {blob} is not {file['size']} bytes [weights.whole]")


def record_path(records: Path, document: dict[str, Any]) -> Path:
    """Where a node keeps what the files of a revision are."""
    return records / f"{repo_folder(document['repo'])}@{document['revision']}.json"


def _link(folder: Path, revision: str, file: dict[str, Any], *, check: bool) -> bool:
    """The file's relative symlink in the snapshot; whether it was not there or led elsewhere."""
    path = folder / "snapshots" / revision / file["name"]
    target = "../" * (2 + file["name"].count("/")) + f"blobs/{file['blob']}"
    if path.is_symlink() and str(path.readlink()) == target:
        return False
    if not check:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(path)
    return True


def _write(path: Path, text: str, mode: int) -> None:
    """Whole or not at all, without a newline of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
