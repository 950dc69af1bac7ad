"""The soft-RoCE captures: each has its provenance, and what they are told to show is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RXE = Path(__file__).parents[3] / "fixtures/rxe"
DEVICES = ("rocep1s0f0", "rocep1s0f1", "roceP2p1s0f0", "roceP2p1s0f1")


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RXE / "manifest.json").read_text(encoding="utf-8"))
    return found


def sysfs(state: str, node: str = "head") -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((RXE / state / node / "sysfs.json").read_text(encoding="utf-8"))
    return found


def test_every_capture_has_its_provenance_and_nothing_else_is_listed() -> None:
    listed = manifest()
    there = {str(path.relative_to(RXE)) for path in RXE.rglob("*") if path.is_file()} - {"manifest.json"}
    assert {entry["file"] for entry in listed["fixtures"]} == there
    assert all(entry["kind"] == "real" and entry["command"] for entry in listed["fixtures"])
    assert {entry["state"] for entry in listed["fixtures"]} == set(listed["states"])
    assert listed["kernel"].startswith("6.1.0")


@pytest.mark.parametrize(
    ("state", "ipv4", "mtu"),
    [
        ("before-address", False, "1500"),
        ("mtu1500", True, "1500"),
        ("mtu9000", True, "9000"),
        ("after-reboot", True, "9000"),
    ],
)
def test_the_ipv4_gid_is_entry_one_and_there_only_with_an_address(state: str, ipv4: bool, mtu: str) -> None:
    for node, last in (("head", "0b"), ("worker", "0c")):
        tree = sysfs(state, node)
        for number, device in enumerate(("rocep1s0f0", "roceP2p1s0f0", "rocep1s0f1", "roceP2p1s0f1")):
            port = f"/sys/class/infiniband/{device}/ports/1"
            expected = (
                f"0000:0000:0000:0000:0000:ffff:c0a8:{0xB1 + number:02x}{last}" if ipv4 else ":".join(["0000"] * 8)
            )
            assert tree["files"][f"{port}/gids/1"].strip() == expected
            kind = tree["files"].get(f"{port}/gid_attrs/types/1", tree["errors"].get(f"{port}/gid_attrs/types/1"))
            assert kind == ("RoCE v2\n" if ipv4 else "EINVAL")
            netdev = tree["files"][f"/sys/class/infiniband/{device}/parent"].strip()
            assert tree["files"][f"/sys/class/net/{netdev}/mtu"].strip() == mtu


def test_a_pulled_cable_takes_the_state_the_carrier_and_the_address() -> None:
    files = sysfs("cable-1-out")["files"]
    down = [d for d in DEVICES if files[f"/sys/class/infiniband/{d}/ports/1/state"] == "1: DOWN\n"]
    assert down == ["rocep1s0f0", "roceP2p1s0f0"]
    assert files["/sys/class/net/enp1s0f0np0/carrier"] == "0\n"
    assert files["/sys/class/infiniband/rocep1s0f0/ports/1/gids/1"].startswith("0000:0000")


def test_rdma_bytes_are_in_the_ports_own_counters() -> None:
    before, after = (sysfs(f"{when}-traffic")["files"] for when in ("before", "after"))
    for port in ("enp1s0f0np0", "enP2p1s0f0np0"):
        name = f"/sys/class/net/{port}/statistics/tx_bytes"
        assert int(after[name]) - int(before[name]) > 300 * 65536
    assert not any("/ports/1/counters/" in name for name in after)
