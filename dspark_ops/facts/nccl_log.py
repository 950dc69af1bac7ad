"""What NCCL says that it uses: its INFO and WARN lines, wherever a rank's log holds them."""

from __future__ import annotations

import re
from typing import Literal

from dspark_ops.facts.model import Fact

# The second is vLLM's own line, which it prints at every start; NCCL's needs NCCL_DEBUG.
_VERSION = re.compile(r"(?:NCCL version |vLLM is using nccl==)(\d+\.\d+\.\d+)")
_USING = re.compile(r"NET/IB : Using (.*?)(?:; OOB ([^\s:]+):(\S+?)(?:<\d+>)?)?$", re.MULTILINE)
_DEVICE = re.compile(r"\[(\d{1,4})\]([^\s:]+):(\d{1,4})/(\S+)")
_VIRTUAL = re.compile(r"NET/IB : Made virtual device \[(\d{1,4})\] name=(\S+) speed=(\d{1,9}) ndevs=\d+")
_NETWORK = re.compile(r"Using network (\w+)")
_SOCKET = re.compile(r"NET/Socket : Using ((?:\[\d+\]\S+ ?)+)")
_SOCKET_DEVICE = re.compile(r"\[\d+\]([^\s:]+):")
_GDR = re.compile(r"\bGDR (\d)\b")
_GID = re.compile(r"NCCL_IB_GID_INDEX set by environment to (-?\d{1,4})")
_HCA = re.compile(r"NCCL_IB_HCA set to (\S+)")
_QP = re.compile(r"Call to ibv_modify_qp failed with 61 .*?on dev ([^\s:,]+).*?local GID index (\d{1,4})")
_RETRY = re.compile(r"IBV_WC_RETRY_EXC_ERR\(12\)")
_MEMORY = re.compile(r"Call to ibv_reg_mr\w* failed with error Cannot allocate memory")
_ABSENT = re.compile(r"NET/IB : No device found")
_OVERRIDE = re.compile(r"Subnet-aware routing: overriding dev (\d+) with dev (\d+)")

Cause = Literal["gid-index-empty", "rail-unreachable", "memlock-or-cma", "no-rdma-device"]


class NcclDevice(Fact):
    """One RDMA device in NCCL's list."""

    index: int
    hca: str
    port: int
    layer: str


class NcclVirtualNic(Fact):
    """Devices that NCCL fused into one. speed_mbps: as advertised, which the two PCIe halves need not reach."""

    index: int
    members: tuple[str, ...]
    speed_mbps: int


class NcclFailure(Fact):
    """Why it could not work. hca, gid_index: where a line names them."""

    cause: Cause
    hca: str | None = None
    gid_index: int | None = None


class NcclLogFacts(Fact):
    """What a log says. network: what it settled on, IB or Socket; None when no line tells.

    oob: the network device of the bootstrap. gdr: GPUDirect RDMA, which GB10 does not have. gid_index: as pinned.
    subnet_routing: the devices that were replaced to keep to a subnet.
    """

    version: str | None = None
    network: str | None = None
    devices: tuple[NcclDevice, ...] = ()
    virtual: tuple[NcclVirtualNic, ...] = ()
    oob: str | None = None
    sockets: tuple[str, ...] = ()
    gdr: bool | None = None
    gid_index: int | None = None
    hca_variable: str | None = None
    subnet_routing: tuple[tuple[int, int], ...] = ()
    failures: tuple[NcclFailure, ...] = ()

    @property
    def hcas(self) -> tuple[str, ...]:
        """The RDMA devices by name."""
        return tuple(device.hca for device in self.devices)


def parse_nccl_log(text: str | None) -> NcclLogFacts | None:
    """The last word of the log on each subject; None without a log. A log without NCCL's lines gives empty facts."""
    if text is None:
        return None
    devices, oob = _devices(text)
    networks = _NETWORK.findall(text)
    sockets = tuple(dict.fromkeys(_SOCKET_DEVICE.findall(" ".join(_SOCKET.findall(text)))))
    network = networks[-1] if networks else "IB" if devices else "Socket" if sockets else None
    versions, gdr = _VERSION.findall(text), _GDR.findall(text)
    pinned, variable = _GID.findall(text), _HCA.findall(text)
    return NcclLogFacts(
        version=versions[-1] if versions else None,
        network=network,
        devices=devices,
        virtual=tuple(
            NcclVirtualNic(index=int(i), members=tuple(filter(None, names.split("+"))), speed_mbps=int(speed))
            for i, names, speed in _VIRTUAL.findall(text)
            if len(i) < 5 and len(speed) < 10
        ),
        oob=oob,
        sockets=sockets,
        gdr=gdr[-1] != "0" if gdr else None,
        gid_index=int(pinned[-1]) if pinned else None,
        hca_variable=variable[-1] if variable else None,
        subnet_routing=tuple((int(a), int(b)) for a, b in _OVERRIDE.findall(text) if len(a) < 5 and len(b) < 5),
        failures=_failures(text),
    )


def _devices(text: str) -> tuple[tuple[NcclDevice, ...], str | None]:
    said = [match for match in _USING.finditer(text) if _DEVICE.search(match[1])]
    if not said:
        return (), None
    found = tuple(
        NcclDevice(index=int(i), hca=name, port=int(port), layer=layer)
        for i, name, port, layer in _DEVICE.findall(said[-1][1])
        if len(i) < 5 and len(port) < 5
    )
    return found, said[-1][2]


def _failures(text: str) -> tuple[NcclFailure, ...]:
    found = [
        NcclFailure(cause="gid-index-empty", hca=hca, gid_index=int(index))
        for hca, index in _QP.findall(text)
        if len(index) < 5
    ]
    found += [NcclFailure(cause="rail-unreachable")] if _RETRY.search(text) else []
    found += [NcclFailure(cause="memlock-or-cma")] if _MEMORY.search(text) else []
    found += [NcclFailure(cause="no-rdma-device")] if _ABSENT.search(text) else []
    return tuple(dict.fromkeys(found))
