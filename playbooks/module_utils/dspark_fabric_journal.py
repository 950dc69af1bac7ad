"""The journal of a network change: what was there before, digests before and after, and how it ended.

Runs in the module and, installed beside the revert program, without Ansible: only the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SCHEMA = "dspark-ops/journal/v2"
KEEP = 10

Entry = dict[str, Any]


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename or a removal in a directory outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole: a reader, or a power cut, sees the old bytes or the new ones; on disk on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.dspark-tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        os.fchmod(out.fileno(), mode)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def remove_durably(path: Path) -> None:
    """Remove a file, on disk on return; one that is not there is fine."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_folder(path.parent)


@contextlib.contextmanager
def locked(journal: Path) -> Iterator[None]:
    """Hold the journal: of a confirmation and a revert exactly one goes first, and the other one sees it."""
    journal.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(journal.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def load(journal: Path) -> Entry | None:
    """The current entry, None when there is none or it is not whole."""
    try:
        entry = json.loads(journal.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) and entry.get("schema") == SCHEMA else None


def store(journal: Path, entry: Entry) -> None:
    """Write the current entry."""
    write_durably(journal, json.dumps(entry, indent=1).encode())


def history(journal: Path) -> list[Entry]:
    """Every entry on record, oldest first, the current one last."""
    kept = [load(path) for path in sorted(journal.parent.glob(f"{journal.stem}-*.json"))]
    return [entry for entry in [*kept, load(journal)] if entry is not None]


def snapshot(path: Path) -> dict[str, Any] | None:
    """A file as it is: content, mode and digest; None when there is none."""
    try:
        data, seen = path.read_bytes(), path.stat()
    except FileNotFoundError:
        return None
    # Bytes that are no UTF-8 are kept as surrogates.
    content = data.decode("utf-8", "surrogateescape")
    return {"content": content, "mode": oct(seen.st_mode & 0o7777), "sha256": digest(data)}


def after(content: bytes | None, mode: int) -> dict[str, Any] | None:
    """How a file will be: without its content, which nobody needs to put back."""
    return None if content is None else {"sha256": digest(content), "mode": oct(mode)}


def begin(
    journal: Path,
    *,
    kind: str,
    backend: str,
    files: dict[str, tuple[bytes | None, int]],
    netdevs: list[str],
    given: dict[str, list[str]],
    live: dict[str, Any],
    token: str,
    revert_after_s: float,
    undoes: str | None = None,
) -> Entry:
    """Record what is there before it is changed; the caller holds the lock and has armed the revert `token`.

    files: path to the new content (None: will be removed) and mode. given: addresses that the change gives per port.
    An entry that is still open keeps its first "before" and its first live state: that is what was there.
    """
    entry = load(journal)
    if entry is None or entry["state"] != "open":
        archive(journal)
        entry = {
            "schema": SCHEMA,
            "id": datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f"),
            "kind": kind,
            "undoes": undoes,
            "backend": backend,
            "state": "open",
            "files": [],
            "netdevs": [],
            "given": {},
            "live": live,
        }
    known = {record["path"]: record for record in entry["files"]}
    for path, (content, mode) in files.items():
        record = known.get(path)
        if record is None:
            record = {"path": path, "before": snapshot(Path(path)), "written": []}
            entry["files"].append(record)
        record["after"] = after(content, mode)
        if content is not None:
            record["written"] = sorted({*record["written"], digest(content)})
    entry["netdevs"] = sorted({*entry["netdevs"], *netdevs})
    for netdev, addresses in given.items():
        entry["given"][netdev] = sorted({*entry["given"].get(netdev, ()), *addresses})
    arm(entry, token, revert_after_s)
    store(journal, entry)
    return entry


def arm(entry: Entry, token: str, revert_after_s: float) -> None:
    """Note which timer may revert the entry, and when it will. Timers of earlier runs have no say any more."""
    entry["token"] = token
    entry["revert_after_s"] = revert_after_s
    # Since boot, sleep included: the wall clock may be set meanwhile. After a reboot the entry is reverted anyway.
    entry["reverts_at_uptime_s"] = round(time.clock_gettime(time.CLOCK_BOOTTIME) + revert_after_s, 3)


def seconds_left(entry: Entry) -> float:
    """Time until an open entry reverts by itself."""
    return float(entry["reverts_at_uptime_s"]) - time.clock_gettime(time.CLOCK_BOOTTIME)


def settle(journal: Path) -> bool:
    """Confirm an open entry; True when there was one. The caller holds the lock."""
    entry = load(journal)
    if entry is None or entry["state"] != "open":
        return False
    entry["state"] = "confirmed"
    entry["confirmed_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    store(journal, entry)
    return True


def archive(journal: Path) -> None:
    """Put the current entry among the old ones; beyond a number the oldest go, reverted ones never for confirmed ones.

    The last confirmed entry says which files are ours and what a restore takes back: reverts must not push it out.
    """
    entry = load(journal)
    if entry is None:
        return
    store(journal.with_name(f"{journal.stem}-{entry['id']}.json"), entry)
    remove_durably(journal)
    kept: dict[bool, int] = {True: 0, False: 0}
    for path in sorted(journal.parent.glob(f"{journal.stem}-*.json"), reverse=True):
        old = load(path)
        confirmed = old is not None and old["state"] == "confirmed"
        kept[confirmed] += 1
        if kept[confirmed] > KEEP:
            path.unlink(missing_ok=True)


def known_digests(journal: Path, path: str) -> set[str]:
    """Digests of everything at a path that is ours or that we have on record."""
    found: set[str] = set()
    for entry in history(journal):
        for record in entry["files"]:
            if record["path"] == path:
                found.update(record["written"])
                if record["before"] is not None:
                    found.add(record["before"]["sha256"])
    return found


def given_by_us(journal: Path) -> set[str]:
    """Every address that an entry on record gave to a port."""
    return {address for entry in history(journal) for given in entry["given"].values() for address in given}


def undoable(journal: Path) -> Entry | None:
    """The last confirmed change that was not taken back since; None when there is none."""
    entries = history(journal)
    undone = {entry["undoes"] for entry in entries if entry["kind"] == "restore" and entry["state"] == "confirmed"}
    confirmed = [entry for entry in entries if entry["kind"] == "apply" and entry["state"] == "confirmed"]
    left = [entry for entry in confirmed if entry["id"] not in undone]
    return left[-1] if left else None


def edited_since(entry: Entry) -> list[str]:
    """Files of a confirmed entry that are not as it left them, as sentences with both digests."""
    found = []
    for record in entry["files"]:
        now, wanted = snapshot(Path(record["path"])), record["after"]
        is_digest = now["sha256"] if now else None
        left_digest = wanted["sha256"] if wanted else None
        if is_digest != left_digest:
            found.append(f"{record['path']} was edited since: it is {_short(is_digest)}, we left {_short(left_digest)}")
    return found


def restore_files(entry: Entry) -> list[str]:
    """Put the old bytes and modes back; what was left alone because somebody edited it meanwhile, as sentences."""
    problems = []
    for record in entry["files"]:
        path, before = Path(record["path"]), record["before"]
        now = snapshot(path)
        allowed = {None, *record["written"], before["sha256"] if before else None}
        if now is not None and now["sha256"] not in allowed:
            problems.append(f"{path} was edited since dspark-ops wrote it ({_short(now['sha256'])}); it was left alone")
        elif before is None:
            remove_durably(path)
        elif now != before:
            write_durably(path, before["content"].encode("utf-8", "surrogateescape"), int(before["mode"], 8))
    return problems


def file_differences(entry: Entry) -> list[str]:
    """Files that are not, byte for byte and bit for bit, what they were before the change."""
    found = []
    for record in entry["files"]:
        now, before = snapshot(Path(record["path"])), record["before"]
        is_digest, was_digest = now["sha256"] if now else None, before["sha256"] if before else None
        if is_digest != was_digest:
            found.append(f"{record['path']} is {_short(is_digest)}, it was {_short(was_digest)}")
        elif now is not None and before is not None and now["mode"] != before["mode"]:
            found.append(f"{record['path']} has mode {now['mode']}, it had {before['mode']}")
    return found


def digests(entry: Entry) -> dict[str, str | None]:
    """Path to the digest of what is there now."""
    found: dict[str, str | None] = {}
    for record in entry["files"]:
        now = snapshot(Path(record["path"]))
        found[record["path"]] = now["sha256"] if now else None
    return found


def _short(sha256: str | None) -> str:
    return "absent" if sha256 is None else f"sha256:{sha256[:12]}"
