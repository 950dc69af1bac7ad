"""Xid errors and a few other messages of the kernel, read from /dev/kmsg as they come."""

from __future__ import annotations

import errno
import os
import re
from collections import Counter

from dspark_ops.observe.exporter.catalogue import FATAL_XIDS
from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.tree import Tree

KMSG = "/dev/kmsg"
_RECORD = re.compile(r"(\d{1,5}),(\d{1,19}),\d{1,19},[^;]{0,64};(.*)")
# Both spellings of the driver: `Xid (PCI:000f:01:00): 79, ...` and `Xid 79, ...`.
_XID = re.compile(r"NVRM: Xid(?: \([^)]{0,40}\))?:? *,? *(\d{1,4}),")
_EVENTS = {
    "oom_kill": re.compile(r"Out of memory: Killed process|Memory cgroup out of memory: Killed process"),
    "gpu_no_memory": re.compile(r"NVRM: .*NV_ERR_NO_MEMORY"),
    "nic_removed": re.compile(r"mlx5_core \S+: E-Switch: cleanup"),
    "pcie_uncorrected": re.compile(r"AER: .*[Uu]ncorrect"),
}
# One reading ends here; the rest is read by the next.
_MAX_RECORDS = 50_000
_CHUNK = 16_384


class KernelMessages:
    """Counts since the boot: the ring is read from its oldest message, then as it grows.

    A message is counted once by its sequence number, so that opening the ring again adds nothing.
    """

    def __init__(self, tree: Tree, path: str = KMSG) -> None:
        self._path = tree.path(path)
        self._file: int | None = None
        self._rest = b""
        self._last = -1
        self._xids: Counter[int] = Counter()
        self._events: Counter[str] = Counter()
        self._lost = 0

    def read(self, into: Families) -> None:
        """Count what is new.

        Raises:
            OSError: the messages may not be read, which needs CAP_SYSLOG where dmesg is restricted.
        """
        if self._file is None:
            self._file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._drain(self._file)
        except OSError:
            os.close(self._file)
            self._file, self._rest = None, b""
            raise
        for code in sorted({*FATAL_XIDS, *self._xids}):
            into.add("dspark_xid_total", self._xids[code], xid=str(code))
        for event in _EVENTS:
            into.add("dspark_kernel_event_total", self._events[event], event=event)
        into.add("dspark_kernel_messages_lost_total", self._lost)

    def _drain(self, file: int) -> None:
        for _ in range(_MAX_RECORDS):
            try:
                # A device gives one record a call, a recorded file as much as asked for.
                chunk = os.read(file, _CHUNK)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten before it was read: the next call gives the oldest left
                    continue
                raise
            if not chunk:
                return
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._take(line.decode("utf-8", "replace"))

    def _take(self, line: str) -> None:
        record = parse_record(line)
        if record is None:
            return
        facility, sequence, text = record
        if sequence <= self._last:
            return
        if self._last >= 0:
            self._lost += sequence - self._last - 1
        self._last = sequence
        if facility != 0:  # a program of the node wrote it, not the kernel
            return
        found = _XID.search(text)
        if found:
            self._xids[int(found[1])] += 1
        for event, pattern in _EVENTS.items():
            if pattern.search(text):
                self._events[event] += 1


def parse_record(line: str) -> tuple[int, int, str] | None:
    """Facility, sequence number and text of a record; None for a continuation line or anything else."""
    found = _RECORD.match(line)
    return (int(found[1]) >> 3, int(found[2]), found[3]) if found else None
