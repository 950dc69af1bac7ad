"""The host's software: system, kernel, packages, Docker; that it is whole, current and the same on both."""

from __future__ import annotations

import re

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, PairView, fail, judge, need, ok
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.doctor.rules.hardware import on_hardware
from dspark_ops.facts.kernel_state import release_order
from dspark_ops.facts.mounts import mount_of
from dspark_ops.facts.packages import PackageFacts, version_of

_BUILD = re.compile(r"^(\d+\.\d+)\.\d+-(\d+)")
_FLAVOUR = re.compile(r"-([a-z][a-z0-9-]*)$")
# The names that follow the newest kernel; those of one kernel carry its number.
_FOLLOWING = re.compile(r"^linux-(image-|headers-|tools-|modules-[a-z0-9-]+-)?nvidia(-[a-z]+)*(-\d\d\.\d\d)?$")
_REMOTE = re.compile(r"^(nfs\d?|cifs|smb\d?|fuse(\..*)?|9p|ceph|glusterfs|tmpfs|ramfs|vfat|exfat|ntfs3?)$")
TOOLKIT = "nvidia-container-toolkit"


def kernel_build(release: str) -> tuple[float, int] | None:
    """(6.17, 1014) of 6.17.0-1014-nvidia; None for a release of another shape."""
    found = _BUILD.match(release)
    return (float(found[1]), int(found[2])) if found else None


def _kernel(view: NodeView) -> str:
    return need(need(view.node.system, "the system").kernel, "the kernel's release")


@node_rule("host.os_release")
def host_os_release(view: NodeView) -> Outcome:
    """The system is the one that GB10 machines come with."""
    on_hardware(view.node, "the system")
    system = need(view.node.system, "the system")
    name, version = need(system.os_id, "the system's name"), need(system.os_version, "the system's version")
    wanted = f"{view.limits['version']:.2f}"
    if name == "ubuntu" and version == wanted:
        return ok(f"{name} {version}")
    return fail(f"the system is {name} {version}", f"ubuntu {wanted}, which DGX OS is made of")


@node_rule("host.kernel_option")
def host_kernel_option(view: NodeView) -> Outcome:
    """A kernel that miscounts its contiguous memory was told not to hand memory over to the next one."""
    release = _kernel(view)
    build = kernel_build(release)
    if build not in {(view.limits["series"], view.limits[name]) for name in ("first_build", "second_build")}:
        return ok(f"{release} needs no option")
    if "kho=off" in need(need(view.node.kernel, "the kernel").options, "the kernel's command line"):
        return ok(f"{release} was started with kho=off")
    return fail(f"{release} was started without kho=off", "kho=off on its command line, or another kernel")


@node_rule("host.kernel_known_bad")
def host_kernel_known_bad(view: NodeView) -> Outcome:
    """The kernel is none of those that lose the NIC after the boot."""
    release = _kernel(view)
    bad = {(view.limits["series"], view.limits[name]) for name in ("first_build", "second_build")}
    if kernel_build(release) in bad:
        return fail(f"{release} is known to drop the NIC seconds after the boot", "another build of this kernel")
    return ok(release)


@node_rule("host.kernel_running_newest")
def host_kernel_running_newest(view: NodeView) -> Outcome:
    """The newest installed kernel of its kind is the one that runs."""
    release = _kernel(view)
    installed = need(need(view.node.kernel, "the kernel").installed, "the installed kernels")
    if release not in installed:
        raise NotApplicableError(f"the running kernel {release} has no image in /boot")
    newest = max((k for k in installed if _flavour(k) == _flavour(release)), key=release_order)
    if newest == release:
        return ok(f"{release} is the newest one installed")
    return fail(f"{release} runs and {newest} is installed", f"{newest} runs")


def _flavour(release: str) -> str | None:
    found = _FLAVOUR.search(release)
    return release[found.start() :] if found else None


@node_rule("host.packages_whole")
def host_packages_whole(view: NodeView) -> Outcome:
    """No package of the kernel, the driver or Docker is installed half-way."""
    packages = need(view.node.packages, "the packages")
    broken = [f"{package.name} ({package.state})" for package in packages if not package.whole]
    return judge(broken, "all of them are installed whole", "kernel, driver and Docker packages installed whole")


