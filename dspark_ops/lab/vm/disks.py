"""The pair's two disks over the base image, with the nodes' keys and names. They carry the clean snapshot."""

from __future__ import annotations

import shutil
import subprocess

from pydantic import BaseModel, ConfigDict

from dspark_ops.errors import NoVerdictError
from dspark_ops.lab.identity import NodeFile, key_files, tar_of
from dspark_ops.lab.layout import MANAGEMENT_PORT, NODES, Node
from dspark_ops.lab.record import read_model, write_model
from dspark_ops.lab.ssh_access import ensure_keypair
from dspark_ops.lab.vm.base_image import BaseImage
from dspark_ops.lab.vm.layout import MEMORY_MIB, VmPaths, management_address
from dspark_ops.lab.vm.machine import Acceleration

#: Raised when the emulated hardware changes: a snapshot fits only the machine that it was taken of.
_HARDWARE_VERSION = 1
_TIMEOUT_S = 60


class DiskRecord(BaseModel):
    """What the disks belong to; `saved` says that both hold a whole clean snapshot, from the same moment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    emulator: str
    acceleration: Acceleration
    hardware: int = _HARDWARE_VERSION
    memory_mib: int = MEMORY_MIB
    saved: bool = False


def wanted(image: BaseImage, emulator: str, accelerated: Acceleration) -> DiskRecord:
    """The record that usable disks have, but for the snapshot."""
    return DiskRecord(base=image.key, emulator=emulator, acceleration=accelerated)


def read_disks(paths: VmPaths) -> DiskRecord | None:
    """The record of the disks that are there; None where there are none, half-made ones or another version's."""
    if not all(paths.disk(node).is_file() for node in NODES):
        return None
    return read_model(paths.disk_record, DiskRecord)


def make_disks(paths: VmPaths, image: BaseImage, record: DiskRecord) -> None:
    """Fresh disks, keys and identities in place of whatever is there. No VM may be running."""
    if paths.disks.exists():
        shutil.rmtree(paths.disks)
    paths.disks.mkdir(parents=True, mode=0o700)
    login = ensure_keypair(paths.key, "dspark-lab")
    for node in NODES:
        public = ensure_keypair(paths.host_key(node), node.name)
        private = paths.host_key(node).read_text(encoding="ascii")
        files = [*key_files(host_private=private, host_public=public, login_public=login), *_names(node)]
        paths.identity_tar(node).write_bytes(tar_of(files))
        _create(paths, image, node)
    write_model(paths.disk_record, record)


def mark_saved(paths: VmPaths, record: DiskRecord) -> None:
    """Both disks hold the clean snapshot now."""
    write_model(paths.disk_record, record.model_copy(update={"saved": True}))


def host_keys(paths: VmPaths) -> dict[str, str]:
    """The public host key of each node."""
    keys = {node: paths.host_key(node) for node in NODES}
    return {node.name: key.with_name(key.name + ".pub").read_text("ascii").strip() for node, key in keys.items()}


def _names(node: Node) -> tuple[NodeFile, ...]:
    """Hostname, hosts as Ubuntu writes it, and the address of the management port."""
    hosts = f"127.0.0.1\tlocalhost\n127.0.1.1\t{node.name}\n\n::1\tip6-localhost ip6-loopback\n"
    netplan = (
        "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n"
        f"    {MANAGEMENT_PORT}:\n      addresses: [{management_address(node)}/24]\n"
    )
    return (
        NodeFile("etc/hostname", node.name + "\n"),
        NodeFile("etc/hosts", hosts),
        NodeFile("etc/netplan/20-dspark-lab-management.yaml", netplan, 0o600),
    )


def _create(paths: VmPaths, image: BaseImage, node: Node) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.disk), str(paths.disk(node))]
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as failure:
        said = getattr(failure, "stderr", None) or failure
        raise NoVerdictError(f"the disk of {node.name} could not be made: {said}") from failure
