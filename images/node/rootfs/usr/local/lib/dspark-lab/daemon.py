"""Keeps the look-alikes in step: at once when a port or an address changes (rtnetlink), each second for the figures."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import gpu
import memory
import netdev_faces
import rdma_tree
from rdma_tree import Link

_RTMGRP = 0x1 | 0x10 | 0x100  # link, IPv4 address, IPv6 address
_TICK_S = 1.0
#: Events come in bursts (an address is several messages); the answer waits this long for the burst to end.
_SETTLE_S = 0.02
_BURST_S = 0.3
#: Even without an event the ports are read this often: an event may be lost when the socket overruns.
_FULL_EVERY_S = 10.0


def read_links() -> dict[str, Link]:
    """The node's ports and their usable addresses, from the kernel."""
    listed = subprocess.run(["ip", "-j", "addr"], capture_output=True, check=True, timeout=10).stdout
    links = {}
    for item in json.loads(listed):
        flags = set(item.get("flags", ()))
        links[item["ifname"]] = Link(
            name=item["ifname"],
            mac=item.get("address", "00:00:00:00:00:00"),
            admin_up="UP" in flags,
            running={"UP", "LOWER_UP"} <= flags,
            addresses=tuple(
                a["local"] for a in item.get("addr_info", ()) if "local" in a and not a.get("tentative", False)
            ),
        )
    return links


def refresh_ports() -> None:
    """Bring everything that follows the ports in step."""
    links = read_links()
    netdev_faces.refresh(links)
    rdma_tree.refresh(links)


def notify_ready() -> None:
    """Tell systemd that the look-alikes are laid."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall(b"READY=1")


def wait_for_event(watch: socket.socket, timeout_s: float) -> bool:
    """True when the kernel reported a change; the burst is read to its end."""
    if not select.select([watch], [], [], timeout_s)[0]:
        return False
    latest = time.monotonic() + _BURST_S
    while time.monotonic() < latest:
        with contextlib.suppress(OSError):  # ENOBUFS: some were lost, which a full reading makes good
            watch.recv(65536)
        if not select.select([watch], [], [], _SETTLE_S)[0]:
            break
    return True


def main() -> None:
    """Run until stopped; a failed round is reported and the next one tries again."""
    watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    watch.bind((0, _RTMGRP))
    gpu.serve()
    refresh_ports()
    notify_ready()
    full_at = tick_at = time.monotonic()
    while True:
        changed = wait_for_event(watch, max(0.0, tick_at + _TICK_S - time.monotonic()))
        now = time.monotonic()
        try:
            if changed or now - full_at >= _FULL_EVERY_S:
                refresh_ports()
                full_at = now
            if now - tick_at >= _TICK_S:
                tick_at = now
                memory.refresh()
                rdma_tree.refresh_counters()
        except Exception:
            traceback.print_exc()


if __name__ == "__main__":
    main()
