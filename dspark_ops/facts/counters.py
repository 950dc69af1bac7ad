"""The counters of the RDMA devices: one reading of a node, with the clock that does not jump. No judgement."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from pydantic import Field

from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.transport.base import Files, NodeReading, Probe

_ROOT = "/sys/class/infiniband"
_UPTIME = "/proc/uptime"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_CARRIER = re.compile(r"/sys/class/net/([^/]+)/carrier_changes")
_COUNTER = re.compile(r"/sys/class/infiniband/([^/]+)/ports/1/(counters|hw_counters)/([^/]+)")
# port_xmit_data and port_rcv_data count 4-byte words (kernel ABI, sysfs-class-infiniband).
WORD_BYTES = 4

PROBES: tuple[Probe, ...] = (
    Files(
        "counters.files",
        (
            _UPTIME,
            _BOOT_ID,
            f"{_ROOT}/*/ports/1/counters/*",
            f"{_ROOT}/*/ports/1/hw_counters/*",
            "/sys/class/net/*/carrier_changes",
        ),
        max_bytes=128,
    ),
)


class DeviceCounters(Fact):
    """One device's counters by name, as the kernel counts them. None: the directory is not there (soft-RoCE)."""

    name: str
    counters: dict[str, int] | None = None
    hw_counters: dict[str, int] | None = None

    @property
    def xmit_bytes(self) -> int | None:
        return self._bytes("port_xmit_data")

    @property
    def rcv_bytes(self) -> int | None:
        return self._bytes("port_rcv_data")

    @property
    def xmit_packets(self) -> int | None:
        """Packets sent; soft-RoCE counts them under a name of its own."""
        return self._first("port_xmit_packets", "sent_pkts")

    @property
    def rcv_packets(self) -> int | None:
        """Packets received; as above."""
        return self._first("port_rcv_packets", "rcvd_pkts")

    def all(self) -> dict[str, int]:
        """Every counter of both directories; where a name is in both, the port's own."""
        return {**(self.hw_counters or {}), **(self.counters or {})}

    def _bytes(self, name: str) -> int | None:
        words = (self.counters or {}).get(name)
        return None if words is None else words * WORD_BYTES

    def _first(self, *names: str) -> int | None:
        found = self.all()
        return next((found[name] for name in names if name in found), None)


class NodeCounters(Fact):
    """One reading. uptime_s: seconds since boot when it was taken; boot_id: changes with every boot.

    devices: None when the files were not read; a device without any counter is not in it. carrier_changes: by network
    device, how often its carrier came or went since it exists.
    """

    uptime_s: float | None = None
    boot_id: str | None = None
    devices: tuple[DeviceCounters, ...] | None = None
    carrier_changes: dict[str, int] = Field(default_factory=dict)

    def device(self, name: str) -> DeviceCounters | None:
        """A device by name, or None."""
        return next((item for item in self.devices or () if item.name == name), None)


class KeptCounters(Fact):
    """A reading of one node that was kept."""

    read_at: datetime
    counters: NodeCounters


class CounterRecord(Fact):
    """Earlier readings of a pair, to compare with. problem: why the record that is there could not be used."""

    head: KeptCounters | None = None
    worker: KeptCounters | None = None
    problem: str | None = None


def parse_counters(files: Mapping[str, str] | None) -> NodeCounters:
    """The counters by path and content. A value that is no whole number was not seen."""
    if files is None:
        return NodeCounters()
    found: dict[str, dict[str, dict[str, int]]] = {}
    carriers: dict[str, int] = {}
    for path, text in files.items():
        match = _COUNTER.fullmatch(path)
        value = whole_number(text)
        port = _CARRIER.fullmatch(path)
        if port is not None and value is not None:
            carriers[port[1]] = value
        elif match is not None and value is not None:
            found.setdefault(match[1], {}).setdefault(match[2], {})[match[3]] = value
    return NodeCounters(
        uptime_s=parse_uptime(files.get(_UPTIME)),
        boot_id=files.get(_BOOT_ID, "").strip() or None,
        devices=tuple(
            DeviceCounters(name=name, counters=kinds.get("counters"), hw_counters=kinds.get("hw_counters"))
            for name, kinds in sorted(found.items())
        ),
        carrier_changes=dict(sorted(carriers.items())),
    )


def parse_uptime(text: str | None) -> float | None:
    """The first number of /proc/uptime."""
    word = (text or "").split(maxsplit=1)[:1]
    return float(word[0]) if word and re.fullmatch(r"\d{1,12}(\.\d{1,6})?", word[0], re.ASCII) else None


def seen_counters(reading: NodeReading) -> NodeCounters | None:
    """The counters of a reading, or None when they were not read."""
    files = reading.get("counters.files").files
    return None if files is None else parse_counters(files)


def read_counters(reading: NodeReading) -> NodeCounters:
    """The counters of a reading; everything in it is None when the node was not read."""
    return parse_counters(reading.get("counters.files").files)
