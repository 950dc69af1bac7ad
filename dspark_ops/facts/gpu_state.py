"""What the GPU does at this moment: clock, load, power, heat, and what holds its clocks back."""

from __future__ import annotations

import re

from dspark_ops.facts.gpu import value_of
from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading, Probe

FIELDS = (
    "temperature.gpu",
    "power.draw",
    "clocks.sm",
    "utilization.gpu",
    "persistence_mode",
    "vbios_version",
)
PROBES: tuple[Probe, ...] = (
    Command("gpu.state", ("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")),
    # A field of its own call: an unknown one makes nvidia-smi refuse all of them.
    Command("gpu.reasons", ("nvidia-smi", "--query-gpu=clocks_event_reasons.active", "--format=csv,noheader")),
)

#: Bits of clocks_event_reasons that mean that the hardware or the heat holds the clocks back (NVML).
HELD_BACK = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


class GpuStateFacts(Fact):
    """One sample. reasons: the bit mask of what holds the clocks back; None where the driver does not tell."""

    temperature_c: float | None = None
    power_w: float | None = None
    sm_mhz: float | None = None
    utilization_pct: float | None = None
    persistence: bool | None = None
    vbios: str | None = None
    reasons: int | None = None

    @property
    def held_back_by(self) -> tuple[str, ...]:
        """What holds the clocks back, in words."""
        return tuple(words for bit, words in HELD_BACK.items() if (self.reasons or 0) & bit)


def parse_state(text: str | None, fields: tuple[str, ...] = FIELDS) -> GpuStateFacts | None:
    """The first GPU of a query of these fields, with or without units; None when the row is not whole."""
    rows = [line for line in (text or "").splitlines() if line.strip()]
    cells = [value_of(cell) for cell in rows[0].split(",")] if rows else []
    if len(cells) != len(fields):
        return None
    found = dict(zip(fields, cells, strict=True))
    return GpuStateFacts(
        temperature_c=_number(found.get("temperature.gpu")),
        power_w=_number(found.get("power.draw")),
        sm_mhz=_number(found.get("clocks.sm")),
        utilization_pct=_number(found.get("utilization.gpu")),
        persistence={"enabled": True, "disabled": False}.get((found.get("persistence_mode") or "").lower()),
        vbios=found.get("vbios_version"),
    )


def parse_reasons(text: str | None) -> int | None:
    """The bit mask, as 0x0000000000000004."""
    found = re.match(r"\s*(0x[0-9a-fA-F]{1,16})\s*$", text or "", re.MULTILINE)
    return int(found[1], 16) if found else None


def _number(text: str | None) -> float | None:
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,4})?)(?: (?:MHz|W|%|C))?", text or "")
    return float(found[1]) if found else None


def read_gpu_state(reading: NodeReading) -> GpuStateFacts | None:
    """The sample of a reading; None when nvidia-smi gave none."""
    state = parse_state(reading.get("gpu.state").text())
    reasons = parse_reasons(reading.get("gpu.reasons").text())
    return None if state is None else state.model_copy(update={"reasons": reasons})
