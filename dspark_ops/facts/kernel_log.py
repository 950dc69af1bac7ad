"""What the kernel said of the NIC and the GPU: PCIe bandwidth, slot power, a device that went away, Xid errors."""

from __future__ import annotations

import re

from pydantic import Field

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading, Probe

# Only the lines of the NIC, and the first line of a boot: with it, the log reaches back to the start of this boot.
# Not one reading with `kernel_events`: that one is bounded to its last lines, of which a healthy driver may write any
# number, while this one must begin with the boot; in one output the many would push out the few.
PROBES: tuple[Probe, ...] = (
    Command(
        "kernel.nic",
        (
            "journalctl",
            "--dmesg",
            "--boot",
            "--quiet",
            "--no-pager",
            "--output=cat",
            "--grep=mlx5_core|cx7-pcie-hotplug|Linux version",
        ),
        root=True,
        timeout_s=2.0,
    ),
)

_BANDWIDTH = re.compile(r"mlx5_core (\S+): (\d{1,5}\.\d{1,3}) Gb/s available PCIe bandwidth")
_SLOT = re.compile(r"mlx5_core \S+: .*insufficient power on the PCIe slot \((\d{1,4})W\)")
_GONE = re.compile(r"mlx5_core (\S+): E-Switch: cleanup")
_HOTPLUG = re.compile(r"cx7-pcie-hotplug .*: Hotplug (enabled|disabled)")
_XID = re.compile(r"NVRM: Xid\D{0,40}?(\d{1,4}),")
_BOOT = re.compile(r"^(?:\[[^\]]*\] )?Linux version \d", re.MULTILINE)
_LIMIT_BYTES = 1 << 20
_NO_MEMORY = re.compile(r"NVRM: .*NV_ERR_NO_MEMORY")


class KernelLogFacts(Fact):
    """One log. pcie_gbps: by PCI address of the NIC's functions; the GPU's own line (x0) is no PCIe link and left out.

    slot_power_w: what the slot claims to give, which healthy links print too. nic_gone: functions that were torn down.
    no_memory: lines of the driver's memory error, frequent in healthy runs. None: the log says nothing of it.
    whole: it begins with the boot and was read to its end, so that what is not in it did not happen since.
    """

    pcie_gbps: dict[str, float] = Field(default_factory=dict)
    slot_power_w: int | None = None
    nic_gone: tuple[str, ...] = ()
    hotplug: bool | None = None
    xids: tuple[int, ...] = ()
    no_memory: int = 0
    whole: bool = False


def parse_kernel_log(text: str | None, *, cut: bool = False) -> KernelLogFacts | None:
    """The lines of `dmesg` or `journalctl -k` that concern the fabric and the GPU; None without a log.

    cut: the end of it is not there, so that it is not whole wherever it begins.
    """
    if text is None:
        return None
    slots, hotplug = _SLOT.findall(text), _HOTPLUG.findall(text)
    return KernelLogFacts(
        pcie_gbps={address: float(rate) for address, rate in _BANDWIDTH.findall(text)},
        slot_power_w=int(slots[-1]) if slots else None,
        nic_gone=tuple(dict.fromkeys(_GONE.findall(text))),
        hotplug=hotplug[-1] == "enabled" if hotplug else None,
        xids=tuple(dict.fromkeys(map(int, _XID.findall(text)))),
        no_memory=len(_NO_MEMORY.findall(text)),
        whole=not cut and _BOOT.search(text) is not None,
    )


def read_kernel_log(reading: NodeReading) -> KernelLogFacts | None:
    """The NIC's lines of this boot. None where they could not be read; where nothing fits, journalctl ends with 1."""
    result = reading.get("kernel.nic")
    if result.error is not None or result.rc not in (0, 1) or (result.rc == 1 and (result.stderr or "").strip()):
        return None
    text = result.stdout or ""
    # A recording of an earlier version does not tell, but for its size.
    return parse_kernel_log(text, cut=len(text.encode()) >= _LIMIT_BYTES if result.cut is None else result.cut)
