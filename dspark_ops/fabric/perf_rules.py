"""What the runs of `fabric test` say, against the bands of the hardware or against none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dspark_ops.config.models import Role
from dspark_ops.fabric.bands import CABLE, FOUR_RAILS, HALF, LATENCY, SLOW_REMEDY, WEDGE_REMEDY, Band, is_wedge
from dspark_ops.fabric.error_counters import severity_of
from dspark_ops.fabric.split import SplitResult
from dspark_ops.fabric.traffic import Program, RailPath, TrafficResult
from dspark_ops.report.models import Finding, Remedy

Judged = Literal["ok", "warn", "fail", "unknown"]
_TROUBLE = Remedy(
    text="Read what perftest said; the device, the GID and the far end's address must be right (`fabric verify`).",
    command=("dspark-ops", "fabric", "verify"),
    remedy_class="M",
)


@dataclass(frozen=True)
class RailRun:
    """One rail in one run."""

    rail: RailPath
    result: TrafficResult


@dataclass(frozen=True)
class TrafficRun:
    """One run: rails that were loaded at the same time, and what both nodes counted meanwhile."""

    title: str
    program: Program
    server: Role
    rails: tuple[RailRun, ...]
    split: SplitResult

    @property
    def sum_gbps(self) -> float | None:
        """All rails together; None when one of them gave no number."""
        rates = [item.result.gbps for item in self.rails]
        return None if any(rate is None for rate in rates) else sum(rate for rate in rates if rate is not None)

    def counted_bytes(self, rail: RailPath) -> int | None:
        """What the sender's device counted on this rail."""
        sender: Role = "worker" if self.server == "head" else "head"
        node = self.split.of(sender)
        hca = rail.of(sender).hca
        return next((d.xmit_bytes for d in node.devices if d.hca == hca), None) if node is not None else None

    @property
    def errors_grew(self) -> bool:
        return any(
            severity_of(name) in ("fail", "warn")
            for node in self.split.nodes
            for device in node.devices
            for name in device.errors
        )


def judge_test(runs: Sequence[TrafficRun], *, no_band: str | None, look_alike: bool) -> tuple[Finding, ...]:
    """One finding a run. no_band: why the hardware's bands do not apply; then a number is ok for being there."""
    cages = {item.rail.cage for run in runs for item in run.rails}
    found = [_judge(run, _band_of(run, len(cages)), no_band) for run in runs]
    return tuple(finding.model_copy(update={"look_alike": look_alike}) for finding in found)


def _band_of(run: TrafficRun, cables: int) -> tuple[str, Band | None]:
    if run.program == "ib_write_lat":
        return "fabric.test_latency", LATENCY
    if len(run.rails) == 1:
        return "fabric.test_rail", HALF
    halves = sorted(item.rail.half or "?" for item in run.rails)
    if halves == ["A", "B"] and len({item.rail.cage for item in run.rails}) == 1:
        return "fabric.test_cable" if cables > 1 else "fabric.test_all", CABLE
    return "fabric.test_all", FOUR_RAILS if halves == ["A", "A", "B", "B"] else None


def _judge(run: TrafficRun, banded: tuple[str, Band | None], no_band: str | None) -> Finding:
    identity, band = banded
    title = f"Traffic over {run.title}" if run.program == "ib_write_bw" else run.title.capitalize()
    troubles = [f"{item.rail.name}: {item.result.trouble}" for item in run.rails if item.result.trouble]
    value = _value(run)
    if troubles or value is None:
        return _finding(identity, run, "unknown", title, "; ".join(troubles) or "no number", None, _TROUBLE)
    unit = "us" if run.program == "ib_write_lat" else "Gb/s"
    seen = f"{value:.4g} {unit}" + _each(run)
    if no_band is not None or band is None:
        why = no_band or "an uneven set of rails"
        return _finding(identity, run, "ok", title, f"{seen}; no band: {why}", None, None)
    status: Judged = band.judge(value)
    remedy = None if status == "ok" else SLOW_REMEDY
    if band is HALF and is_wedge(value, errors_grew=run.errors_grew):
        seen, remedy = f"{seen}, and no error counter grew: the 13 Gb/s wedge", WEDGE_REMEDY
    return _finding(identity, run, status, title, seen, band.expected, remedy)


def _value(run: TrafficRun) -> float | None:
    return run.rails[0].result.typical_us if run.program == "ib_write_lat" else run.sum_gbps


def _each(run: TrafficRun) -> str:
    if len(run.rails) == 1:
        return ""
    return f" ({', '.join(f'{item.rail.name} {item.result.gbps:.4g}' for item in _numbered(run))})"


def _numbered(run: TrafficRun) -> Iterable[RailRun]:
    return (item for item in run.rails if item.result.gbps is not None)


def _finding(
    identity: str,
    run: TrafficRun,
    status: Judged,
    title: str,
    observed: str,
    expected: str | None,
    remedy: Remedy | None,
) -> Finding:
    rails = [item.result.facts for item in run.rails]
    first = rails[0] if rails else None
    told = f"queue pairs {first.queue_pairs}, MTU {first.mtu_bytes}" if first is not None and first.mtu_bytes else None
    return Finding(
        id=identity,
        node="pair",
        status=status,
        title=title,
        observed=observed,
        expected=expected,
        severity="advised" if identity == "fabric.test_latency" else "required",
        remedy=remedy,
        evidence=told,
    )
