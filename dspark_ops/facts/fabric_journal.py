"""The node's own record of its last network change: still open, confirmed, or put back."""

from __future__ import annotations

import json

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Files, NodeReading, Probe

JOURNAL = "/var/lib/dspark/journal/fabric.json"
PROBES: tuple[Probe, ...] = (Files("journal.fabric", (JOURNAL,), root=True, max_bytes=1 << 20),)


class JournalFacts(Fact):
    """The current entry. state: open, confirmed, reverted, revert-incomplete; why: timer, boot or operator.

    differences: what a revert could not put back, as sentences.
    """

    id: str
    state: str
    why: str | None = None
    at: str | None = None
    differences: tuple[str, ...] = ()


def parse_journal(text: str | None) -> JournalFacts | None:
    """The entry, None when there is none or it is not whole."""
    if text is None:
        return None
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("state"), str) or not isinstance(entry.get("id"), str):
        return None
    outcome = entry.get("reverted")
    told = outcome if isinstance(outcome, dict) else {}
    differences = told.get("differences")
    return JournalFacts(
        id=entry["id"],
        state=entry["state"],
        why=told["why"] if isinstance(told.get("why"), str) else None,
        at=told["at"] if isinstance(told.get("at"), str) else None,
        differences=tuple(str(item) for item in differences) if isinstance(differences, list) else (),
    )


def read_journal(reading: NodeReading) -> JournalFacts | None:
    """The entry of a reading; None also when it could not be read."""
    return parse_journal((reading.get("journal.fabric").files or {}).get(JOURNAL))
