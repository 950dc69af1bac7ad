"""Trees of a node's kernel, written below a directory from the recorded captures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[3] / "fixtures"
GB10 = FIXTURES / "gb10"
RXE = FIXTURES / "rxe"
CONTAINER = "4c" * 32
OTHER_CONTAINER = "9d" * 32
RANK_ARGUMENTS = ["--node-rank=0", "--master-addr=10.77.0.1"]


def write(root: Path, path: str, text: str) -> None:
    """One file below the root."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def link(root: Path, path: str, target: str) -> None:
    """One symbolic link to a path of the tree."""
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(root / target.lstrip("/"))


def gb10(root: Path, tree: str = "infiniband-all-up-ok", counters: str = "two-cables-four-rails-25") -> None:
    """A GB10: the RDMA devices of a capture with their network devices, memory, messages, PCIe errors."""
    devices: dict[str, Any] = json.loads((GB10 / f"sysfs/{tree}.json").read_text(encoding="utf-8"))
    (root / "sys/class/infiniband").mkdir(parents=True, exist_ok=True)
    for hca, device in devices.items():
        _device(root, hca, device)
    if devices:
        set_counters(root, counters, "before", set(devices))
    host(root)


def _device(root: Path, hca: str, device: dict[str, Any]) -> None:
    netdev, pci, port = device["netdev"], device["pci"], device["ports"]["1"]
    function = f"/sys/devices/pci{pci[:4]}:00/{pci}"
    base = f"/sys/class/infiniband/{hca}/ports/1"
    for key in ("state", "phys_state", "rate", "link_layer"):
        write(root, f"{base}/{key}", port[key] + "\n")
    for kind, folder in (("gids", "gids"), ("types", "gid_attrs/types"), ("ndevs", "gid_attrs/ndevs")):
        for index, value in port[kind].items():
            if isinstance(value, str):  # an entry that read EINVAL is not there
                write(root, f"{base}/{folder}/{index}", value + "\n")
    up = port["state"].endswith("ACTIVE")
    net = f"/sys/class/net/{netdev}"
    write(root, f"{net}/phys_port_name", device["phys_port_name"] + "\n")
    write(root, f"{net}/mtu", f"{device['mtu']}\n")
    write(root, f"{net}/carrier", f"{int(up)}\n")
    write(root, f"{net}/carrier_changes", "3\n")
    write(root, f"{net}/speed", "200000\n" if up else "-1\n")
    write(root, f"{function}/current_link_width", "4\n")
    write(root, f"{function}/current_link_speed", "32.0 GT/s PCIe\n")
    write(root, f"{function}/infiniband/{hca}/node_type", "1: CA\n")
    write(root, f"{function}/net/{netdev}/ifindex", "7\n")
    link(root, f"{net}/device", function)
    link(root, f"/sys/class/infiniband/{hca}/device", function)
    link(root, f"/sys/bus/pci/devices/{pci}", function)
    link(root, f"{function}/driver", "/sys/bus/pci/drivers/mlx5_core")
    write(root, f"{function}/aer_dev_correctable", "RxErr 0\nBadTLP 2\nTOTAL_ERR_COR 2\n")
    write(root, f"{function}/aer_dev_nonfatal", "Undefined 0\nTOTAL_ERR_NONFATAL 0\n")
    write(root, f"{function}/aer_dev_fatal", "Undefined 0\nDLP 0\nTOTAL_ERR_FATAL 0\n")


def set_counters(root: Path, name: str, moment: str, hcas: set[str]) -> None:
    """The counters of a capture at one of its two moments (before, after); lifespan as a real mlx5 has it."""
    document = json.loads((GB10 / f"counters/{name}.json").read_text(encoding="utf-8"))
    for hca, sets in document[moment].items():
        if hca not in hcas:
            continue
        for kind, values in sets.items():
            for counter, value in values.items():
                write(root, f"/sys/class/infiniband/{hca}/ports/1/{kind}/{counter}", f"{value}\n")
        write(root, f"/sys/class/infiniband/{hca}/ports/1/hw_counters/lifespan", "10\n")


def host(root: Path, meminfo: str = "meminfo-healthy-idle") -> None:
    """Memory, the kernel's messages of a healthy boot, and the processes of an engine and of a stranger."""
    write(root, "/proc/meminfo", (GB10 / f"host/{meminfo}.txt").read_text(encoding="utf-8"))
    write(root, "/dev/kmsg", kmsg((GB10 / "dmesg/mlx5-probe-ok.txt").read_text(encoding="utf-8")))
    (root / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
    (root / "sys/class/net/lo").mkdir(parents=True, exist_ok=True)
    process(root, 412_200, ["vllm", "serve", *RANK_ARGUMENTS], f"0::/system.slice/docker-{CONTAINER}.scope\n")
    process(root, 412_233, ["VLLM::Worker_TP0"], f"0::/system.slice/docker-{CONTAINER}.scope\n")


def process(root: Path, pid: int, argv: list[str], cgroup: str) -> None:
    """One process as /proc shows it to everybody."""
    write(root, f"/proc/{pid}/cmdline", "\0".join(argv) + "\0")
    write(root, f"/proc/{pid}/cgroup", cgroup)


def kmsg(messages: str, first: int = 0) -> str:
    """Records of /dev/kmsg, one a message, with a continuation line each, as the kernel adds."""
    lines = messages.splitlines()
    return "".join(f"6,{first + n},{1000 + n},-;{text}\n SUBSYSTEM=pci\n" for n, text in enumerate(lines))


def vm(root: Path, capture: str = "mtu9000", node: str = "head") -> None:
    """A VM with soft-RoCE: no `counters` of bytes, no port names, no PCI function below the RDMA device."""
    document = json.loads((RXE / capture / node / "sysfs.json").read_text(encoding="utf-8"))
    for path, text in document["files"].items():
        write(root, path, text)
    host(root)


def configuration(**changes: Any) -> dict[str, Any]:
    """A head with four rails, as Ansible writes it."""
    rails = [
        ("p0a", "enp1s0f0np0", "rocep1s0f0", "10.77.0.1"),
        ("p0b", "enP2p1s0f0np0", "roceP2p1s0f0", "10.77.2.1"),
        ("p1a", "enp1s0f1np1", "rocep1s0f1", "10.77.1.1"),
        ("p1b", "enP2p1s0f1np1", "roceP2p1s0f1", "10.77.3.1"),
    ]
    document: dict[str, Any] = {
        "schema": "dspark-ops/exporter/v1",
        "site": "example",
        "role": "head",
        "listen": [{"address": "127.0.0.1", "port": 0}],
        "interval_s": 15,
        "stale_after_s": 60,
        "rails": [
            {"name": name, "netdev": netdev, "hca": hca, "address": address, "mtu": 9000}
            for name, netdev, hca, address in rails
        ],
        "memory_floor_bytes": 4 << 30,
        "gpu": True,
        "rank_arguments": RANK_ARGUMENTS,
        "engine_url": "http://127.0.0.1:8000",
        "max_model_len": 1_048_576,
        "supervisor_url": "http://127.0.0.1:8017",
        "gateway_url": None,
        "doctor_textfile": None,
    }
    return {**document, **changes}
