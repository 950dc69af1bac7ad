"""The NIC beside its RDMA tree: what ethtool says of its ports, its modules, its PCIe errors, who may flash it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field

from dspark_ops.facts.ethtool import PortPause, PortSettings, parse_fec, parse_pause, parse_settings
from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.transport.base import Command, Files, ForEach, Links, NodeReading, Probe

_RDMA = "/sys/class/infiniband"
_PORTS = (f"{_RDMA}/*/device/net/*",)
_MODULES = ("mlx5_core", "mlx5_ib", "ib_uverbs", "rdma_rxe", "nvidia_peermem", "nv_peer_mem")
_DPKG = "/var/lib/dpkg/info/"
_UPDATERS = ("mlnx-fw-updater", "mlnx-fw-updater-signed")
PROBES: tuple[Probe, ...] = (
    Links(
        "nic.there",
        (
            "/sys/class/net/*/phy80211",
            *(f"/sys/module/{name}" for name in _MODULES),
            "/dev/infiniband/uverbs*",
            *(f"{_DPKG}{name}.list" for name in _UPDATERS),
            "/etc/nvidia/cx7-hotplug-enabled",
        ),
    ),
    Files(
        "nic.files",
        (
            "/sys/module/mlx5_core/version",
            f"{_RDMA}/*/device/aer_dev_fatal",
            f"{_RDMA}/*/device/aer_dev_nonfatal",
        ),
        max_bytes=2048,
    ),
    ForEach("nic.settings", ("ethtool", "{}"), links=_PORTS, timeout_s=2.0),
    ForEach("nic.pause", ("ethtool", "-a", "{}"), links=_PORTS, timeout_s=2.0),
    ForEach("nic.fec", ("ethtool", "--show-fec", "{}"), links=_PORTS, timeout_s=2.0),
    Command("nic.networkmanager", ("nmcli", "-t", "-f", "DEVICE,STATE", "device"), timeout_s=2.0),
)
_AER = re.compile(r"/sys/class/infiniband/([^/]+)/device/aer_dev_(fatal|nonfatal)")
_TOTAL = re.compile(r"^TOTAL_ERR_\w+ (\d{1,12})$", re.MULTILINE)


class PcieErrors(Fact):
    """What one function counts of PCIe errors since it was found. None: it does not count them."""

    fatal: int | None = None
    nonfatal: int | None = None


class PortFacts(Fact):
    """One port as ethtool shows it; a part that is None was not shown. fec: the error correction in force."""

    netdev: str
    settings: PortSettings | None = None
    pause: PortPause | None = None
    fec: str | None = None


class NicFacts(Fact):
    """What is there beside the RDMA tree.

    wireless: the network devices that are radios. modules: the loaded ones of those that matter here. verbs_devices:
    the files /dev/infiniband/uverbs*. updaters: installed packages that flash NIC firmware by themselves. hotplug: the
    flag file that lets the NIC lose its power without a cable. driver_version: of a driver that is not the kernel's own
    (OFED, DOCA), None for the kernel's. pcie_errors: by RDMA device. managed: NetworkManager's state of a device.
    """

    wireless: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    verbs_devices: int = 0
    updaters: tuple[str, ...] = ()
    hotplug: bool = False
    driver_version: str | None = None
    pcie_errors: dict[str, PcieErrors] = Field(default_factory=dict)
    ports: tuple[PortFacts, ...] | None = None
    managed: dict[str, str] | None = None

    def port(self, netdev: str) -> PortFacts | None:
        """A port by its network device, or None."""
        return next((port for port in self.ports or () if port.netdev == netdev), None)


def parse_pcie_errors(files: Mapping[str, str]) -> dict[str, PcieErrors]:
    """The totals of `aer_dev_fatal` and `aer_dev_nonfatal`, by RDMA device; one without either file is not in it."""
    found: dict[str, dict[str, int | None]] = {}
    for path, text in files.items():
        match = _AER.fullmatch(path)
        if match is not None:
            total = _TOTAL.search(text)
            found.setdefault(match[1], {})[match[2]] = whole_number(total[1]) if total else None
    return {name: PcieErrors.model_validate(kinds) for name, kinds in sorted(found.items())}


def parse_managed(text: str | None) -> dict[str, str] | None:
    """Device to state of `nmcli -t -f DEVICE,STATE device`; None when NetworkManager did not answer."""
    if text is None:
        return None
    rows = [line.rpartition(":") for line in text.splitlines()]
    return {name.replace("\\:", ":"): state for name, _, state in rows if name and state}


def _ports(reading: NodeReading) -> tuple[PortFacts, ...] | None:
    """What ethtool told of each port; None where it told nothing at all: it is not installed, or there is no port."""
    settings, pause, fec = (reading.get(f"nic.{kind}").files or {} for kind in ("settings", "pause", "fec"))
    found = tuple(
        PortFacts(
            netdev=netdev,
            settings=parse_settings(settings.get(netdev)),
            pause=parse_pause(pause.get(netdev)),
            fec=parse_fec(fec.get(netdev)),
        )
        for netdev in sorted(settings.keys() | pause.keys() | fec.keys())
    )
    return found or None


def read_nic(reading: NodeReading) -> NicFacts | None:
    """The NIC of a reading; None when it was not read."""
    there, files = reading.get("nic.there").files, reading.get("nic.files").files
    if there is None or files is None:
        return None
    return NicFacts(
        wireless=tuple(sorted(path.split("/")[4] for path in there if path.endswith("/phy80211"))),
        modules=tuple(name for name in _MODULES if f"/sys/module/{name}" in there),
        verbs_devices=sum(path.startswith("/dev/infiniband/uverbs") for path in there),
        updaters=tuple(name for name in _UPDATERS if f"{_DPKG}{name}.list" in there),
        hotplug="/etc/nvidia/cx7-hotplug-enabled" in there,
        driver_version=files.get("/sys/module/mlx5_core/version", "").strip() or None,
        pcie_errors=parse_pcie_errors(files),
        ports=_ports(reading),
        managed=parse_managed(reading.get("nic.networkmanager").text()),
    )
