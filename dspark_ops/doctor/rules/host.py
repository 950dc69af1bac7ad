"""The host: reached, root where needed, software, Docker, disk, memory."""

from __future__ import annotations

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
from dspark_ops.facts.rank import RankFacts

_KIB_PER_GIB = 1024**2
_STORAGE = ("overlay2", "overlayfs")


@node_rule("reach.ssh")
def reach_ssh(view: NodeView) -> Outcome:
    """The node answered the one session that reads it."""
    node = view.node
    if node.reachable:
        return ok(f"{node.host} answered in {node.round_trip_s or 0:.2f} s")
    return fail(node.error or "no answer", f"a session with {node.host}", advice=node.hint)


@node_rule("host.sudo")
def host_sudo(view: NodeView) -> Outcome:
    """The login user may become root without a password."""
    user = (view.node.system.login_user if view.node.system else None) or "the login user"
    if need(view.node.sudo, "whether sudo asks for a password"):
        return ok(f"{user} becomes root without a password")
    return fail(f"sudo asks {user} for a password", "`sudo -n true` succeeds")


@pair_rule("host.two_machines")
def host_two_machines(view: PairView) -> Outcome:
    """Head and worker are different machines: no MAC address is on both, and their names differ."""
    macs = [
        {link.mac for link in need(n.links, f"the links of the {n.role}") if link.kind in (None, "veth") and link.mac}
        for n in view.facts.nodes
    ]
    shared = {m for m in macs[0] & macs[1] if m != "00:00:00:00:00:00"}
    names = [n.system.hostname if n.system else None for n in view.facts.nodes]
    if shared:
        return fail(f"head and worker both have the MAC address {sorted(shared)[0]}", "two machines")
    if None not in names and names[0] == names[1]:
        return fail(f"head and worker are both named {names[0]}", "two host names")
    return ok(f"{names[0]} and {names[1]}")


@node_rule("host.arch")
def host_arch(view: NodeView) -> Outcome:
    """The machine runs what the profile's image is built for."""
    system = need(view.node.system, "the system")
    arch = need(system.arch, "the architecture")
    if system.look_alikes is not None:
        raise NotApplicableError(f"a rehearsal node has the architecture of its machine ({arch})")
    wanted = view.profile.architecture
    return ok(arch) if arch == wanted else fail(f"the machine is {arch}", f"{wanted}, as profile {view.profile.name}")


@pair_rule("host.kernel_parity")
def host_kernel_parity(view: PairView) -> Outcome:
    """Both nodes run the same kernel."""
    head, worker = (
        need(need(n.system, f"the system of the {n.role}").kernel, f"the kernel of the {n.role}")
        for n in view.facts.nodes
    )
    if head == worker:
        return ok(head)
    return fail(f"the head runs {head}, the worker {worker}", "the same kernel on both")


@pair_rule("host.dgx_release_parity")
def host_dgx_release_parity(view: PairView) -> Outcome:
    """Both nodes have the same DGX OS update installed."""
    releases = [need(n.system, f"the system of the {n.role}").dgx for n in view.facts.nodes]
    missing = [n.role for n, release in zip(view.facts.nodes, releases, strict=True) if release is None]
    if missing:
        return fail(f"no /etc/dgx-release on the {' and the '.join(missing)}", "DGX OS on both")
    head, worker = (release.ota or release.build for release in releases if release is not None)
    if need(head, "the head's DGX OS version") == need(worker, "the worker's DGX OS version"):
        return ok(f"DGX OS {head} on both")
    return fail(f"the head has DGX OS {head}, the worker {worker}", "the same update on both")


@node_rule("host.reboot_required")
def host_reboot_required(view: NodeView) -> Outcome:
    """No installed update waits for a reboot."""
    waiting = need(need(view.node.system, "the system").reboot_required, "/run/reboot-required")
    return fail("an installed update waits for a reboot", "no reboot is due") if waiting else ok("no reboot is due")


@node_rule("host.clock")
def host_clock(view: NodeView) -> Outcome:
    """The clock agrees with the control host's."""
    off, limit = need(view.node.clock_error_s, "the clock"), view.limits["max_error"]
    if off <= limit:
        return ok(f"within {limit:g} s of this machine's clock")
    return fail(f"the clock is at least {off:.1f} s off this machine's", f"within {limit:g} s")


@node_rule("host.removeipc_linger")
def host_removeipc_linger(view: NodeView) -> Outcome:
    """The shared memory of a running engine outlives the logout of the user who started it."""
    system = need(view.node.system, "the system")
    if need(system.remove_ipc, "RemoveIPC of logind") is False:
        return ok("RemoveIPC is off")
    user = need(system.login_user, "the login user")
    if user in need(system.lingering, "the lingering users"):
        return ok(f"{user} lingers")
    return fail(f"RemoveIPC is on and {user} does not linger", f"RemoveIPC=no, or lingering for {user}")


@node_rule("host.docker_engine")
def host_docker_engine(view: NodeView) -> Outcome:
    """The Docker Engine answers."""
    engine = need(view.node.docker, "the state of the Docker Engine")
    if need(engine.answers, "whether the Docker Engine answers"):
        return ok(f"Docker Engine {engine.version}")
    said = (engine.error or "no reason given").strip().splitlines()
    return fail(f"the Docker Engine does not answer: {said[-1][:200]}", "a running Docker Engine")


