"""What the kernel complained of since the boot: Xid errors, refused memory, killed processes, failing storage."""

from __future__ import annotations

import re

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading, Probe

LINES = 600
_KILLED = r"(?:Out of memory|Memory cgroup out of memory): Killed process"
_FAULTS = (
    r"CMD_SYNC timeout",
    r"I/O error, dev ",
    r"EXT4-fs error",
    r"Remounting filesystem read-only",
    r"controller is down; will reset",
    r"AER: .*[Uu]ncorrect",
)
# journalctl takes one pattern; a capital letter in it makes the search mind the case.
PATTERN = "|".join(("NVRM: Xid", "NV_ERR_NO_MEMORY", _KILLED, *_FAULTS))
PROBES: tuple[Probe, ...] = (
    Command(
        "kernel.events",
        ("journalctl", "-k", "-b", "--no-pager", "-o", "cat", "-n", str(LINES), "-g", PATTERN),
        root=True,
        timeout_s=4.0,
    ),
)

_XID = re.compile(r"NVRM: Xid(?: \([^)]{0,40}\))?:? *,? *(\d{1,4}),")
_OOM = re.compile(_KILLED + r" (\d{1,10}) \(([^)]{0,64})\)")
_FAULT = re.compile("|".join(_FAULTS))
_SHOWN = 5


class KernelEventFacts(Fact):
    """Since the boot, at most the last 600 such lines.

    xids: each number once, in the order of their first line. no_memory: lines of the driver's memory error.
    killed: names of processes that the kernel killed for want of memory. faults: lines of failing storage or PCIe.
    """

    xids: tuple[int, ...] = ()
    no_memory: int = 0
    killed: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def parse_kernel_events(text: str | None) -> KernelEventFacts | None:
    """The events in lines of the kernel's log; None without a log."""
    if text is None:
        return None
    faults = [line.strip()[:200] for line in text.splitlines() if _FAULT.search(line[:2000])]
    return KernelEventFacts(
        xids=tuple(dict.fromkeys(int(number) for number in _XID.findall(text))),
        no_memory=text.count("NV_ERR_NO_MEMORY"),
        killed=tuple(dict.fromkeys(name for _, name in _OOM.findall(text))),
        faults=tuple(faults[:_SHOWN]),
    )


def read_kernel_events(reading: NodeReading) -> KernelEventFacts | None:
    """The events of a reading. A word on standard error means that there is no log, or one that may not be read."""
    result = reading.get("kernel.events")
    if result.rc not in (0, 1) or (result.stderr or "").strip():
        return None
    return parse_kernel_events(result.stdout)
