"""The condition the GPU is in: firmware, errors, clocks, heat."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, PairView, fail, need, ok, warn
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.doctor.rules.hardware import gpu_of, on_hardware
from dspark_ops.doctor.rules.software import installed_drivers
from dspark_ops.facts.gpu_state import GpuStateFacts
from dspark_ops.facts.nvidia_driver import VERSION, numbers_of


def _state(view: NodeView) -> GpuStateFacts:
    gpu_of(view)
    return need(view.node.gpu_state, "the GPU's state")


def _driver(view: NodeView) -> str:
    on_hardware(view.node, "the driver's version")
    return need(gpu_of(view).driver, "the driver's version")


@node_rule("gpu.driver_branch")
def gpu_driver_branch(view: NodeView) -> Outcome:
    """The driver is of the branch that is supported on GB10."""
    version, wanted = _driver(view), view.limits["branch"]
    if numbers_of(version)[0] == wanted:
        return ok(f"driver {version}")
    return fail(f"driver {version} is of another branch", f"a driver of branch {wanted:g}")


@node_rule("gpu.driver_floor")
def gpu_driver_floor(view: NodeView) -> Outcome:
    """The driver is none of the first ones, which panicked."""
    version, oldest = _driver(view), view.limits["oldest_release"]
    branch, release, *_ = numbers_of(version)
    if branch != view.limits["branch"]:
        raise NotApplicableError(f"driver {version} is of another branch, which gpu.driver_branch judges")
    if release >= oldest:
        return ok(f"driver {version}")
    return fail(f"driver {version} is older than those without reports of panics", f"{branch}.{oldest:g} or newer")


@node_rule("gpu.driver_known_bad")
def gpu_driver_known_bad(view: NodeView) -> Outcome:
    """The driver is not the one that decodes slowly and leaks memory descriptors."""
    version = _driver(view)
    if numbers_of(version) == (view.limits["branch"], view.limits["release"], view.limits["patch"]):
        return fail(f"driver {version} is reported to decode slowly and to leak", "another release of this branch")
    return ok(f"driver {version}")


@node_rule("gpu.firmware_current")
def gpu_firmware_current(view: NodeView) -> Outcome:
    """The firmware on the GPU came with the driver that runs."""
    driver = need(view.node.driver, "the driver's own files")
    if driver.module is None:
        raise NotApplicableError("no NVIDIA module is loaded")
    if driver.firmware is None:
        raise NotApplicableError("the driver does not tell its firmware")
    if driver.firmware == driver.module:
        return ok(f"module and firmware are {driver.module}")
    return fail(f"the module is {driver.module}, the firmware {driver.firmware}", "the same version of both")


@node_rule("gpu.module_current")
def gpu_module_current(view: NodeView) -> Outcome:
    """The driver module that runs is the one that is installed."""
    driver = need(view.node.driver, "the driver's own files")
    if driver.module is None:
        raise NotApplicableError("no NVIDIA module is loaded")
    versions = {}
    for package in installed_drivers(need(view.node.packages, "the packages")):
        found = VERSION.search(package.version or "")
        if found:
            versions[package.name] = found[0]
    if not versions:
        raise NotApplicableError("the driver is no Debian package")
    other = [f"{name} {version}" for name, version in versions.items() if version != driver.module]
    if other:
        return fail(f"module {driver.module} runs and {', '.join(other)} is installed", "one version: reboot")
    return ok(f"{driver.module} runs and is installed")


@pair_rule("gpu.vbios_parity")
def gpu_vbios_parity(view: PairView) -> Outcome:
    """Both GPUs carry the same firmware of the board."""
    if any(n.gpu is None for n in view.facts.nodes):
        raise NotApplicableError("nvidia-smi does not show a GPU on both")
    head, worker = (
        need(need(n.gpu_state, f"the GPU's state on the {n.role}").vbios, f"the VBIOS of the {n.role}")
        for n in view.facts.nodes
    )
    if head == worker:
        return ok(f"VBIOS {head} on both")
    return fail(f"the head has VBIOS {head}, the worker {worker}", "the same VBIOS on both")


@node_rule("gpu.persistence")
def gpu_persistence(view: NodeView) -> Outcome:
    """The driver stays loaded between two users of the GPU."""
    if need(_state(view).persistence, "the persistence mode"):
        return ok("persistence mode is on")
    return fail("persistence mode is off", "persistence mode on")


@node_rule("gpu.xid")
def gpu_xid(view: NodeView) -> Outcome:
    """The driver reported no error since the boot."""
    seen = need(view.node.kernel_events, "the kernel's log").xids
    grave = [number for number in seen if number in set(view.limits.values())]
    if grave:
        return fail(f"Xid {', '.join(map(str, grave))} since the boot", "no Xid that means a lost GPU")
    if seen:
        return warn(f"Xid {', '.join(map(str, seen))} since the boot", "no Xid")
    return ok("no Xid in the kept log of this boot")


@node_rule("gpu.no_memory")
def gpu_no_memory(view: NodeView) -> Outcome:
    """The driver was not refused memory again and again."""
    count, limit = need(view.node.kernel_events, "the kernel's log").no_memory, view.limits["max_lines"]
    if count > limit:
        return fail(f"{count} lines NV_ERR_NO_MEMORY since the boot", f"at most {limit:g}")
    return ok(f"{count} lines NV_ERR_NO_MEMORY since the boot")


@node_rule("gpu.temperature")
def gpu_temperature(view: NodeView) -> Outcome:
    """The GPU is not too hot."""
    heat, limit = need(_state(view).temperature_c, "the GPU's temperature"), view.limits["max_temperature"]
    if heat < limit:
        return ok(f"{heat:g} degrees")
    return fail(f"the GPU has {heat:g} degrees Celsius", f"less than {limit:g}")


@node_rule("gpu.throttle")
def gpu_throttle(view: NodeView) -> Outcome:
    """Neither heat nor power holds the clocks back."""
    state = _state(view)
    if state.reasons is None:
        on_hardware(view.node, "what holds the clocks back")
    need(state.reasons, "what holds the clocks back")
    if state.held_back_by:
        return fail(f"the clocks are held back by {', '.join(state.held_back_by)}", "full clocks")
    return ok("neither heat nor power holds the clocks back")


@node_rule("gpu.clock_wedge")
def gpu_clock_wedge(view: NodeView) -> Outcome:
    """A busy GPU runs at its clock, not at a third of it."""
    clock, floor = need(_busy(view).sm_mhz, "the clock"), view.limits["min_clock"]
    if clock < floor:
        return fail(f"the GPU is busy at {clock:g} MHz", f"at least {floor:g} MHz under load")
    return ok(f"busy at {clock:g} MHz")


@node_rule("gpu.busy_without_power")
def gpu_busy_without_power(view: NodeView) -> Outcome:
    """A GPU that says it is busy draws power like one that works."""
    power, floor = need(_busy(view).power_w, "the power"), view.limits["min_power"]
    if power < floor:
        return fail(f"the GPU is busy and draws {power:g} W", f"at least {floor:g} W when it computes")
    return ok(f"busy at {power:g} W")


def _busy(view: NodeView) -> GpuStateFacts:
    state, busy = _state(view), view.limits["busy"]
    load = need(state.utilization_pct, "the GPU's load")
    if load < busy:
        raise NotApplicableError(f"the GPU is not busy ({load:g} %)")
    if not need(gpu_of(view).processes, "the GPU's processes"):
        raise NotApplicableError("no process computes on the GPU: the load is the picture on the screen")
    return state
