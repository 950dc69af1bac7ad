"""How the boot before this one ended, by the system's own record of boots and shutdowns."""

from __future__ import annotations

import platform
import struct
from pathlib import Path

_WTMP = Path("/var/log/wtmp")
_RUN_LEVEL, _BOOT_TIME = 1, 2
_USER = slice(44, 76)
_TAIL = 4 << 20


def ended_in_order(path: Path = _WTMP, machine: str = "") -> bool | None:
    """True after a shutdown, False after a reset or a power cut; None when the record does not tell.

    machine: whose records they are; their size differs.
    """
    size = 384 if (machine or platform.machine()) in ("x86_64", "i686") else 400
    try:
        with path.open("rb") as source:
            length = source.seek(0, 2)
            source.seek(max(0, length - _TAIL) // size * size)
            raw = source.read()
    except OSError:
        return None
    if len(raw) % size:
        return None
    boots, orderly = 0, False
    for offset in range(len(raw) - size, -1, -size):
        record = raw[offset : offset + size]
        kind = struct.unpack_from("=h", record)[0]
        if kind == _BOOT_TIME:
            boots += 1
            if boots == 2:
                return orderly
        elif kind == _RUN_LEVEL and boots == 1 and record[_USER].rstrip(b"\0") == b"shutdown":
            orderly = True
    # Only this boot is on record: there is nothing to say about one before it.
    return None
