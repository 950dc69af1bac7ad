"""Writes /sys/class/infiniband as mlx5 would, from what the real port is now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gid_table
from board import BOARD_ID, FIRMWARE, GID_ENTRIES, PORTS, RUN, TREE, Port, guid
from gid_table import Gid
from pci_functions import link

ZERO_GID = ":".join(["0000"] * 8)
#: Reading it fails with EINVAL (the loopback has no speed), as reading an empty entry's type does in the kernel.
_READS_EINVAL = "/sys/class/net/lo/speed"
_SCRATCH = RUN / "scratch"
_HW_COUNTERS = (
    "duplicate_request",
    "implied_nak_seq_err",
    "lifespan",
    "local_ack_timeout_err",
    "np_cnp_sent",
    "np_ecn_marked_roce_packets",
    "out_of_buffer",
    "out_of_sequence",
    "packet_seq_err",
    "req_cqe_error",
    "req_cqe_flush_error",
    "req_remote_access_errors",
    "req_remote_invalid_request",
    "resp_cqe_error",
    "resp_cqe_flush_error",
    "resp_local_length_error",
    "resp_remote_access_errors",
    "rnr_nak_retry_err",
    "roce_adp_retrans",
    "roce_adp_retrans_to",
    "roce_slow_restart",
    "roce_slow_restart_cnps",
    "roce_slow_restart_trans",
    "rp_cnp_handled",
    "rp_cnp_ignored",
    "rx_atomic_requests",
    "rx_icrc_encapsulated",
    "rx_read_requests",
    "rx_write_requests",
)
_STILL_COUNTERS = (
    "excessive_buffer_overrun_errors",
    "link_downed",
    "link_error_recovery",
    "local_link_integrity_errors",
    "port_rcv_constraint_errors",
    "port_rcv_remote_physical_errors",
    "port_rcv_switch_relay_errors",
    "port_xmit_constraint_errors",
    "port_xmit_wait",
    "symbol_error",
    "VL15_dropped",
)


@dataclass(frozen=True)
class Link:
    """A network port as the kernel shows it. `running` is carrier with the port administratively up."""

    name: str
    mac: str
    admin_up: bool
    running: bool
    addresses: tuple[str, ...]


def refresh(links: Mapping[str, Link]) -> None:
    """Bring every device in step with its port; a device whose port is gone is taken off, like a NIC off its bus."""
    base = min((links[p.netdev].mac for p in PORTS if p.netdev in links), default="")
    for port in PORTS:
        seen = links.get(port.netdev)
        if seen is None:
            remove(port)
        else:
            _refresh_device(port, seen, base)


def remove(port: Port) -> None:
    """Take the device out of the class, then its directory."""
    (TREE / "class/infiniband" / port.rdma).unlink(missing_ok=True)
    (TREE / port.pci_directory / "net" / port.netdev).unlink(missing_ok=True)
    shutil.rmtree(port.directory, ignore_errors=True)


def refresh_counters() -> None:
    """Copy the port statistics into the RDMA counters; the data counters are in words of four bytes."""
    for port in PORTS:
        counters = port.directory / "ports/1/counters"
        statistics = Path("/sys/class/net", port.netdev, "statistics")
        if not counters.is_dir():
            continue
        try:
            value = {n: int((statistics / n).read_text(encoding="ascii")) for n in _STATISTICS}
        except (OSError, ValueError):
            continue
        put(counters / "port_xmit_data", str(value["tx_bytes"] // 4))
        put(counters / "port_rcv_data", str(value["rx_bytes"] // 4))
        for name in ("port_xmit_packets", "unicast_xmit_packets"):
            put(counters / name, str(value["tx_packets"]))
        for name in ("port_rcv_packets", "unicast_rcv_packets"):
            put(counters / name, str(value["rx_packets"]))
        put(counters / "port_rcv_errors", str(value["rx_errors"]))
        put(counters / "port_xmit_discards", str(value["tx_dropped"]))


_STATISTICS = ("tx_bytes", "rx_bytes", "tx_packets", "rx_packets", "rx_errors", "tx_dropped")


def put(path: Path, text: str) -> None:
    """Replace a file's line in one step, and only where it differs."""
    try:
        if path.read_text(encoding="ascii") == text + "\n":
            return
    except OSError:
        path.parent.mkdir(parents=True, exist_ok=True)
    # Written outside the tree (same file system), so that no reader meets a half-written or a strange name.
    _SCRATCH.mkdir(parents=True, exist_ok=True)
    new = _SCRATCH / "new"
    new.write_text(text + "\n", encoding="ascii")
    new.replace(path)


