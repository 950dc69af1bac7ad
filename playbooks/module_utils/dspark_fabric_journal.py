"""The journal of the rails: what was there before we wrote, digests before and after, and whether it is settled."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SCHEMA = "dspark-ops/journal/v1"
_KEEP = 10


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole: a reader, or a power cut, sees the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.dspark-tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        os.fchmod(out.fileno(), mode)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)


def load(journal: Path) -> dict[str, Any] | None:
    """The current entry, None when there is none or it is not whole."""
    try:
        entry = json.loads(journal.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) and entry.get("schema") == SCHEMA else None


def begin(
    journal: Path,
    target: Path,
    *,
    content: bytes | None,
    links: dict[str, Any],
    given: list[str],
) -> dict[str, Any]:
    """Record what is there, before it is changed. An open entry keeps its first "before": that is what was there.

    content: the bytes that will be written, None when the file will be removed.
    """
    entry = load(journal)
    written = [] if content is None else [digest(content)]
    if entry is not None and entry["state"] == "open":
        entry["written"] = sorted({*entry["written"], *written})
        entry["given"] = sorted({*entry["given"], *given})
    else:
        if entry is not None:
            _archive(journal, entry)
        now = datetime.now(UTC)
        entry = {
            "schema": SCHEMA,
            "id": now.strftime("%Y%m%dT%H%M%S.%f"),
            "path": str(target),
            "before": _before(target),
            "written": written,
            "given": sorted(given),
            "links": links,
            "state": "open",
        }
    write_atomically(journal, json.dumps(entry, indent=1).encode())
    return entry


def settle(journal: Path) -> bool:
    """Confirm an open entry; True when there was one."""
    entry = load(journal)
    if entry is None or entry["state"] != "open":
        return False
    entry["state"] = "confirmed"
    write_atomically(journal, json.dumps(entry, indent=1).encode())
    return True


def known_digests(entry: dict[str, Any] | None) -> set[str]:
    """Digests of everything at the target that is ours or that we have on record."""
    if entry is None:
        return set()
    before = entry["before"]["sha256"]
    return {*entry["written"], *([before] if before else [])}


def _before(target: Path) -> dict[str, Any]:
    if not target.exists():
        return {"content": None, "sha256": None, "mode": None}
    data = target.read_bytes()
    mode = oct(target.stat().st_mode & 0o7777)
    return {"content": data.decode("utf-8", "surrogateescape"), "sha256": digest(data), "mode": mode}


def _archive(journal: Path, entry: dict[str, Any]) -> None:
    write_atomically(journal.with_name(f"{journal.stem}-{entry['id']}.json"), json.dumps(entry, indent=1).encode())
    for old in sorted(journal.parent.glob(f"{journal.stem}-*.json"), reverse=True)[_KEEP:]:
        old.unlink(missing_ok=True)
