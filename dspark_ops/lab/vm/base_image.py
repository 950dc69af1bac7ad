"""The disk, kernel and initial RAM disk that both VMs start from: made once, kept under a digest of what makes them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dspark_ops.errors import NoVerdictError
from dspark_ops.lab.debian_root import build_debian_root, debian_root_key, machine_certificates
from dspark_ops.lab.node_image import NODE_PACKAGES
from dspark_ops.lab.vm.layout import VmPaths, name_files
from dspark_ops.paths import data_dir

#: Part of the key: raise it when the way the image is made changes.
_RECIPE_VERSION = 1
_DISK_MIB = 6144
_TIMEOUT_S = 300
#: What the container node lets `bootstrap` install is here from the start: the VMs have no way out. The full kernel
#: has rdma_rxe, the cloud kernel has not; ibverbs-providers is what lets the verbs tools see soft-RoCE.
VM_PACKAGES = tuple(
    sorted(
        {
            *NODE_PACKAGES,
            "ethtool",
            "ibverbs-providers",
            "ibverbs-utils",
            "initramfs-tools",
            "jq",
            "linux-image-amd64",
            "perftest",
        }
    )
)
#: Four drivers instead of all, and no compression: an emulated processor unpacks slowly.
_EARLY_FILES = {
    "etc/initramfs-tools/conf.d/dspark-lab": "MODULES=list\nCOMPRESS=cat\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\nvirtio_net\next4\n",
}
#: Files of the container node that a VM has as well.
_SHARED_FILES = (
    "etc/default/locale",
    "etc/docker/daemon.json",
    "etc/environment",
    "etc/ssh/sshd_config.d/10-dspark-lab.conf",
    "etc/sudoers.d/nvidia",
)


@dataclass(frozen=True)
class BaseImage:
    """One finished base image; `key` names everything that made it."""

    key: str
    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "root.ext4"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"


def base_image(paths: VmPaths) -> BaseImage:
    """The base image that the present packages and files make; it need not be built."""
    digest = hashlib.sha256(f"{_RECIPE_VERSION} {_DISK_MIB} {_root_key()}".encode())
    for pem in machine_certificates().values():
        digest.update(pem.encode())
    for name, content in sorted(_node_files()):
        digest.update(f"\n{name} {hashlib.sha256(content).hexdigest()}".encode())
    digest.update((data_dir("images") / "node-vm/customise.sh").read_bytes())
    key = digest.hexdigest()[:12]
    return BaseImage(key, paths.cache / f"base-{key}")


def ensure_base_image(paths: VmPaths, *, progress: Callable[[str], None]) -> tuple[BaseImage, bool]:
    """The base image, and whether it had to be built. Its directory appears complete or not at all."""
    image = base_image(paths)
    if image.directory.is_dir():
        return image, False
    tar = _ensure_root(paths, progress)
    partial = paths.cache / f".{image.directory.name}.partial"
    _remove(partial)
    root = partial / "root"
    root.mkdir(parents=True)
    progress("making the VMs' disk")
    _run("tar", "-C", str(root), "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", str(tar))
    _lay_files(root)
    _run("chroot", str(root), "/bin/sh", "-c", (data_dir("images") / "node-vm/customise.sh").read_text("utf-8"))
    made = BaseImage(image.key, partial)
    _take(root / "boot", "vmlinuz-*", made.kernel)
    _take(root / "boot", "initrd.img-*", made.initrd)
    with made.disk.open("wb") as disk:
        disk.truncate(_DISK_MIB << 20)
    # -d copies the tree without a mount; without lazy initialisation the first boot has nothing left to write.
    options = ["-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", "-J", "size=16"]
    _run("mke2fs", "-q", "-t", "ext4", "-L", "dspark-node", *options, "-d", str(root), str(made.disk))
    _remove(root)
    partial.replace(image.directory)
    for old in paths.cache.glob("base-*"):
        if old != image.directory:
            _remove(old)
    return image, True


def kernel_release(image: BaseImage) -> str | None:
    """The release in the kernel's header, e.g. 6.1.0-49-amd64; None where it has none."""
    with suppress(OSError), image.kernel.open("rb") as kernel:
        kernel.seek(0x20E)
        kernel.seek(int.from_bytes(kernel.read(2), "little") + 0x200)
        words = kernel.read(120).split(b"\0", 1)[0].decode("ascii", "replace").split()
        return words[0] if words else None
    return None


def _root_key() -> str:
    return debian_root_key(VM_PACKAGES, early_files=_EARLY_FILES)


def _ensure_root(paths: VmPaths, progress: Callable[[str], None]) -> Path:
    tar = paths.cache / f"vm-root-{_root_key()}.tar"
    if not tar.is_file():
        progress(f"building a Debian root with a kernel and {len(VM_PACKAGES)} packages (a minute or two)")
        build_debian_root(tar, VM_PACKAGES, log=paths.log / "vm-root.log", early_files=_EARLY_FILES)
        for old in paths.cache.glob("vm-root-*.tar"):
            if old != tar:
                old.unlink()
    return tar


def _node_files() -> Iterator[tuple[str, bytes]]:
    """What is laid over the root: the shared files of the container node, the VM's own, and the ports' names."""
    images = data_dir("images")
    for name in _SHARED_FILES:
        yield name, (images / "node/rootfs" / name).read_bytes()
    own = images / "node-vm/rootfs"
    for path in sorted(own.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield str(path.relative_to(own)), path.read_bytes()
    for name, text in name_files().items():
        yield name, text.encode()


def _lay_files(root: Path) -> None:
    for name, content in _node_files():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o644)


def _take(directory: Path, pattern: str, target: Path) -> None:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise NoVerdictError(f"the VMs' root has {len(found)} files {pattern} in /boot; expected one")
    shutil.copyfile(found[0], target)


def _run(*command: str) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as late:
        raise NoVerdictError(f"{command[0]} was not done after {_TIMEOUT_S} s") from late
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).splitlines()[-6:])
        raise NoVerdictError(f"{command[0]} ended with {done.returncode} while the VMs' disk was made:\n{said}")


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