def _refresh_device(port: Port, seen: Link, base_mac: str) -> None:
    device = port.directory
    if not device.is_dir():
        _lay_device(port)
    put(device / "node_guid", guid(seen.mac))
    put(device / "sys_image_guid", guid(base_mac))
    here = device / "ports/1"
    put(here / "state", "4: ACTIVE" if seen.running else "1: DOWN")
    put(here / "phys_state", "5: LinkUp" if seen.running else "3: Disabled")
    put(here / "rate", "200 Gb/sec (2X NDR)" if seen.running else "40 Gb/sec (4X QDR)")
    _write_gids(here, port, gid_table.update(_read_gids(here), seen.mac, seen.addresses, size=GID_ENTRIES))
    link(TREE / port.pci_directory / "net" / port.netdev, f"/sys/devices/virtual/net/{port.netdev}")
    link(TREE / "class/infiniband" / port.rdma, f"/sys/{port.pci_directory}/infiniband/{port.rdma}")


def _lay_device(port: Port) -> None:
    """The parts of a device that never change."""
    device = port.directory
    constants = {
        "board_id": BOARD_ID,
        "fw_ver": FIRMWARE,
        "hca_type": "MT4129",
        "hw_rev": "0",
        "node_type": "1: CA",
        "node_desc": "rehearsal",
        "ports/1/link_layer": "Ethernet",
        "ports/1/lid": "0x0",
        "ports/1/lid_mask_count": "0",
        "ports/1/sm_lid": "0x0",
        "ports/1/sm_sl": "0",
        "ports/1/cap_mask": "0x00010000",
    }
    for name, value in constants.items():
        put(device / name, value)
    for name in _HW_COUNTERS:
        put(device / "ports/1/hw_counters" / name, "10" if name == "lifespan" else "0")
    for name in _STILL_COUNTERS:
        put(device / "ports/1/counters" / name, "0")
    link(device / "device", f"/sys/{port.pci_directory}")
    for index in range(GID_ENTRIES):
        put(device / f"ports/1/gids/{index}", ZERO_GID)
        link(device / f"ports/1/gid_attrs/types/{index}", _READS_EINVAL)
        link(device / f"ports/1/gid_attrs/ndevs/{index}", _READS_EINVAL)


def _read_gids(here: Path) -> tuple[Gid | None, ...]:
    """The table as it stands in the tree: the daemon remembers nothing else, so a restart keeps the holes."""
    table: list[Gid | None] = []
    for index in range(GID_ENTRIES):
        kind = here / f"gid_attrs/types/{index}"
        if kind.is_symlink():
            table.append(None)
        else:
            value = (here / f"gids/{index}").read_text(encoding="ascii").strip()
            table.append(Gid(value, kind.read_text(encoding="ascii").strip()))
    return tuple(table)


def _write_gids(here: Path, port: Port, table: tuple[Gid | None, ...]) -> None:
    for index, entry in enumerate(table):
        kind, ndev = here / f"gid_attrs/types/{index}", here / f"gid_attrs/ndevs/{index}"
        if entry is None:
            if not kind.is_symlink():
                put(here / f"gids/{index}", ZERO_GID)
                for attribute in (kind, ndev):
                    fresh = _SCRATCH / "link"
                    fresh.unlink(missing_ok=True)
                    fresh.symlink_to(_READS_EINVAL)
                    fresh.replace(attribute)
            continue
        put(here / f"gids/{index}", entry.value)
        put(kind, entry.type)
        put(ndev, port.netdev)
