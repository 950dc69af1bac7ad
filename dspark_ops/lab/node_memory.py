"""How much memory a node may use: a limit of its own, so that a full node is one node, and the machine survives it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from dspark_ops.lab.layout import LABEL

if TYPE_CHECKING:
    from docker.models.containers import Container

#: What the container was made with; asked of the label, because an Engine without memory cgroups drops the limit.
MEMORY_LABEL = f"{LABEL}.memory"
_GIB = 1 << 30
_MEMINFO = Path("/proc/meminfo")
_TOTAL = re.compile(r"^MemTotal:\s+(\d+) kB$", re.MULTILINE)
#: For the machine itself, both Engines and the tests.
_MACHINE_GIB = 4
_LEAST_GIB = 6
_MOST_GIB = 9


def limit_bytes(machine_total_bytes: int) -> int:
    """A node's limit in bytes: whole GiB, half of what the machine can spare, at least 6 and at most 9.

    6: a rank of the tiny model takes 2 and a tenant has to be larger than the rest. 9: more would only take longer to
    fill. On a machine below 16 GiB both limits together are more than there is; only a test that fills both notices.
    """
    spare_gib = (machine_total_bytes // _GIB - _MACHINE_GIB) // 2
    return max(_LEAST_GIB, min(_MOST_GIB, spare_gib)) * _GIB


def machine_limit_bytes() -> int:
    """The limit of a node on this machine."""
    found = _TOTAL.search(_MEMINFO.read_text(encoding="ascii"))
    return limit_bytes(int(found.group(1)) * 1024 if found else 0)


def made_with(container: Container) -> int | None:
    """The limit that a container was made with; None of one that an older version made."""
    value = container.labels.get(MEMORY_LABEL, "")
    return int(value) if value.isdigit() else None


def held_to_gib(container: Container) -> float | None:
    """The limit that holds, in GiB; None where the Engine holds the node to nothing."""
    held = container.attrs["HostConfig"].get("Memory") or 0
    return held / _GIB if held > 0 else None
