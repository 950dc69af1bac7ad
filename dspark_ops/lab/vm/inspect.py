"""Looks at the VM pair: processes, SSH, and each node's own word about its ports. Changes nothing."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from dspark_ops.errors import NoVerdictError
from dspark_ops.lab.layout import NODES, Node
from dspark_ops.lab.models import LookAlike
from dspark_ops.lab.record import read_model
from dspark_ops.lab.ssh_access import ask
from dspark_ops.lab.vm import machine
from dspark_ops.lab.vm.disks import read_disks
from dspark_ops.lab.vm.layout import RAILS, VmPaths
from dspark_ops.lab.vm.models import ProcessState, VmNode, VmPort, VmRecord, VmStatus
from dspark_ops.lab.vm.monitor import Monitor
from dspark_ops.paths import data_dir

_ASK_TIMEOUT_S = 20


def inspect(paths: VmPaths) -> VmStatus:
    """The pair as it is now."""
    record = read_model(paths.record, VmRecord)
    nodes = tuple(_node(paths, node, record or VmRecord()) for node in NODES)
    disks = read_disks(paths)
    problems = _problems(nodes)
    down = all(node.process == "absent" for node in nodes)
    return VmStatus(
        state="down" if down else "partial" if problems else "up",
        problems=() if down else tuple(problems),
        acceleration=machine.acceleration(),
        snapshot=disks is not None and disks.saved,
        cables=None if down or record is None else record.cables,
        ssh_config=paths.ssh_config if paths.ssh_config.is_file() else None,
        nodes=nodes,
        look_alikes=look_alikes(),
        phases_s=record.phases_s if record else {},
    )


def look_alikes() -> tuple[LookAlike, ...]:
    """What the VMs lack of a Spark: the list that each carries as /etc/dspark-lab.json."""
    listed = data_dir("images") / "node-vm/rootfs/etc/dspark-lab.json"
    return tuple(LookAlike.model_validate(item) for item in json.loads(listed.read_text(encoding="utf-8")))


def parse_ports(said: str, pulled: tuple[str, ...]) -> tuple[VmPort, ...]:
    """The four ports from a line of `ip -j addr` and a line of `rdma -j link`; what is not said is None."""
    links, devices = _objects(said)
    by_port = {link.get("ifname"): link for link in links}
    by_device = {device.get("ifname"): device for device in devices}
    found = []
    for rail in RAILS:
        link = by_port.get(rail.name)
        device = by_device.get(rail.rdma)
        addresses = link.get("addr_info", []) if link else []
        found.append(
            VmPort(
                name=rail.name,
                cage=rail.port.cage,
                cable=rail.cable,
                plugged=rail.name not in pulled,
                rdma=rail.rdma,
                carrier="LOWER_UP" in link.get("flags", []) if link else None,
                mtu=link.get("mtu") if link else None,
                addresses=tuple(f"{a['local']}/{a['prefixlen']}" for a in addresses if a.get("scope") == "global"),
                rdma_state=device.get("state") if device else None,
            )
        )
    return tuple(found)


def _objects(said: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    lines = [line for line in said.splitlines() if line.strip()]
    with suppress(ValueError):
        links, devices = (json.loads(line) for line in lines)
        return links, devices
    return [], []


def _node(paths: VmPaths, node: Node, record: VmRecord) -> VmNode:
    pid = machine.pid(paths, node)
    running: bool | None = None
    if pid is not None:
        with suppress(NoVerdictError), Monitor(paths.monitor(node), timeout_s=10) as monitor:
            running = monitor.running()
    said = ask(paths, node, "ip -j addr; rdma -j link", timeout_s=_ASK_TIMEOUT_S) if running else None
    states: dict[bool | None, ProcessState] = {True: "running", False: "paused", None: "unknown"}
    return VmNode(
        name=node.name,
        process="absent" if pid is None else states[running],
        pid=pid,
        ssh_port=record.ssh_ports.get(node.name),
        ssh=said is not None,
        ports=parse_ports(said or "", record.pulled) if pid is not None else (),
    )


def _problems(nodes: tuple[VmNode, ...]) -> list[str]:
    found = []
    for node in nodes:
        if node.process != "running":
            found.append(f"{node.name}: the VM is {node.process}")
        elif not node.ssh:
            found.append(f"{node.name}: no answer over SSH")
        else:
            lacking = [port.rdma for port in node.ports if port.rdma_state is None]
            found += [f"{node.name}: no RDMA device {', '.join(lacking)}"] if lacking else []
    return found
