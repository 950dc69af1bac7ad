"""What is owed to evicted tenants: the records on both nodes, read; only the node's own module writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, get_args

from dspark_ops.config.models import ROLES, Role
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.facts.model import Fact
from dspark_ops.tenants.model import TenantKind
from dspark_ops.transport.base import Files, NodeReading, Probe

FOLDER = "/var/lib/dspark-ops/tenants"
SCHEMA = "dspark-ops/tenant/v1"
# A record's name ends with its number; the environment of a process, beside it, is never asked for.
PROBES: tuple[Probe, ...] = (Files("tenants.records", (f"{FOLDER}/*[0-9].json",), root=True, max_bytes=1 << 20),)

RecordState = Literal["intended", "stopped", "restored", "ended", "superseded", "forgotten"]
OWED: tuple[RecordState, ...] = ("intended", "stopped")


class EvictionRecord(Fact):
    """One eviction as the node remembers it.

    state: intended (recorded, perhaps not stopped: the run was cut off), stopped, restored, ended (never brought back),
    superseded (a later record tells of it), forgotten (the operator said that it is not owed any more). by_hand: it was
    started by hand, so it starts again only by consent. command: of such a process. path: of the record on the node.
    """

    run: str
    n: int
    key: str
    kind: TenantKind
    what: str
    state: RecordState
    intended_at: datetime | None = None
    held_kib: int | None = None
    freed_kib: int | None = None
    command: tuple[str, ...] = ()
    path: str

    @property
    def owed(self) -> bool:
        return self.state in OWED

    @property
    def by_hand(self) -> bool:
        return self.kind == "process"


def parse_record(path: str, text: str) -> EvictionRecord | None:
    """A record; None when it is not whole. Never raises."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        return None
    run, n, key, kind, state = (found.get(name) for name in ("run", "n", "key", "kind", "state"))
    if not isinstance(run, str) or not isinstance(n, int) or isinstance(n, bool) or not isinstance(key, str):
        return None
    if kind not in get_args(TenantKind) or state not in get_args(RecordState):
        return None
    return EvictionRecord(
        run=run,
        n=n,
        key=key,
        kind=kind,
        what=found["what"] if isinstance(found.get("what"), str) else key,
        state=state,
        intended_at=_time(found.get("intended_at")),
        held_kib=_kib(found.get("held_kib")),
        freed_kib=_kib(found.get("freed_kib")),
        command=_command(found.get("recorded")),
        path=path,
    )


def _time(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _kib(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _command(recorded: Any) -> tuple[str, ...]:
    argv = recorded.get("argv") if isinstance(recorded, dict) else None
    return tuple(str(word) for word in argv) if isinstance(argv, list) else ()


def read_records(reading: NodeReading) -> tuple[EvictionRecord, ...] | None:
    """Every record of a node, oldest first; None when they could not be read, or one of them is not whole."""
    result = reading.get("tenants.records")
    # Without sudo the folder looks empty: that is not the same as nothing owed.
    if not reading.reachable or not reading.sudo or result.files is None:
        return None
    found = [parse_record(path, text) for path, text in result.files.items()]
    whole = [record for record in found if record is not None]
    if len(whole) != len(found):
        return None
    return tuple(sorted(whole, key=lambda record: (str(record.intended_at), record.run, record.n)))


def owed_on_both(readings: Mapping[Role, NodeReading]) -> dict[Role, tuple[EvictionRecord, ...]]:
    """What is to be brought back on each node.

    Raises:
        NoVerdictError: of a node it could not be read.
    """
    found = owed(readings)
    unread = [role for role in ROLES if found[role] is None]
    if unread:
        raise NoVerdictError(
            f"{' and '.join(unread)}: the records of evicted tenants in {FOLDER} cannot be read, or one of "
            "them is not whole; nothing was changed",
            hint=f"look at {FOLDER} there as root",
        )
    return {role: tuple(found[role] or ()) for role in ROLES}


def meant_by(
    owed: Mapping[Role, Sequence[EvictionRecord]], keys: Sequence[str]
) -> dict[Role, tuple[EvictionRecord, ...]]:
    """Of what is owed, what the keys mean, as `head/KEY` or on either node.

    Raises:
        RefusedError: a key that nothing is owed to.
    """
    known = {name for role, found in owed.items() for r in found for name in (r.key, f"{role}/{r.key}")}
    unknown = [key for key in keys if key not in known]
    if unknown:
        there = ", ".join(sorted(f"{role}/{r.key}" for role, found in owed.items() for r in found)) or "nothing"
        raise RefusedError(f"{', '.join(unknown)}: nothing is owed to it; owed: {there}")
    return {role: tuple(r for r in found if r.key in keys or f"{role}/{r.key}" in keys) for role, found in owed.items()}


def owed(readings: Mapping[Role, NodeReading]) -> dict[Role, tuple[EvictionRecord, ...] | None]:
    """What is to be brought back on each node; None where that could not be read."""
    found: dict[Role, tuple[EvictionRecord, ...] | None] = {}
    for role, reading in readings.items():
        records = read_records(reading)
        found[role] = None if records is None else tuple(record for record in records if record.owed)
    return found
