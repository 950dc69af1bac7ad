"""The ConnectX-7 itself: all of it there, its driver, its firmware, and who may change that firmware."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, PairView, fail, judge, need, ok, warn
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.facts.nic import NicFacts
from dspark_ops.facts.rdma import HcaFacts
from dspark_ops.facts.snapshot import NodeFacts

# The board of a DGX Spark and of its OEM kin; firmware for another board has taken the NIC away.
SPARK_PSID = "NVD0000000087"
_PLACES = tuple((cage, half) for cage in (0, 1) for half in ("A", "B"))
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,6})")
_RATE = re.compile(r"(\d{1,6}(?:\.\d{1,2})?) Gb/sec")


def is_rehearsal(node: NodeFacts) -> bool:
    """The node says that parts of it are imitated."""
    return node.system is not None and node.system.look_alikes is not None


def not_virtual(node: NodeFacts) -> None:
    """End the rule where the ports are virtual: what it reads is not there, or a constant.

    Raises:
        NotApplicableError: the node is a rehearsal.
    """
    if is_rehearsal(node):
        raise NotApplicableError("the ports of a rehearsal are virtual")


def nic_of(node: NodeFacts) -> NicFacts:
    """What was read beside the RDMA tree.

    Raises:
        FactMissingError: it was not read.
    """
    return need(node.nic, f"the NIC of the {node.role}")


def hardware(node: NodeFacts) -> tuple[HcaFacts, ...]:
    """The RDMA devices that are hardware, or a look-alike of it.

    Raises:
        FactMissingError: the tree was not read.
        NotApplicableError: there is none, which nic.functions tells, or all of them are soft-RoCE.
    """
    devices = need(node.rdma, f"/sys/class/infiniband of the {node.role}")
    if not devices:
        raise NotApplicableError("there is no RDMA device")
    found = tuple(hca for hca in devices if hca.driver != "rxe")
    if not found:
        raise NotApplicableError("soft-RoCE is no hardware")
    return found


@node_rule("nic.modules")
def modules(view: NodeView) -> Outcome:
    """The RDMA modules are loaded and a program can open the devices."""
    not_virtual(view.node)
    hcas, nic = need(view.node.rdma, "/sys/class/infiniband"), nic_of(view.node)
    problems = []
    if not hcas and "mlx5_core" in nic.modules and "mlx5_ib" not in nic.modules:
        problems.append("mlx5_core is loaded and mlx5_ib is not: the NIC has no RDMA")
    if nic.verbs_devices < len(hcas):
        problems.append(f"{nic.verbs_devices} of {len(hcas)} RDMA devices have a file in /dev/infiniband (ib_uverbs)")
    return judge(problems, f"{nic.verbs_devices} verbs devices", "mlx5_ib and ib_uverbs loaded")


@node_rule("nic.functions")
def functions(view: NodeView) -> Outcome:
    """All four functions of the ConnectX-7 are there: two cages, each through two PCIe halves."""
    devices = need(view.node.rdma, "/sys/class/infiniband")
    if not devices and not any(rail.of(view.role).hca for rail in view.site.fabric.rails):
        raise NotApplicableError("the site names no RDMA device")
    if devices:
        devices = hardware(view.node)
    wanted = view.limits["functions"]
    seen = {(hca.cage, hca.half) for hca in devices if hca.cage is not None and hca.half is not None}
    if len(seen) >= wanted:
        return ok(f"{len(seen)} functions")
    missing = [f"cage {cage} half {half}" for cage, half in _PLACES if (cage, half) not in seen]
    there = ", ".join(hca.name for hca in devices) or "no RDMA device at all"
    return fail(f"{len(seen)} of {wanted:g} functions: {there}; missing: {', '.join(missing)}", f"{wanted:g} functions")


@node_rule("nic.one_board")
def one_board(view: NodeView) -> Outcome:
    """All functions belong to one board."""
    guids = {hca.sys_image_guid for hca in hardware(view.node) if hca.sys_image_guid}
    need(guids or None, "sys_image_guid of the RDMA devices")
    if len(guids) > 1:
        return warn(f"{len(guids)} boards: {', '.join(sorted(guids))}", "one ConnectX-7, one sys_image_guid")
    return ok("one board")


@node_rule("nic.firmware_floor")
def firmware_floor(view: NodeView) -> Outcome:
    """The firmware is not older than the one that a Spark is known to run well with."""
    floor = tuple(int(view.limits[part]) for part in ("family", "minor", "build"))
    old, seen = [], []
    for hca in hardware(view.node):
        shown = _VERSION.fullmatch(need(hca.firmware, f"the firmware of {hca.name}"))
        version = tuple(map(int, need(shown, f"the firmware of {hca.name}").groups()))
        seen.append(hca.firmware)
        if version < floor:
            old.append(f"{hca.name} has {hca.firmware}")
    return judge(old, f"firmware {seen[0]}", f"at least {'.'.join(map(str, floor))}")


@pair_rule("nic.psid")
def psid(view: PairView) -> Outcome:
    """Every function runs firmware that was built for the board of a Spark."""
    other = []
    for node in view.facts.nodes:
        for hca in hardware(node):
            board = need(hca.board_id, f"the PSID of {hca.name} on the {node.role}")
            if board != SPARK_PSID:
                other.append(f"{node.role} {hca.name} has PSID {board}")
    return judge(other, SPARK_PSID, f"PSID {SPARK_PSID} on every function of both nodes")


@node_rule("nic.fw_updater")
def fw_updater(view: NodeView) -> Outcome:
    """No package is installed that flashes generic firmware by itself."""
    found = nic_of(view.node).updaters
    return judge([f"{name} is installed" for name in found], "none is installed", "no package that flashes the NIC")


@pair_rule("nic.driver_parity")
def driver_parity(view: PairView) -> Outcome:
    """Both nodes use the same mlx5 driver: the kernel's own, or the same version of another."""
    kinds = []
    for node in view.facts.nodes:
        hardware(node)
        version = nic_of(node).driver_version
        kinds.append("the kernel's own" if version is None else f"{version} (OFED or DOCA)")
    return _same(kinds, "the mlx5 driver")


