"""What the verbs tools print of RDMA devices: `ibv_devinfo` (read on every node) and `ibstat` (of foreign captures)."""

from __future__ import annotations

import re

from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.transport.base import Command, NodeReading, Probe

PROBES: tuple[Probe, ...] = (Command("rdma.devinfo", ("ibv_devinfo",)),)

_NONE = re.compile(r"^No IB devices found", re.MULTILINE)
_CA = re.compile(r"CA '([^']+)'")


class VerbsDevice(Fact):
    """One RDMA device, port 1.

    state: as the tool spells it (PORT_ACTIVE, Active). active_mtu_bytes: of a port that is not active it is always
    1024 and says nothing. rate_gbps: of the cage.
    """

    name: str
    state: str | None = None
    phys_state: str | None = None
    active_mtu_bytes: int | None = None
    max_mtu_bytes: int | None = None
    link_layer: str | None = None
    firmware: str | None = None
    board_id: str | None = None
    node_guid: str | None = None
    sys_image_guid: str | None = None
    vendor_id: str | None = None
    rate_gbps: int | None = None

    @property
    def active(self) -> bool | None:
        """The port is active; None when its state was not shown."""
        return None if self.state is None else self.state.upper().removeprefix("PORT_") == "ACTIVE"


def parse_ibv_devinfo(stdout: str | None, stderr: str | None = None) -> tuple[VerbsDevice, ...] | None:
    """The devices of `ibv_devinfo`. None when it printed none and did not say that there is none."""
    blocks: list[tuple[str, dict[str, str]]] = []
    for line in (stdout or "").splitlines():
        key, separator, value = (part.strip() for part in line.partition(":"))
        if key == "hca_id" and value:
            blocks.append((value, {}))
        elif separator and blocks:
            # The first port is port 1, and of a repeated key it is the first that counts.
            blocks[-1][1].setdefault(key, value)
    if not blocks:
        return () if _NONE.search(f"{stdout or ''}\n{stderr or ''}") else None
    return tuple(
        VerbsDevice(
            name=name,
            state=_word(said.get("state")),
            active_mtu_bytes=whole_number(_word(said.get("active_mtu"))),
            max_mtu_bytes=whole_number(_word(said.get("max_mtu"))),
            link_layer=said.get("link_layer") or None,
            firmware=said.get("fw_ver") or None,
            board_id=said.get("board_id") or None,
            node_guid=_guid(said.get("node_guid")),
            sys_image_guid=_guid(said.get("sys_image_guid")),
            vendor_id=said.get("vendor_id") or None,
        )
        for name, said in blocks
    )


def parse_ibstat(stdout: str | None) -> tuple[VerbsDevice, ...] | None:
    """The devices of `ibstat`, in any order; None when there is none in the text."""
    blocks: list[tuple[str, dict[str, str]]] = []
    for line in (stdout or "").splitlines():
        head = _CA.fullmatch(line.strip())
        key, separator, value = (part.strip() for part in line.partition(":"))
        if head:
            blocks.append((head[1], {}))
        elif separator and blocks:
            blocks[-1][1].setdefault(key.lower(), value)
    found = tuple(
        VerbsDevice(
            name=name,
            state=said.get("state") or None,
            phys_state=said.get("physical state") or None,
            link_layer=said.get("link layer") or None,
            firmware=said.get("firmware version") or None,
            node_guid=_guid(said.get("node guid")),
            sys_image_guid=_guid(said.get("system image guid")),
            rate_gbps=whole_number(said.get("rate")),
        )
        for name, said in blocks
    )
    return found or None


def _word(text: str | None) -> str | None:
    """`4096 (5)` is 4096."""
    parts = (text or "").split()
    return parts[0] if parts else None


def _guid(text: str | None) -> str | None:
    """Hexadecimal digits alone: one tool writes 0x0200…, another 0200:…"""
    digits = (text or "").lower().removeprefix("0x").replace(":", "")
    return digits if re.fullmatch(r"[0-9a-f]{16}", digits) else None


def read_verbs(reading: NodeReading) -> tuple[VerbsDevice, ...] | None:
    """The devices of a reading; None where the program is missing or failed."""
    result = reading.get("rdma.devinfo")
    return None if result.error is not None else parse_ibv_devinfo(result.stdout, result.stderr)
