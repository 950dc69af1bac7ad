"""The condition the host is in: its clock is kept, it went down in order, its storage and its units are well."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, fail, judge, need, ok
from dspark_ops.doctor.registry import node_rule
from dspark_ops.doctor.rules.hardware import on_hardware
from dspark_ops.facts.mounts import mount_of
from dspark_ops.facts.unit_states import CLOCK_UNITS, SERVER_UNITS, UPGRADE_UNITS, unit_named


@node_rule("host.time_sync")
def host_time_sync(view: NodeView) -> Outcome:
    """Something keeps the clock right."""
    on_hardware(view.node, "the clock")
    units = need(view.node.units, "the units")
    running = [u.name for u in (unit_named(units, name) for name in CLOCK_UNITS) if u and u.active == "active"]
    if running:
        return ok(f"{running[0]} keeps the clock")
    return fail("no service keeps the clock", f"one of {', '.join(CLOCK_UNITS)} is active")


@node_rule("host.last_shutdown")
def host_last_shutdown(view: NodeView) -> Outcome:
    """The boot before this one ended with a shutdown."""
    on_hardware(view.node, "the power")
    end = need(need(view.node.kernel, "the kernel").previous_end, "the end of the boot before this one")
    if end == "none":
        raise NotApplicableError("no journal of an earlier boot is kept")
    if end == "clean":
        return ok("the boot before this one ended with a shutdown")
    return fail("the journal of the boot before this one stops without a shutdown", "a shutdown or a reboot")


@node_rule("host.kernel_faults")
def host_kernel_faults(view: NodeView) -> Outcome:
    """The kernel complains of no failing storage, memory unit or PCIe link."""
    on_hardware(view.node, "the kernel's log")
    faults = need(view.node.kernel_events, "the kernel's log").faults
    if not faults:
        return ok("the kept log of this boot names none")
    return fail(
        f"the kernel's log says: {faults[0]}",
        "no I/O error, no SMMU timeout, no uncorrectable PCIe error",
        evidence="\n".join(faults),
    )


@node_rule("host.free_files")
def host_free_files(view: NodeView) -> Outcome:
    """There is room for more files, not only for more bytes."""
    floor = view.limits["min_free"]
    disks = need(view.node.disks, "the free space")
    shares = {disk.path: disk.free_files_pct for disk in disks if disk.free_files_pct is not None}
    if not shares:
        raise NotApplicableError("the file systems do not count their files")
    low = [f"{path} has {share:.1f} % of its files left" for path, share in shares.items() if share < floor]
    return judge(low, ", ".join(f"{path} {share:.0f} %" for path, share in shares.items()), f"at least {floor:g} %")


@node_rule("host.root_writable")
def host_root_writable(view: NodeView) -> Outcome:
    """The root file system may be written; the kernel takes that away when the disk fails."""
    root = need(mount_of(need(view.node.mounts, "the mounts"), "/"), "the root file system")
    if root.read_only:
        return fail(f"/ ({root.kind}) is mounted read-only", "a root file system that can be written")
    return ok(f"/ ({root.kind}) can be written")


@node_rule("host.units_failed")
def host_units_failed(view: NodeView) -> Outcome:
    """None of the services that the pair rests on has failed."""
    units = need(view.node.units, "the units")
    failed = [u.name for u in units if u.active == "failed" and u.name not in (*SERVER_UNITS, *UPGRADE_UNITS)]
    return judge([f"{name} has failed" for name in failed], "none of them has failed", "no failed unit")
