"""Tenants: what is owed to whom, on the node where it was stopped, written before it was.

One file per eviction, `RUN-N.json`, for root alone. States: intended (written, nothing done yet), stopped, restored;
ended for what is never brought back, superseded when a later record tells of the same tenant, forgotten when the
operator says that it is not owed any more. The environment of a process lies beside it in `RUN-N.env.json` and does
not leave the node.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.dspark_fabric_journal import remove_durably, write_durably
from ansible.module_utils.dspark_tenant_rules import TenantError

FOLDER = Path("/var/lib/dspark-ops/tenants")
SCHEMA = "dspark-ops/tenant/v1"
OWED = ("intended", "stopped")
KEEP = 100

Record = dict[str, Any]


def stamp() -> str:
    """Now, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextlib.contextmanager
def locked(folder: Path, wait_s: float = 180) -> Iterator[None]:
    """Hold the records: a module whose caller was killed may still be at work."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise TenantError(
                        "failed", f"another eviction or restore works here since {wait_s:g} s [tenant.busy]"
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(descriptor)


def load_all(folder: Path) -> list[Record]:
    """Every record, oldest first.

    Raises:
        TenantError: one of them cannot be read; nobody may take what it says for nothing.
    """
    found = []
    for path in folder.glob("*[0-9].json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TenantError("failed", f"the record {path} cannot be read: {error} [tenant.record]") from error
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise TenantError("failed", f"{path} is no record of schema {SCHEMA} [tenant.record]")
        found.append({**record, "path": str(path)})
    return sorted(found, key=lambda record: (record["intended_at"], record["n"]))


def owed(folder: Path) -> list[Record]:
    """Those that were not brought back, oldest first."""
    return [record for record in load_all(folder) if record["state"] in OWED]


def free_path(folder: Path, run: str) -> tuple[Path, int]:
    """Where the next record of a run goes."""
    n = 1
    while (folder / f"{run}-{n}.json").exists():
        n += 1
    return folder / f"{run}-{n}.json", n


def store(record: Record) -> None:
    """Write a record to its path, on disk on return."""
    path = Path(record["path"])
    text = json.dumps({key: value for key, value in record.items() if key != "path"}, indent=1)
    write_durably(path, text.encode(), 0o600)


def advance(record: Record, state: str, **more: Any) -> None:
    """Put a record into another state, with the time."""
    record.update(state=state, **{f"{state}_at": stamp()}, **more)
    store(record)


def environment_path(record: Record) -> Path:
    """Where the environment of a process is kept."""
    return Path(record["path"]).with_suffix(".env.json")


def store_environment(record: Record, environment: dict[str, str]) -> None:
    """Keep it before the record that needs it."""
    write_durably(environment_path(record), json.dumps(environment).encode(), 0o600)


def load_environment(record: Record) -> dict[str, str] | None:
    """The kept environment; None when it is not there."""
    try:
        found = json.loads(environment_path(record).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else None


def forget_environment(record: Record) -> None:
    """It may hold secrets: it goes away once it is not needed any more."""
    remove_durably(environment_path(record))


def prune(folder: Path) -> None:
    """Remove the oldest records that nothing is owed for, beyond a number."""
    settled = [record for record in load_all(folder) if record["state"] not in OWED]
    for record in settled[:-KEEP]:
        forget_environment(record)
        remove_durably(Path(record["path"]))