@node_rule("host.docker_storage")
def host_docker_storage(view: NodeView) -> Outcome:
    """Images are stored as layers, not as copies."""
    engine = need(view.node.docker, "the Docker Engine")
    driver = need(engine.storage_driver, "the storage driver")
    if driver in _STORAGE:
        return ok(driver)
    return fail(f"the storage driver is {driver}: every layer is a full copy", " or ".join(_STORAGE))


@node_rule("host.gpu_container")
def host_gpu_container(view: NodeView) -> Outcome:
    """Docker can give a container the GPU: by the nvidia runtime or by a CDI description. One of them is enough."""
    if not view.profile.gpu:
        raise NotApplicableError(f"profile {view.profile.name} uses no GPU")
    engine = need(view.node.docker, "the Docker Engine")
    if "nvidia" in engine.runtimes:
        return ok("Docker has the nvidia runtime")
    if need(engine.cdi_specs, "the CDI descriptions"):
        return ok(f"CDI describes the GPU ({engine.cdi_specs[0] if engine.cdi_specs else ''})")
    return fail(
        f"Docker has no nvidia runtime (it has {', '.join(engine.runtimes) or 'none'}) and there is no CDI description",
        "the nvidia runtime, or a file in /etc/cdi",
    )


@node_rule("host.disk_free")
def host_disk_free(view: NodeView) -> Outcome:
    """There is room for an image where Docker and the weights live."""
    floor = view.site.guards.disk_floor_gib
    disks = need(view.node.disks, "the free disk space")
    free = {d.path: need(d.free_gib, f"the free space of {d.path}") for d in disks}
    low = [f"{path} has {gib:.1f} GiB free" for path, gib in free.items() if gib < floor]
    fine = ", ".join(f"{path} {gib:.0f} GiB free" for path, gib in free.items())
    return judge(low, fine, f"at least {floor:g} GiB (guards.disk_floor_gib)")


@node_rule("host.memory_floor")
def host_memory_floor(view: NodeView) -> Outcome:
    """MemAvailable is above the floor; before a start, also above what the engine will claim."""
    memory = need(view.node.memory, "/proc/meminfo")
    available = need(memory.available_gib, "MemAvailable")
    floor = view.site.guards.memory_floor_gib
    share = view.site.serve.gpu_memory_utilization
    rank: RankFacts | None = view.node.rank if view.node.rank_known else None
    runs = rank is not None and rank.running is True
    wanted, why = floor, "guards.memory_floor_gib"
    if view.profile.gpu and share is not None and not runs:
        wanted = share * need(memory.total_gib, "MemTotal") + floor
        why = f"{share:g} of MemTotal for the engine and a floor of {floor:g} GiB"
    if available >= wanted:
        return ok(f"{available:.1f} GiB available")
    if available >= floor and not view.node.rank_known:
        raise FactMissingError("whether our rank holds the memory that is not available could not be read")
    return fail(f"{available:.2f} GiB available", f"at least {wanted:.1f} GiB: {why}")


@node_rule("host.memory_unaccounted")
def host_memory_unaccounted(view: NodeView) -> Outcome:
    """No large part of memory belongs to nobody: what a driver keeps after an engine stopped."""
    memory = need(view.node.memory, "/proc/meminfo")
    if view.node.gpu is not None and view.node.gpu.processes:
        raise NotApplicableError("a GPU process holds memory that no counter shows")
    held = need(memory.unaccounted_kib, "the accounting of /proc/meminfo") / _KIB_PER_GIB
    limit = view.limits["max_unaccounted"]
    if held <= limit:
        return ok(f"{held:.1f} GiB belong to no counter")
    if view.node.gpu is None or view.node.gpu.processes is None:
        raise FactMissingError("whether a GPU process holds the memory that belongs to no counter could not be read")
    return fail(f"{held:.1f} GiB belong to no counter and no GPU process runs", f"at most {limit:g} GiB")


@node_rule("host.swap")
def host_swap(view: NodeView) -> Outcome:
    """Overcommit ends in an error, not in a freeze: swap is off, or the kernel avoids it."""
    memory = need(view.node.memory, "/proc/meminfo")
    if need(memory.swap_total_kib, "SwapTotal") == 0:
        return ok("swap is off")
    if view.node.system is not None and view.node.system.look_alikes is not None:
        raise NotApplicableError("vm.swappiness of a rehearsal node belongs to its machine")
    swappiness = need((view.node.sysctl or {}).get("vm/swappiness"), "vm.swappiness")
    limit = view.limits["max_swappiness"]
    if swappiness <= limit:
        return ok(f"swap is on, vm.swappiness {swappiness}")
    return fail(f"swap is on and vm.swappiness is {swappiness}", f"swap off, or vm.swappiness at most {limit:g}")


@node_rule("host.cma_sane")
def host_cma_sane(view: NodeView) -> Outcome:
    """The kernel's contiguous memory area is counted right: without it RDMA memory cannot be registered."""
    memory = need(view.node.memory, "/proc/meminfo")
    total, free = memory.cma_total_kib, memory.cma_free_kib
    if total is None or free is None:
        raise NotApplicableError("this kernel shows no contiguous memory area")
    if free > total:
        return fail(f"CmaFree {free} kB is more than CmaTotal {total} kB", "CmaFree at most CmaTotal")
    return ok(f"CmaFree {free} of {total} kB")
