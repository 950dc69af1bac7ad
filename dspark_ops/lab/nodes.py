"""The two containers: made, started, found; their identity (host key, login key) is put in before they first run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.lab.cables import Namespace
from dspark_ops.lab.identity import key_files, tar_of
from dspark_ops.lab.layout import LABEL, MANAGEMENT_PORT, NETWORK, NODES, LabPaths, Node
from dspark_ops.lab.node_memory import MEMORY_LABEL, machine_limit_bytes, made_with
from dspark_ops.lab.ssh_access import ensure_keypair

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

#: Bits of the capability sets; --privileged asks for all and is refused where the machine itself lacks one.
_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
#: Never given: a node must not load modules into the machine's kernel, set its clock or switch it off.
_NEVER = ("SYS_MODULE", "SYS_TIME", "SYS_BOOT")


def find_container(client: docker.DockerClient, node: Node) -> Container | None:
    """The node's container in any state, or None."""
    import docker

    try:
        return client.containers.get(node.container)
    except docker.errors.NotFound:
        return None


def ensure_container(
    client: docker.DockerClient,
    node: Node,
    *,
    image: str,
    subnet: str,
    paths: LabPaths,
    progress: Callable[[str], None],
) -> bool:
    """The node's container runs and has its identity; True when something had to be done.

    A container of an older image or another memory limit, or one that an interrupted run left without identity, is
    made anew. One that belongs to another lab (another user's state directory) is refused.
    """
    container = find_container(client, node)
    if container is not None:
        if container.labels.get(LABEL) != paths.identity():
            raise RefusedError(
                f"a container {node.container} exists that this lab did not make",
                hint=f"another user's lab? Remove it with `docker rm -f {node.container}` if it is not needed",
            )
        stale = container.attrs["Config"]["Image"] != image or not _identity_file(paths, node).is_file()
        if stale or made_with(container) != machine_limit_bytes():
            progress(f"{node.name} is of an older image or half made: making it anew")
            _unplug(container)
            container.remove(force=True, v=True)
            container = None
        elif container.status == "running":
            return False
    if container is None:
        container = _create(client, node, image=image, subnet=subnet, paths=paths)
    progress(f"starting {node.name}")
    container.start()
    return True


def _unplug(container: Container) -> None:
    """Take the management port of a running node away before the container goes.

    Docker looks for it under the name that it gave it and does not find it. It then stays in the old namespace, which
    lives on for a minute, and answers there for the address of the node that takes its place.
    """
    pid = int(container.attrs["State"].get("Pid") or 0)
    if pid:
        command = [*Namespace(pid=pid).enter(), "ip", "link", "delete", MANAGEMENT_PORT]
        subprocess.run(command, capture_output=True, timeout=20, check=False)


def host_key(paths: LabPaths, node: Node) -> str:
    """The public host key that was put into the node."""
    return _identity_file(paths, node).read_text(encoding="ascii").strip()


def container_pid(client: docker.DockerClient, node: Node) -> int:
    """PID 1 of the node as the machine sees it; its namespaces are the node's."""
    container = find_container(client, node)
    pid = int(container.attrs["State"]["Pid"]) if container is not None else 0
    if pid == 0:
        raise NoVerdictError(
            f"{node.name} ended right after its start",
            hint=f"`docker logs {node.container}` says why; `dspark-ops lab down` and up again makes it anew",
        )
    return pid


def missing_capabilities() -> tuple[str, ...]:
    """The capabilities that this machine's bounding set lacks; a container cannot be given them."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapBnd:"):
            held = int(line.split()[1], 16)
            return tuple(name for bit, name in enumerate(_CAPABILITIES) if not held >> bit & 1)
    return ()


def _identity_file(paths: LabPaths, node: Node) -> Path:
    """The node's public host key on our side; written last, so it stands for a finished container."""
    return paths.state / f"{node.name}.hostkey.pub"


def _create(client: docker.DockerClient, node: Node, *, image: str, subnet: str, paths: LabPaths) -> Container:
    from docker.types import Mount

    limit = machine_limit_bytes()
    labels = {LABEL: paths.identity(), MEMORY_LABEL: str(limit)}
    _identity_file(paths, node).unlink(missing_ok=True)
    client.volumes.create(node.volume, labels={LABEL: paths.identity()})
    api = client.api
    host_config = api.create_host_config(
        cap_add=["ALL"],
        cap_drop=sorted({*_NEVER, *missing_capabilities()}),
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        device_cgroup_rules=["a *:* rwm"],
        tmpfs={"/run": "exec", "/run/lock": ""},
        mounts=[Mount("/var/lib/docker", node.volume, type="volume")],
        shm_size="2g",
        mem_limit=limit,
        memswap_limit=limit,
        cgroupns="private",
    )
    # What `--security-opt systempaths=unconfined` means in the API: the nested Engine needs an open /proc.
    host_config["MaskedPaths"] = []
    host_config["ReadonlyPaths"] = []
    address = api.create_endpoint_config(ipv4_address=node.management_ip(subnet))
    made = api.create_container(
        image,
        name=node.container,
        hostname=node.name,
        labels=labels,
        host_config=host_config,
        networking_config={"EndpointsConfig": {NETWORK: address}},
    )
    container = client.containers.get(made["Id"])
    _put_identity(container, node, paths)
    return container


def _put_identity(container: Container, node: Node, paths: LabPaths) -> None:
    """Put the node's own host key and the lab's login key into the container, and remember the host key."""
    login = ensure_keypair(paths.key, "dspark-lab")
    host = paths.state / f"{node.name}.hostkey"
    fresh = host.with_suffix(".making")
    public = ensure_keypair(fresh, node.name)
    files = key_files(host_private=fresh.read_text(encoding="ascii"), host_public=public, login_public=login)
    container.put_archive("/", tar_of(files))
    fresh.unlink()
    fresh.with_name(fresh.name + ".pub").replace(_identity_file(paths, node))


def remove_nodes(client: docker.DockerClient, identity: str) -> tuple[str, ...]:
    """Remove every container, network and volume of this lab; what was removed."""
    import docker

    chosen: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={identity}"}
    removed: list[str] = []
    for container in client.containers.list(all=True, filters=chosen, ignore_removed=True):
        container.remove(force=True, v=True)
        removed.append(f"container {container.name}")
    for network in client.networks.list(filters=chosen):
        network.remove()
        removed.append(f"network {network.name}")
    for node in NODES:
        try:
            volume = client.volumes.get(node.volume)
        except docker.errors.NotFound:
            continue
        if (volume.attrs.get("Labels") or {}).get(LABEL) == identity:
            volume.remove(force=True)
            removed.append(f"volume {volume.name}")
    return tuple(removed)