@pair_rule("nic.hotplug_parity")
def hotplug_parity(view: PairView) -> Outcome:
    """The flag that lets the NIC lose its power is set on both nodes or on none."""
    kinds = []
    for node in view.facts.nodes:
        hardware(node)
        kinds.append("set" if nic_of(node).hotplug else "not set")
    return _same(kinds, "/etc/nvidia/cx7-hotplug-enabled")


def _same(kinds: Sequence[str], what: str) -> Outcome:
    head, worker = kinds
    if head == worker:
        return ok(f"{what}: {head}, on both")
    return fail(f"{what}: {head} on the head, {worker} on the worker", f"{what} the same on both")


@node_rule("nic.peermem")
def peermem(view: NodeView) -> Outcome:
    """No module for GPUDirect RDMA is loaded: a GB10 has none."""
    found = [name for name in nic_of(view.node).modules if name in ("nvidia_peermem", "nv_peer_mem")]
    return judge([f"{name} is loaded" for name in found], "none is loaded", "no peer memory module")


@node_rule("nic.rdma_rate")
def rdma_rate(view: NodeView) -> Outcome:
    """Every ACTIVE RDMA device of a rail runs at full rate."""
    wanted = view.limits["rate"]
    slow, judged = [], 0
    for hca in _active_rails(view):
        shown = _RATE.match(need(hca.rate, f"the rate of {hca.name}"))
        rate = float(need(shown, f"the rate of {hca.name}")[1])
        judged += 1
        if rate < wanted:
            slow.append(f"{hca.name} runs at {hca.rate}")
    return judge(slow, f"{judged} devices at {wanted:g} Gb/s", f"{wanted:g} Gb/s")


@node_rule("nic.link_layer")
def link_layer(view: NodeView) -> Outcome:
    """Every port of a rail is in Ethernet mode, not in InfiniBand mode."""
    other = [
        f"{hca.name} is in {hca.link_layer} mode"
        for hca in _rails(view)
        if need(hca.link_layer, f"the link layer of {hca.name}") != "Ethernet"
    ]
    return judge(other, "Ethernet", "Ethernet on every rail")


def _rails(view: NodeView) -> list[HcaFacts]:
    """The hardware behind the rails; one that is missing is the business of fabric.hca_active."""
    netdevs = {rail.of(view.role).netdev for rail in view.site.fabric.rails}
    found = [hca for hca in hardware(view.node) if hca.netdev in netdevs]
    if not found:
        raise NotApplicableError("no RDMA device of a rail exists here")
    return found


def _active_rails(view: NodeView) -> list[HcaFacts]:
    found = [hca for hca in _rails(view) if hca.active]
    if not found:
        raise NotApplicableError("no rail is ACTIVE")
    return found
