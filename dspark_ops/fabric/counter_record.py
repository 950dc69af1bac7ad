"""The NIC's counters of an earlier reading of each site, kept on the control host: only their growth tells anything.

A reading is kept for a day, so that a doctor that runs every minute still sees what happened an hour ago. A node that
was booted, or whose rank was started, begins anew: the end of a rank leaves errors behind that mean nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from dspark_ops.facts.counters import CounterRecord, KeptCounters
from dspark_ops.facts.snapshot import NodeFacts, PairFacts
from dspark_ops.paths import state_dir
from dspark_ops.whole_file import replace_file

KEPT_FOR = timedelta(hours=24)


def record_path(site_name: str) -> Path:
    """Where the record of a site is kept. Not created here."""
    return state_dir() / "counters" / f"{site_name}.json"


def recall(site_name: str) -> CounterRecord | None:
    """The record of an earlier reading, or None when there is none; one that is not whole carries only its problem."""
    path = record_path(site_name)
    try:
        return CounterRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        return CounterRecord(problem=f"{path} cannot be read: {error.strerror or error}")
    except ValidationError:
        return CounterRecord(problem=f"{path} is not a whole record")


def renewed(old: CounterRecord | None, facts: PairFacts, read_at: datetime) -> CounterRecord | None:
    """The record to keep after a reading, or None when the old one stands."""
    before = old or CounterRecord()
    record = CounterRecord(
        head=_kept(before.head, facts.head, read_at), worker=_kept(before.worker, facts.worker, read_at)
    )
    return None if record == before else record


def _kept(old: KeptCounters | None, node: NodeFacts, read_at: datetime) -> KeptCounters | None:
    now = node.counters
    if now is None or now.devices is None or not now.boot_id:
        return old
    new = KeptCounters(read_at=read_at, counters=now)
    if old is None or old.counters.boot_id != now.boot_id or restarted_since(node, old.read_at):
        return new
    return old if timedelta(0) <= read_at - old.read_at < KEPT_FOR else new


def restarted_since(node: NodeFacts, moment: datetime) -> bool:
    """The node's rank was started after that moment, or it is not known when."""
    if node.rank is None or node.rank.started_at is None:
        return False
    try:
        started = datetime.fromisoformat(node.rank.started_at)
    except ValueError:
        return True
    return started.tzinfo is None or started > moment


def remember(site_name: str, facts: PairFacts, *, read_at: datetime | None = None) -> Path | None:
    """Keep this reading where the kept one is old, of another boot, or not there. None when nothing was written.

    A state directory that cannot be written is no reason to fail: the next reading has nothing to compare with.
    """
    record = renewed(recall(site_name), facts, read_at or datetime.now(UTC))
    if record is None:
        return None
    path = record_path(site_name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, record.model_dump_json(indent=1) + "\n")
    except OSError:
        return None
    return path
