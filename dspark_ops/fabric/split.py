"""How the bytes spread over devices, cages and PCIe halves between two readings of both nodes. Pure arithmetic.

A cage hangs on two PCIe x4 links, half A and half B, so a split that looks even between two cables can still be all on
one half: three views are kept apart. Both directions count, because a ring can be one-sided on each node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from dspark_ops.config.models import ROLES, Role
from dspark_ops.fabric.error_counters import GAUGES, grown
from dspark_ops.fabric.ports import Half
from dspark_ops.fabric.selection import SplitPort
from dspark_ops.facts.counters import DeviceCounters, NodeCounters


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceSplit(_Model):
    """One device between the two readings. share_percent: of its node's bytes, both directions together.

    Bytes and packets are None where the device has no such counter; rates are None also without a clock.
    errors: the counters of error_counters that grew.
    """

    role: Role
    hca: str
    rail: str | None
    cage: int | None
    half: Half | None
    expected: bool
    xmit_bytes: int | None = None
    rcv_bytes: int | None = None
    xmit_packets: int | None = None
    rcv_packets: int | None = None
    xmit_gbps: float | None = None
    rcv_gbps: float | None = None
    share_percent: float | None = None
    errors: dict[str, int] = {}

    @property
    def sum_bytes(self) -> int | None:
        return None if self.xmit_bytes is None or self.rcv_bytes is None else self.xmit_bytes + self.rcv_bytes


class NodeSplit(_Model):
    """One node between the two readings. unreadable, reset: why there is nothing to judge, in one sentence.

    interval_s: by the node's own clock. cages, halves: percent by cage number and by half; a device whose place is
    unknown is in neither. sum_bytes: all devices, both directions.
    """

    role: Role
    interval_s: float | None
    devices: tuple[DeviceSplit, ...]
    unreadable: str | None = None
    reset: str | None = None
    sum_bytes: int | None = None
    cages: dict[int, float] = {}
    halves: dict[Half, float] = {}

    @property
    def expected(self) -> tuple[DeviceSplit, ...]:
        return tuple(device for device in self.devices if device.expected)

    @property
    def comparable(self) -> bool:
        """The two readings belong together and hold bytes."""
        return self.unreadable is None and self.reset is None


class SplitResult(_Model):
    """Both nodes, the head's first; a node that was not asked about is absent."""

    nodes: tuple[NodeSplit, ...]

    def of(self, role: Role) -> NodeSplit | None:
        return next((node for node in self.nodes if node.role == role), None)


def measure_split(
    ports: Sequence[SplitPort], before: Mapping[Role, NodeCounters], after: Mapping[Role, NodeCounters]
) -> SplitResult:
    """What went over each device between the two readings of each node."""
    return SplitResult(
        nodes=tuple(
            _node(role, [port for port in ports if port.role == role], before[role], after[role])
            for role in ROLES
            if role in before and role in after
        )
    )


def _node(role: Role, ports: Sequence[SplitPort], before: NodeCounters, after: NodeCounters) -> NodeSplit:
    interval_s = None
    if before.uptime_s is not None and after.uptime_s is not None:
        interval_s = round(after.uptime_s - before.uptime_s, 3)
    reset = _reset(before, after, interval_s)
    if before.devices is None or after.devices is None or reset is not None:
        why = None if reset else "the counters could not be read"
        return NodeSplit(
            role=role,
            interval_s=interval_s,
            devices=tuple(_bare(port) for port in ports),
            unreadable=why,
            reset=reset,
        )
    devices = [_device(port, before.device(port.hca), after.device(port.hca), interval_s) for port in ports]
    total = sum(device.sum_bytes or 0 for device in devices)
    if total:
        devices = [
            d.model_copy(update={"share_percent": 100.0 * d.sum_bytes / total}) if d.sum_bytes is not None else d
            for d in devices
        ]
    blind = [device.hca for device in devices if device.expected and device.sum_bytes is None]
    return NodeSplit(
        role=role,
        interval_s=interval_s,
        devices=tuple(devices),
        unreadable=f"no byte counters on {', '.join(blind)}" if blind else None,
        sum_bytes=total if any(device.sum_bytes is not None for device in devices) else None,
        cages=_shares((d.cage, d.share_percent) for d in devices),
        halves=_shares((d.half, d.share_percent) for d in devices),
    )


def _shares[K: (int, Half)](pairs: Iterable[tuple[K | None, float | None]]) -> dict[K, float]:
    found: dict[K, float] = {}
    for key, share in pairs:
        if key is not None and share is not None:
            found[key] = found.get(key, 0.0) + share
    return dict(sorted(found.items()))
