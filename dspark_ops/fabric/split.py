"""How the bytes spread over devices, cages and PCIe halves between two readings of both nodes. Pure arithmetic.

A cage hangs on two PCIe x4 links, half A and half B, so a split that looks even between two cables can still be all on
one half: three views are kept apart. Both directions count, because a ring can be one-sided on each node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from dspark_ops.config.models import ROLES, Role
from dspark_ops.fabric.error_counters import GAUGES, grown
from dspark_ops.fabric.ports import Half
from dspark_ops.fabric.selection import SplitPort
from dspark_ops.facts.counters import DeviceCounters, NodeCounters

K = TypeVar("K", int, Half)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceSplit(_Model):
    """One device between the two readings. share_percent: of its node's bytes, both directions together.

    Bytes and packets are None where the device has no such counter; rates are None also without a clock.
    error_counters: whether it has any to compare; errors: those that grew.
    """

    role: Role
    hca: str
    rail: str | None
    cage: int | None
    half: Half | None
    active: bool | None
    expected: bool
    xmit_bytes: int | None = None
    rcv_bytes: int | None = None
    xmit_packets: int | None = None
    rcv_packets: int | None = None
    xmit_gbps: float | None = None
    rcv_gbps: float | None = None
    share_percent: float | None = None
    error_counters: bool = False
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


def _shares(pairs: Iterable[tuple[K | None, float | None]]) -> dict[K, float]:
    found: dict[K, float] = {}
    for key, share in pairs:
        if key is not None and share is not None:
            found[key] = found.get(key, 0.0) + share
    return found


def _reset(before: NodeCounters, after: NodeCounters, interval_s: float | None) -> str | None:
    """Why the second reading does not continue the first one, or None when it does."""
    if before.boot_id and after.boot_id and before.boot_id != after.boot_id:
        return "the node was booted between the two readings"
    if interval_s is not None and interval_s < 0:
        return "the node's uptime went backwards"
    if after.devices is None:
        return None
    for old in before.devices or ():
        new = after.device(old.name)
        if new is None:
            return f"{old.name} is gone"
        then, now = old.all(), new.all()
        fallen = sorted(name for name in then.keys() & now.keys() - GAUGES if now[name] < then[name])
        if fallen:
            name = fallen[0]
            return f"{old.name} {name} fell from {then[name]} to {now[name]}"
        changed = [name for name in GAUGES & then.keys() & now.keys() if now[name] != then[name]]
        if changed:
            return f"{old.name} {changed[0]} changed: its driver was loaded anew"
    return None


def _bare(port: SplitPort) -> DeviceSplit:
    return DeviceSplit(
        role=port.role,
        hca=port.hca,
        rail=port.rail,
        cage=port.cage,
        half=port.half,
        active=port.active,
        expected=port.expected,
    )


def _device(
    port: SplitPort, before: DeviceCounters | None, after: DeviceCounters | None, interval_s: float | None
) -> DeviceSplit:
    if before is None or after is None:
        return _bare(port)
    xmit, rcv = _minus(after.xmit_bytes, before.xmit_bytes), _minus(after.rcv_bytes, before.rcv_bytes)
    return _bare(port).model_copy(
        update={
            "xmit_bytes": xmit,
            "rcv_bytes": rcv,
            "xmit_packets": _minus(after.xmit_packets, before.xmit_packets),
            "rcv_packets": _minus(after.rcv_packets, before.rcv_packets),
            "xmit_gbps": _gbps(xmit, interval_s),
            "rcv_gbps": _gbps(rcv, interval_s),
            "error_counters": before.hw_counters is not None and after.hw_counters is not None,
            "errors": grown(before.all(), after.all()),
        }
    )


def _minus(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _gbps(count_bytes: int | None, interval_s: float | None) -> float | None:
    return None if count_bytes is None or not interval_s else count_bytes * 8 / interval_s / 1e9
