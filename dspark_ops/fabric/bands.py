"""What a healthy GB10 pair reaches, as data: every number with who measured it and when it was looked up.

A band is for ConnectX-7 hardware. Soft-RoCE and rehearsal look-alikes are measured, and judged against nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from dspark_ops.facts.nccl_tests import NcclTestFacts
from dspark_ops.report.models import Finding, Remedy

Judged = Literal["ok", "warn", "fail"]
_SEEN = date(2026, 11, 25)


@dataclass(frozen=True)
class Band:
    """From `good` on it is ok. Below `bad` it fails; bad None: it only ever warns. lower: less is better."""

    name: str
    unit: str
    good: float
    bad: float | None
    measured: str
    source: str
    date: date = _SEEN
    lower: bool = False

    def judge(self, value: float) -> Judged:
        """Where a value lies."""
        if value <= self.good if self.lower else value >= self.good:
            return "ok"
        if self.bad is not None and (value > self.bad if self.lower else value < self.bad):
            return "fail"
        return "warn"

    @property
    def expected(self) -> str:
        """The band in words, with its source."""
        sign = "at most" if self.lower else "at least"
        return f"{sign} {self.good:g} {self.unit} ({self.measured}; {self.source}, {self.date:%Y-%m-%d})"


HALF = Band(
    "one PCIe half",
    "Gb/s",
    90.0,
    60.0,
    "92.6 to 98 with one queue pair, 105 to 111.7 with four",
    "NVIDIA/dgx-spark-playbooks connect-two-sparks guide; graham33/nixos-dgx-spark; eugr/spark-vllm-docker",
)
CABLE = Band(
    "both halves of one cable",
    "Gb/s",
    175.0,
    None,
    "189.85 and 196.08",
    "NVIDIA/dgx-spark-playbooks connect-two-sparks benchmarking guide; public GitHub file, ref 55497936108",
)
FOUR_RAILS = Band(
    "four rails of two cables",
    "Gb/s",
    200.0,
    None,
    "218.36",
    "public GitHub file, ref 68883776085",
)
LATENCY = Band("latency of 2 bytes", "us", 3.0, None, "1.47", "eugr/spark-vllm-docker docs/NETWORKING.md", lower=True)
COLLECTIVE = Band(
    "all_gather or all_reduce of 1 to 4 GB",
    "GB/s",
    21.9,
    15.0,
    "21.875 is NVIDIA's gate, 22 to 24.2 measured",
    "NVIDIA/dgx-spark-playbooks multi-sparks-through-switch; graham33/nixos-dgx-spark; Reederey87 dgx-spark-2x",
)
# The NIC's power-limited state: every link says 200G, no error counter grows, and 13 Gb/s is all there is.
WEDGE_GBPS = (10.0, 15.0)
WEDGE_REMEDY = Remedy(
    text="The 13 Gb/s wedge: shut both boxes down, unplug power and the QSFP cables from both, wait a minute, plug "
    "in and start both (13.4 became 109 Gb/s so; graham33/nixos-dgx-spark and public GitHub file, ref 68320902073). "
    "A warm reboot does not cure it.",
    remedy_class="M",
)
SLOW_REMEDY = Remedy(
    text="Check that the half has all its PCIe lanes and that MTU is 9000 at both ends (`dspark-ops fabric verify`); "
    "reboot both nodes once and measure again.",
    command=("dspark-ops", "fabric", "verify"),
    remedy_class="M",
)
_ONE_HALF = (10.0, 15.0)
_SOCKETS = (2.0, 3.5)
_NCCL_WEDGE = (1.3, 2.0)
# Smaller messages do not fill the rails: 16 MB reach 150 Gb/s, 1 GB 185 (public GitHub file, ref 68883776085).
_JUDGED_FROM_BYTES = 1_000_000_000
_TELLING_FROM_BYTES = 16_000_000


def is_wedge(gbps: float, *, errors_grew: bool) -> bool:
    """About 13 Gb/s with clean counters."""
    return WEDGE_GBPS[0] <= gbps <= WEDGE_GBPS[1] and not errors_grew


def judge_collective(run: NcclTestFacts | None) -> Finding:
    """The result of an nccl-tests program that somebody ran: what its bus bandwidth says of the fabric."""
    title = "NCCL reaches what the cables can carry"
    if run is None or run.busbw_average is None or not run.rows:
        return _collective("unknown", title, "no result row and average in the output", "run nccl-tests once more")
    if run.world_of_one:
        return _collective(
            "unknown",
            title,
            "only one rank took part: each process measured itself alone, not the fabric",
            "Build nccl-tests with MPI=1 and start it over both nodes.",
        )
    value, largest = run.busbw_average, run.largest_bytes or 0
    seen = f"{run.collective or 'collective'} {value:g} GB/s at up to {largest / 1e6:g} MB over {run.ranks} ranks"
    wrong = sum(row.wrong or 0 for row in run.rows)
    if wrong:
        return _collective("fail", title, f"{seen}: {wrong} values came back wrong", "Stop the load: data is damaged.")
    if run.over_sockets:
        return _collective("fail", title, f"{seen}, over sockets", "Set NCCL_NET=IB and NCCL_IB_HCA for both ranks.")
    if largest < _TELLING_FROM_BYTES:
        return _collective("unknown", title, f"{seen}: too small to judge bandwidth", "Run it with sizes of 1 to 4 GB.")
    cause = _collective_cause(value)
    if cause is not None:
        return _collective("fail", title, f"{seen}: {cause[0]}", cause[1])
    status = COLLECTIVE.judge(value)
    if status != "ok" and largest < _JUDGED_FROM_BYTES:
        return _collective("unknown", title, f"{seen}: too small to judge bandwidth", "Run it with sizes of 1 to 4 GB.")
    return _collective(status, title, seen, SLOW_REMEDY.text)


def _collective_cause(value: float) -> tuple[str, str] | None:
    """What a value that no message size explains is known to mean."""
    if _ONE_HALF[0] <= value < _ONE_HALF[1]:
        return "one PCIe half only", "List both twins of every plugged cage in NCCL_IB_HCA."
    if _SOCKETS[0] <= value <= _SOCKETS[1]:
        return (
            "that is TCP sockets, or NIC firmware that differs between the boxes",
            "Look for `Using network Socket` in the log; then compare the firmware of both NICs.",
        )
    if _NCCL_WEDGE[0] <= value < _NCCL_WEDGE[1]:
        return "that is the 13 Gb/s wedge", WEDGE_REMEDY.text
    return ("no known cause", SLOW_REMEDY.text) if value < _ONE_HALF[0] else None


def _collective(status: Literal["ok", "warn", "fail", "unknown"], title: str, observed: str, advice: str) -> Finding:
    return Finding(
        id="fabric.collective",
        node="pair",
        status=status,
        title=title,
        observed=observed,
        expected=COLLECTIVE.expected,
        remedy=None if status == "ok" else Remedy(text=advice, remedy_class="M"),
    )
