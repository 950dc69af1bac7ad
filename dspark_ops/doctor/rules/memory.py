"""Unified memory: what reserves it, what ends processes for it, what is left of it in pieces."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, PairView, fail, need, ok, rank_of
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.doctor.rules.hardware import on_hardware
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.facts.unit_states import OOMD_PARTS, unit_named

_KIB_PER_GIB = 1024**2
_OVERRIDE = "zz-nvidia-drm-override.conf"


def _memory(view: NodeView) -> MemoryFacts:
    return need(view.node.memory, "/proc/meminfo")


def _before_a_start(view: NodeView, what: str) -> None:
    rank = rank_of(view.node, view.site)
    if rank is not None and rank.running:
        raise NotApplicableError(f"our rank runs: {what} is its own")


@pair_rule("memory.total_parity")
def total_parity(view: PairView) -> Outcome:
    """Both nodes have the same memory."""
    head, worker = (
        need(need(n.memory, f"the memory of the {n.role}").total_gib, f"MemTotal of the {n.role}")
        for n in view.facts.nodes
    )
    limit = view.limits["max_difference"]
    if abs(head - worker) <= limit:
        return ok(f"{head:.1f} and {worker:.1f} GiB")
    return fail(f"the head has {head:.1f} GiB, the worker {worker:.1f}", f"a difference of at most {limit:g} GiB")


@node_rule("memory.min_free")
def min_free(view: NodeView) -> Outcome:
    """The kernel does not keep so much memory to itself that a start is refused."""
    kept = need((view.node.sysctl or {}).get("vm/min_free_kbytes"), "vm.min_free_kbytes") / _KIB_PER_GIB
    limit = view.limits["max_reserve"]
    if kept <= limit:
        return ok(f"{kept:.2f} GiB are kept free")
    return fail(f"vm.min_free_kbytes keeps {kept:.1f} GiB", f"at most {limit:g} GiB")


@node_rule("memory.drm_override")
def drm_override(view: NodeView) -> Outcome:
    """No leftover setting of the display driver halves what the GPU may use."""
    names = need(need(view.node.kernel, "the kernel").module_files, "/etc/modprobe.d")
    if _OVERRIDE in names:
        return fail(f"/etc/modprobe.d/{_OVERRIDE} exists", "no such file")
    return ok(f"/etc/modprobe.d holds no {_OVERRIDE}")


@node_rule("memory.stall")
def stall(view: NodeView) -> Outcome:
    """Nothing stands still for want of memory."""
    on_hardware(view.node, "the pressure on memory")
    share, limit = need(_memory(view).stalled_pct, "/proc/pressure/memory"), view.limits["max_stalled"]
    if share < limit:
        return ok(f"{share:g} % of the last ten seconds")
    return fail(f"for {share:g} % of the last ten seconds everything waited for memory", f"less than {limit:g} %")


@node_rule("memory.oom_kills")
def oom_kills(view: NodeView) -> Outcome:
    """The kernel killed nothing for want of memory since the boot."""
    on_hardware(view.node, "the kernel's log")
    killed = need(view.node.kernel_events, "the kernel's log").killed
    if killed:
        return fail(f"killed for want of memory since the boot: {', '.join(killed)}", "no process killed")
    return ok("no process was killed in the kept log of this boot")


@node_rule("memory.earlyoom")
def earlyoom(view: NodeView) -> Outcome:
    """earlyoom, where it runs, waits until memory is really short."""
    unit = unit_named(need(view.node.units, "the units"), "earlyoom.service")
    if unit is None or unit.active != "active":
        return ok("earlyoom does not run")
    share, limit = need(_memory(view).earlyoom_pct, "/etc/default/earlyoom"), view.limits["max_share"]
    if share <= limit:
        return ok(f"earlyoom acts below {share:g} %")
    return fail(f"earlyoom ends a process below {share:g} % of free memory", f"at most {limit:g} %")


@node_rule("memory.oomd")
def oomd(view: NodeView) -> Outcome:
    """systemd-oomd, where it runs, leaves the containers alone."""
    units = need(view.node.units, "the units")
    daemon = unit_named(units, "systemd-oomd.service")
    if daemon is None or daemon.active != "active":
        return ok("systemd-oomd does not run")
    swap = need(_memory(view).swap_total_kib, "SwapTotal") > 0
    parts = [unit for unit in (unit_named(units, name) for name in OOMD_PARTS) if unit is not None]
    watched = [u.name for u in parts if u.oom_pressure == "kill" or (swap and u.oom_swap == "kill")]
    if watched:
        return fail(f"systemd-oomd may kill what runs below {', '.join(watched)}", "no such rule above a container")
    return ok("systemd-oomd runs and has no rule above the containers")


@node_rule("memory.large_blocks")
def large_blocks(view: NodeView) -> Outcome:
    """Before a start, memory is free in large pieces, not only in pages."""
    on_hardware(view.node, "the state of the memory's pieces")
    _before_a_start(view, "the memory")
    if "64k" in ((view.node.system.kernel if view.node.system else None) or ""):
        raise NotApplicableError("this kernel has pages of 64 KiB, and its columns are other pieces")
    free = need(_memory(view).large_free_kib, "/proc/buddyinfo") / _KIB_PER_GIB
    floor = view.limits["min_free"]
    if free >= floor:
        return ok(f"{free:.1f} GiB are free in pieces of 2 MiB and more")
    if view.site.guards.reclaim:
        return ok(f"{free:.1f} GiB are free in large pieces; a deploy makes more (guards.reclaim)")
    return fail(f"{free:.1f} GiB are free in pieces of 2 MiB and more", f"at least {floor:g} GiB before a start")


@node_rule("memory.huge_pages")
def huge_pages(view: NodeView) -> Outcome:
    """No memory is set aside for huge pages, which an engine does not use."""
    pages, limit = _memory(view).huge_pages_kib, view.limits["max_reserved"]
    if pages is None:
        raise NotApplicableError("this kernel shows no huge pages")
    kept = pages / _KIB_PER_GIB
    if kept <= limit:
        return ok(f"{kept:.1f} GiB are set aside")
    return fail(f"{kept:.1f} GiB are set aside for huge pages", f"at most {limit:g} GiB")


@node_rule("memory.shared_leftover")
def shared_leftover(view: NodeView) -> Outcome:
    """An engine that is gone left no shared memory behind."""
    _before_a_start(view, "shared memory")
    held, limit = need(_memory(view).shared_kib, "Shmem") / _KIB_PER_GIB, view.limits["max_shared"]
    if held <= limit:
        return ok(f"{held:.1f} GiB in shared memory and tmpfs")
    return fail(f"{held:.1f} GiB are in shared memory or tmpfs and no rank runs", f"at most {limit:g} GiB")


@node_rule("memory.swap_used")
def swap_used(view: NodeView) -> Outcome:
    """Little was moved out to swap, so that nothing is slow for it."""
    memory = _memory(view)
    total, free = need(memory.swap_total_kib, "SwapTotal"), need(memory.swap_free_kib, "SwapFree")
    used, limit = (total - free) / _KIB_PER_GIB, view.limits["max_used"]
    if used <= limit:
        return ok(f"{used:.1f} GiB of swap are used")
    return fail(f"{used:.1f} GiB were moved out to swap", f"at most {limit:g} GiB")


@node_rule("memory.shm_size")
def shm_size(view: NodeView) -> Outcome:
    """The rank's shared memory cannot grow into half of the machine."""
    rank = view.rank()
    if rank.ipc_mode == "host":
        raise NotApplicableError("the rank uses the node's own shared memory")
    size, limit = need(rank.shm_size_bytes, "the size of the rank's shared memory") / 1024**3, view.limits["max_size"]
    if size <= limit:
        return ok(f"{size:g} GiB")
    return fail(f"the rank may fill {size:g} GiB of shared memory", f"at most {limit:g} GiB")
