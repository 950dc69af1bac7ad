"""What goes on at the ports of the NIC: negotiation, flow control, PCIe errors, what the kernel said, what grew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from dspark_ops.doctor.outcome import (
    FactMissingError,
    NodeView,
    NotApplicableError,
    Outcome,
    PairView,
    fail,
    judge,
    need,
    ok,
)
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.doctor.rules.nic import hardware, nic_of, not_virtual
from dspark_ops.fabric.counter_record import restarted_since
from dspark_ops.fabric.error_counters import grown, severity_of
from dspark_ops.facts.counters import KeptCounters, NodeCounters
from dspark_ops.facts.nic import PortFacts

_COPPER, _FIBRE = "Direct Attach Copper", "FIBRE"


@node_rule("nic.pcie_fatal")
def pcie_fatal(view: NodeView) -> Outcome:
    """No function counts a fatal PCIe error."""
    return _pcie_errors(view, "fatal")


@node_rule("nic.pcie_nonfatal")
def pcie_nonfatal(view: NodeView) -> Outcome:
    """No function counts an uncorrected PCIe error that it survived."""
    return _pcie_errors(view, "nonfatal")


def _pcie_errors(view: NodeView, kind: Literal["fatal", "nonfatal"]) -> Outcome:
    devices, counted = hardware(view.node), nic_of(view.node).pcie_errors
    most = view.limits["errors"]
    values = {}
    for hca in devices:
        errors = counted.get(hca.name)
        value = None if errors is None else errors.fatal if kind == "fatal" else errors.nonfatal
        if value is not None:
            values[hca.name] = value
    if not values:
        raise NotApplicableError("the kernel counts no PCIe errors of these devices")
    bad = [f"{name} counts {value} {kind} PCIe errors" for name, value in values.items() if value > most]
    return judge(bad, f"no {kind} PCIe error on {len(values)} functions", f"at most {most:g}")


@pair_rule("nic.cable_kind")
def cable_kind(view: PairView) -> Outcome:
    """Both ends of a rail see the same kind of cable, copper or fibre."""
    return _ends(
        view, "the kind of cable", lambda port: port.settings.port if port.settings else None, {_COPPER, _FIBRE}
    )


@pair_rule("nic.fec")
def fec(view: PairView) -> Outcome:
    """Both ends of a rail use the error correction that 200 Gb/s over copper needs."""
    return _ends(view, "the FEC", lambda port: port.fec, {"RS"})


@pair_rule("nic.autoneg_parity")
def autoneg_parity(view: PairView) -> Outcome:
    """Both ends of a rail negotiate their speed, or neither does."""
    return _ends(
        view,
        "the negotiation",
        lambda port: None if port.settings is None else _on(port.settings.autoneg, "auto-negotiation"),
    )


@pair_rule("nic.pause_parity")
def pause_parity(view: PairView) -> Outcome:
    """Both ends of a rail have the same flow control."""

    def shown(port: PortFacts) -> str | None:
        if port.pause is None or port.pause.rx is None or port.pause.tx is None:
            return None
        return f"{_on(port.pause.rx, 'rx pause')}, {_on(port.pause.tx, 'tx pause')}"

    return _ends(view, "the flow control", shown)


def _on(value: bool | None, what: str) -> str | None:
    return None if value is None else f"{what} {'on' if value else 'off'}"


def _ends(view: PairView, what: str, of: Callable[[PortFacts], str | None], wanted: set[str] | None = None) -> Outcome:
    """Something that ethtool shows, the same at both ends of every cabled rail, and one of the wanted."""
    problems, seen = [], []
    for rail in view.site.fabric.rails:
        told = []
        for node in view.facts.nodes:
            not_virtual(node)
            netdev = rail.of(node.role).netdev
            link = node.link(netdev)
            if link is None or not link.carrier:
                break  # that is the business of fabric.ports_up
            port = need(nic_of(node).port(netdev), f"ethtool of {netdev} on the {node.role}")
            told.append(need(of(port), f"{what} of {netdev} on the {node.role}"))
        if len(told) < 2:
            continue
        head, worker = told
        seen.append(head)
        if head != worker:
            problems.append(f"rail {rail.name}: {head} at the head, {worker} at the worker")
        elif wanted is not None and head not in wanted:
            problems.append(f"rail {rail.name}: {head} at both ends")
    if not seen:
        raise NotApplicableError("no rail has a carrier at both ends")
    choice = f", one of {', '.join(sorted(wanted))}" if wanted else ""
    return judge(problems, ", ".join(sorted(set(seen))), f"{what} the same at both ends{choice}")


@node_rule("nic.pcie_bandwidth")
def pcie_bandwidth(view: NodeView) -> Outcome:
    """The kernel found the full PCIe bandwidth at every function when it booted."""
    not_virtual(view.node)
    hardware(view.node)
    log, wanted = need(view.node.kernel_log, "the kernel log"), view.limits["bandwidth"]
    if not log.pcie_gbps:
        if log.whole:
            raise NotApplicableError("the kernel said nothing of the PCIe bandwidth")
        raise FactMissingError("the beginning of this boot is no longer in the kernel log, and could not be read")
    low = [f"{place} has {rate:g} Gb/s" for place, rate in log.pcie_gbps.items() if rate < wanted]
    return judge(low, f"{wanted:g} Gb/s at {len(log.pcie_gbps)} functions", f"{wanted:g} Gb/s at every function")


@node_rule("nic.torn_down")
def torn_down(view: NodeView) -> Outcome:
    """The kernel did not take a function of the NIC down since it booted."""
    not_virtual(view.node)
    devices = need(view.node.rdma, "/sys/class/infiniband")
    if devices:
        hardware(view.node)
    log = need(view.node.kernel_log, "the kernel log")
    if not log.nic_gone and not log.whole:
        raise FactMissingError("the beginning of this boot is no longer in the kernel log, and could not be read")
    here = {hca.pci for hca in devices}
    told = [
        f"{place} was taken down{' and came back' if place in here else ' and is gone'} (E-Switch: cleanup)"
        for place in log.nic_gone
    ]
    return judge(told, "no function was taken down in this boot", "no function of the NIC taken down")


def kept(view: NodeView) -> tuple[KeptCounters, NodeCounters]:
    """The kept reading of this node and the new one, of the same boot.

    Raises:
        FactMissingError: the counters were not read.
        NotApplicableError: there is nothing to compare with.
    """
    record = view.facts.counter_record
    if record is None:
        raise NotApplicableError("no earlier reading to compare with")
    if record.problem is not None:
        raise NotApplicableError(f"no earlier reading to compare with: {record.problem}")
    old = record.head if view.role == "head" else record.worker
    if old is None:
        raise NotApplicableError("no earlier reading of this node to compare with")
    now = need(view.node.counters, "the counters of the NIC")
    need(now.devices, "the counters of the NIC")
    if need(now.boot_id, "the id of this boot") != old.counters.boot_id:
        raise NotApplicableError("the node was booted since the earlier reading")
    return old, now


def since(old: KeptCounters) -> str:
    """When the kept reading was made."""
    return f"{old.read_at:%Y-%m-%d %H:%M} UTC"


@node_rule("nic.link_flaps")
def link_flaps(view: NodeView) -> Outcome:
    """No rail lost and found its carrier over and over since the kept reading."""
    not_virtual(view.node)
    old, now = kept(view)
    most, flaps, judged = view.limits["changes"], [], 0
    for rail in view.site.fabric.rails:
        netdev = rail.of(view.role).netdev
        before, after = old.counters.carrier_changes.get(netdev), now.carrier_changes.get(netdev)
        if before is None or after is None:
            continue
        judged += 1
        if after - before > most:
            flaps.append(f"the carrier of {netdev} (rail {rail.name}) changed {after - before} times")
    if not judged:
        raise FactMissingError("carrier_changes of the rails could not be read")
    return judge(flaps, f"steady since {since(old)}", f"at most {most:g} changes since {since(old)}")


@node_rule("nic.error_counters")
def error_counters(view: NodeView) -> Outcome:
    """No counter of lost, broken or repeated packets grew since the kept reading, while the rank served."""
    return _growth(view, "fail")


@node_rule("nic.retry_counters")
def retry_counters(view: NodeView) -> Outcome:
    """No counter of waiting, dropping or slowing down grew since the kept reading, while the rank served."""
    return _growth(view, "warn")


def _growth(view: NodeView, severity: Literal["fail", "warn"]) -> Outcome:
    hardware(view.node)
    old, now = kept(view)
    view.running_rank()
    if restarted_since(view.node, old.read_at):
        raise NotApplicableError("the rank was started since the earlier reading, and its predecessor's end counts too")
    told, judged = [], 0
    for rail in view.site.fabric.rails:
        hca = view.node.hca_of(rail.of(view.role).netdev)
        before, after = (None if hca is None else each.device(hca.name) for each in (old.counters, now))
        if hca is None or before is None or after is None:
            continue
        judged += 1
        growth = grown(before.all(), after.all())
        told += [f"{hca.name} {name} +{more}" for name, more in growth.items() if severity_of(name) == severity]
    if not judged:
        raise FactMissingError("the counters of the rails could not be read")
    if told:
        return fail(f"{'; '.join(told)} since {since(old)}", f"no growth since {since(old)}")
    return ok(f"none grew since {since(old)}")
