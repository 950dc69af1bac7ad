"""The system's units that matter to a serving pair: those it needs, those that may disturb it."""

from __future__ import annotations

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading, Probe

CLOCK_UNITS = ("systemd-timesyncd.service", "chrony.service", "chronyd.service", "ntpsec.service", "ntp.service")
SERVER_UNITS = (
    *("ollama.service", "llama-server.service", "llama-cpp.service", "comfyui.service", "vllm.service"),
    *("sglang.service", "lmstudio.service", "open-webui.service", "ray.service"),
)
UPGRADE_UNITS = ("unattended-upgrades.service", "apt-daily-upgrade.timer")
OOMD_PARTS = ("-.slice", "system.slice", "docker.service")
UNITS = (
    *CLOCK_UNITS,
    *SERVER_UNITS,
    *UPGRADE_UNITS,
    *OOMD_PARTS,
    *("docker.socket", "containerd.service", "ssh.service", "ssh.socket", "display-manager.service"),
    *("earlyoom.service", "systemd-oomd.service", "nvidia-persistenced.service", "systemd-journald.service"),
    *("systemd-networkd.service", "NetworkManager.service"),
)
_PROPERTIES = "Id,Names,LoadState,ActiveState,UnitFileState,ManagedOOMSwap,ManagedOOMMemoryPressure"
PROBES: tuple[Probe, ...] = (
    Command("units.states", ("systemctl", "show", f"--property={_PROPERTIES}", "--", *UNITS), timeout_s=4.0),
)


class UnitState(Fact):
    """A unit that is there. active: active, inactive, failed … enablement: enabled, disabled, static, masked …

    oom_swap, oom_pressure: kill when systemd-oomd may end what runs below it.
    """

    name: str
    aliases: tuple[str, ...] = ()
    active: str | None = None
    enablement: str | None = None
    oom_swap: str | None = None
    oom_pressure: str | None = None


def parse_states(text: str | None) -> tuple[UnitState, ...] | None:
    """The units of `systemctl show`, one block each; those that are not there are left out. None without any block."""
    if text is None:
        return None
    found, blocks = [], 0
    for block in text.replace("\r", "").split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if not values.get("Id"):
            continue
        blocks += 1
        if values.get("LoadState") in ("not-found", "error", "bad-setting"):
            continue
        found.append(
            UnitState(
                name=values["Id"],
                aliases=tuple(name for name in values.get("Names", "").split() if name != values["Id"]),
                active=values.get("ActiveState") or None,
                enablement=values.get("UnitFileState") or None,
                oom_swap=values.get("ManagedOOMSwap") or None,
                oom_pressure=values.get("ManagedOOMMemoryPressure") or None,
            )
        )
    return tuple(found) if blocks else None


def unit_named(units: tuple[UnitState, ...], name: str) -> UnitState | None:
    """A unit by its name or by another name that it has; None when it is not there."""
    return next((unit for unit in units if name == unit.name or name in unit.aliases), None)


def read_units(reading: NodeReading) -> tuple[UnitState, ...] | None:
    """The units of a reading; None when systemd was not asked."""
    return parse_states(reading.get("units.states").text())
