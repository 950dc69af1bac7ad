"""The GID indexes of the last reading of each site, kept on the control host: an index that moved is seen only so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dspark_ops.errors import NoVerdictError
from dspark_ops.facts.gids import ROCE_V2, GidRecord, GidRecordEntry
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.paths import state_dir
from dspark_ops.whole_file import replace_file


class GidMove(BaseModel):
    """One address whose index is not what it was. now is empty where the entry is gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    hca: str
    address: IPv4Address
    was: tuple[int, ...]
    now: tuple[int, ...]


def record_of(facts: PairFacts, *, read_at: datetime | None = None) -> GidRecord:
    """What a reading shows: every IPv4 address in the GID table of every ACTIVE device, with its RoCE v2 indexes."""
    entries = []
    for node in facts.nodes:
        for hca in node.rdma or ():
            for address in sorted({g.ipv4 for g in hca.gids if g.ipv4 is not None}) if hca.active else ():
                indexes = tuple(g.index for g in hca.gids if g.ipv4 == address and g.type == ROCE_V2)
                entries.append(GidRecordEntry(node=node.role, hca=hca.name, address=address, indexes=indexes))
    return GidRecord(read_at=read_at or datetime.now(UTC), entries=tuple(entries))


def drift(old: GidRecord, new: GidRecord) -> tuple[GidMove, ...]:
    """The addresses that both readings know on the same device, at another index.

    An address that only one of them knows was added or taken away, which is no drift.
    """
    now = _by_place(new)
    return tuple(
        GidMove(node=node, hca=hca, address=address, was=was, now=now[node, hca, address])
        for (node, hca, address), was in _by_place(old).items()
        if was and (node, hca, address) in now and set(now[node, hca, address]) != set(was)
    )


def _by_place(record: GidRecord) -> Mapping[tuple[str, str, IPv4Address], tuple[int, ...]]:
    return {(e.node, e.hca, e.address): e.indexes for e in record.entries}


def record_path(site_name: str) -> Path:
    """Where the record of a site is kept. Not created here."""
    return state_dir() / "gids" / f"{site_name}.json"


def recall(site_name: str) -> GidRecord | None:
    """The record of the last reading, or None when there is none; one that is not whole carries only its problem."""
    path = record_path(site_name)
    try:
        return GidRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        return GidRecord(problem=f"{path} cannot be read: {error.strerror or error}")
    except ValidationError:
        return GidRecord(problem=f"{path} is not a whole record")


def remember(site_name: str, facts: PairFacts) -> Path | None:
    """Keep the indexes of this reading, in place of the earlier one; a reader never sees half of it.

    A node that was not read keeps what is known of it. Nothing is kept, and None returned, when neither was read.

    Raises:
        NoVerdictError: the state directory cannot be written.
    """
    lost = {node.role for node in facts.nodes if node.rdma is None}
    if len(lost) == len(facts.nodes):
        return None
    record = record_of(facts)
    earlier = recall(site_name) if lost else None
    if earlier is not None:
        kept = tuple(e for e in earlier.entries if e.node in lost)
        record = record.model_copy(update={"entries": (*record.entries, *kept)})
    path = record_path(site_name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, record.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise NoVerdictError(
            f"the GID record cannot be kept in {path.parent}: {error.strerror or error}",
            hint="make the directory writable, or set XDG_STATE_HOME",
        ) from error
    return path