@node_rule("host.packages_held")
def host_packages_held(view: NodeView) -> Outcome:
    """The packages that follow the newest kernel are held together, or not at all."""
    packages = [p for p in need(view.node.packages, "the packages") if p.installed and _FOLLOWING.match(p.name)]
    held = [package.name for package in packages if package.held]
    moving = [package.name for package in packages if not package.held]
    if held and moving:
        return fail(f"held: {', '.join(held)}; not held: {', '.join(moving)}", "all of them held, or none")
    return ok(f"{len(held)} packages are held together" if held else "none is held")


@pair_rule("host.docker_parity")
def host_docker_parity(view: PairView) -> Outcome:
    """Both nodes run the same Docker Engine."""
    head, worker = (
        need(need(n.docker, f"the Docker Engine of the {n.role}").version, f"the Docker version of the {n.role}")
        for n in view.facts.nodes
    )
    if head == worker:
        return ok(f"Docker Engine {head} on both")
    return fail(f"the head runs Docker Engine {head}, the worker {worker}", "the same version on both")


@pair_rule("host.toolkit_parity")
def host_toolkit_parity(view: PairView) -> Outcome:
    """Both nodes have the same NVIDIA container toolkit."""
    versions = [version_of(need(n.packages, f"the packages of the {n.role}"), TOOLKIT) for n in view.facts.nodes]
    if versions == [None, None]:
        raise NotApplicableError(f"{TOOLKIT} is no package of either node")
    head, worker = (version or "none" for version in versions)
    if head == worker:
        return ok(f"{TOOLKIT} {head} on both")
    return fail(f"the head has {TOOLKIT} {head}, the worker {worker}", "the same version on both")


@node_rule("host.docker_snap")
def host_docker_snap(view: NodeView) -> Outcome:
    """Docker is not the one from the snap store, which cannot reach the GPU."""
    folder = need(need(view.node.docker, "the Docker Engine").root_dir, "the Engine's directory")
    if folder.startswith("/var/snap/"):
        return fail(f"the Engine keeps its data in {folder}: it is a snap", "Docker from a Debian package")
    return ok(f"the Engine keeps its data in {folder}")


@node_rule("host.docker_disk")
def host_docker_disk(view: NodeView) -> Outcome:
    """Docker's data lie on a disk of the node's own."""
    folder = need(need(view.node.docker, "the Docker Engine").root_dir, "the Engine's directory")
    mount = need(mount_of(need(view.node.mounts, "the mounts"), folder), f"the mount of {folder}")
    if _REMOTE.match(mount.kind):
        return fail(f"{folder} is on {mount.path}, which is {mount.kind}", "a local disk file system, as ext4 or xfs")
    return ok(f"{folder} is on {mount.path} ({mount.kind})")


@pair_rule("host.uefi_parity")
def host_uefi_parity(view: PairView) -> Outcome:
    """Two boards of one maker run the same UEFI."""
    systems = [need(n.system, f"the system of the {n.role}") for n in view.facts.nodes]
    for node in view.facts.nodes:
        on_hardware(node, "the UEFI")
    head, worker = systems
    if head.product != worker.product:
        raise NotApplicableError(f"the boards are {head.product} and {worker.product}: their versions do not compare")
    versions = [need(s.bios, f"the UEFI of the {n.role}") for s, n in zip(systems, view.facts.nodes, strict=True)]
    if versions[0] == versions[1]:
        return ok(f"UEFI {versions[0]} on both")
    return fail(f"the head has UEFI {versions[0]}, the worker {versions[1]}", "the same UEFI on both")


def installed_drivers(packages: tuple[PackageFacts, ...]) -> list[PackageFacts]:
    """The packages that bring the driver's programs and libraries."""
    named = re.compile(r"^(nvidia-driver|libnvidia-compute)-\d{3}(-server)?(-open)?$")
    return [package for package in packages if package.installed and named.match(package.name)]
