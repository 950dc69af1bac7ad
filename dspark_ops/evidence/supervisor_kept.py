"""What a supervisor on the head keeps of what it did: its state, its journal, and the evidence of its last incident."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Protocol

from dspark_ops.transport.base import Command, Files, NodeReading, Probe

_ROOT = "/var/lib/dspark/supervise"
_FILES = Files("supervise.kept", (f"{_ROOT}/state.json", f"{_ROOT}/journal.jsonl*"), max_bytes=2 << 20, root=True)
_INCIDENTS = Command("supervise.incidents", ("ls", "-1t", f"{_ROOT}/evidence"), root=True)
#: Of each text of an incident: the supervisor keeps up to 1 MiB of each.
_TEXT_CHARS = 256 << 10


class Reads(Protocol):
    def read(self, probes: list[Probe]) -> NodeReading: ...


def read_kept(head: Reads) -> tuple[dict[str, str], list[str]]:
    """The texts by their names in the archive, and what could not be had. Both empty where there is no supervisor."""
    reading = head.read([_FILES, _INCIDENTS])
    said = reading.get(_FILES.id)
    if said.files is None:
        return {}, [f"head supervisor: {said.error or reading.error or 'what it keeps could not be read'}"]
    texts = {f"supervisor/{PurePosixPath(path).name}": text for path, text in said.files.items()}
    listed = (reading.get(_INCIDENTS.id).text() or "").splitlines() if texts else []
    # The newest first; one that is being written has a name with a dot.
    newest = next((name for name in listed if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name)), None)
    if newest is None:
        return texts, []
    pattern = f"{_ROOT}/evidence/{newest}/*/*"
    found = head.read([Files("supervise.incident", (pattern,), max_bytes=1 << 20, root=True)]).get("supervise.incident")
    if found.files is None:
        return texts, [f"head supervisor, incident {newest}: {found.error or 'could not be read'}"]
    for path, text in found.files.items():
        role, name = PurePosixPath(path).parts[-2:]
        texts[f"supervisor/{newest}/{role}/{name}"] = text[-_TEXT_CHARS:]
    return texts, []
