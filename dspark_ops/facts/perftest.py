"""What ib_write_bw and ib_write_lat (linux-rdma/perftest) print. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from statistics import median

from dspark_ops.facts.model import Fact

_FIELD = re.compile(
    r"(Device|Number of qps|Connection type|Mtu|Link type|GID index|Data ex\. method)\s*:\s*(\S+)", re.ASCII
)
_GID = re.compile(r"^[ \t]*GID:[ \t]*((?:\d{1,3}:){15}\d{1,3})\s*$", re.MULTILINE | re.ASCII)
_TROUBLE = re.compile(
    r"(?i)\b(?:not found|unable to|couldn't|could not|failed|cannot|error|no such|unsupported|mismatch|timed? ?out)\b"
)
# perftest divides by 0x100000 when it was not asked for Gb/s.
_MIB_BITS = 0x100000 * 8


class BandwidthRow(Fact):
    """One printed interval. peak_gbps: None where the tool did not measure it (it prints 0.00)."""

    size_bytes: int
    iterations: int
    peak_gbps: float | None
    average_gbps: float
    rate_mpps: float | None = None


class LatencyRow(Fact):
    """One printed size, in microseconds."""

    size_bytes: int
    iterations: int
    min_us: float
    max_us: float
    typical_us: float
    average_us: float
    p99_us: float | None = None


class PerftestFacts(Fact):
    """One run of a perftest program. trouble: the first line in which it complains; with no row it is the reason.

    local, remote: the IPv4 addresses of the two GIDs, which perftest prints as decimal bytes.
    """

    device: str | None = None
    queue_pairs: int | None = None
    mtu_bytes: int | None = None
    link_type: str | None = None
    gid_index: int | None = None
    local: IPv4Address | None = None
    remote: IPv4Address | None = None
    bandwidth: tuple[BandwidthRow, ...] = ()
    latency: tuple[LatencyRow, ...] = ()
    trouble: str | None = None

    @property
    def average_gbps(self) -> float | None:
        """The middle of the intervals' averages: one slow interval at the start does not pull it."""
        return median(row.average_gbps for row in self.bandwidth) if self.bandwidth else None

    @property
    def typical_us(self) -> float | None:
        return median(row.typical_us for row in self.latency) if self.latency else None


def parse_perftest(text: str | None) -> PerftestFacts | None:
    """Standard output, or output and errors together; None when nothing was printed."""
    if text is None or not text.strip():
        return None
    fields = dict(_FIELD.findall(text))
    addresses = [_address(match) for match in _GID.findall(text)]
    bandwidth: list[BandwidthRow] = []
    latency: list[LatencyRow] = []
    trouble: str | None = None
    shape, to_gbps = None, 1.0
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["#bytes"]:
            shape = "latency" if "t_typical[usec]" in line else "bandwidth" if "BW average" in line else None
            to_gbps = 1.0 if "[Gb/sec]" in line else _MIB_BITS / 1e9
            continue
        numbers = _numbers(words)
        if shape == "bandwidth" and numbers is not None and len(numbers) >= 4:
            bandwidth.append(_bandwidth(numbers, to_gbps))
        elif shape == "latency" and numbers is not None and len(numbers) >= 6:
            latency.append(_latency(numbers))
        elif trouble is None and _TROUBLE.search(line) and "WARNING" not in line:
            trouble = line.strip()[:200]
    mtu = fields.get("Mtu", "").removesuffix("[B]")
    return PerftestFacts(
        device=fields.get("Device"),
        queue_pairs=_small(fields.get("Number of qps")),
        mtu_bytes=_small(mtu),
        link_type=fields.get("Link type"),
        gid_index=_small(fields.get("GID index")),
        local=addresses[0] if addresses else None,
        remote=addresses[1] if len(addresses) > 1 else None,
        bandwidth=tuple(bandwidth),
        latency=tuple(latency),
        trouble=trouble,
    )


def _bandwidth(numbers: list[float], to_gbps: float) -> BandwidthRow:
    return BandwidthRow(
        size_bytes=int(numbers[0]),
        iterations=int(numbers[1]),
        peak_gbps=numbers[2] * to_gbps or None,
        average_gbps=numbers[3] * to_gbps,
        rate_mpps=numbers[4] if len(numbers) > 4 else None,
    )


def _latency(numbers: list[float]) -> LatencyRow:
    return LatencyRow(
        size_bytes=int(numbers[0]),
        iterations=int(numbers[1]),
        min_us=numbers[2],
        max_us=numbers[3],
        typical_us=numbers[4],
        average_us=numbers[5],
        p99_us=numbers[7] if len(numbers) > 7 else None,
    )


def _numbers(words: list[str]) -> list[float] | None:
    if not words or not all(re.fullmatch(r"\d{1,15}(\.\d{1,9})?", word, re.ASCII) for word in words):
        return None
    return [float(word) for word in words]


def _small(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\d{1,6}", text, re.ASCII) else None


def _address(text: str) -> IPv4Address | None:
    """The IPv4 address of a mapped GID that is printed as sixteen decimal bytes."""
    parts = [int(part) for part in text.split(":")]
    if any(part > 255 for part in parts) or parts[:12] != [0] * 10 + [255, 255]:
        return None
    return IPv4Address(bytes(parts[12:]))
