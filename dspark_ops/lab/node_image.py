"""The image of a rehearsal node: a Debian root, imported, and the files of images/node on top. No registry is asked."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dspark_ops.errors import NoVerdictError
from dspark_ops.lab.debian_root import build_debian_root, debian_root_key
from dspark_ops.lab.layout import IMAGE_REPOSITORY, LABEL, ROOT_REPOSITORY, LabPaths
from dspark_ops.paths import data_dir

if TYPE_CHECKING:
    import docker

#: A host as `bootstrap` finds it: ethtool, jq and perftest are left out, so that it has something real to install.
NODE_PACKAGES = (
    "apparmor",
    "bash-completion",
    "ca-certificates",
    "curl",
    "dbus",
    "docker.io",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "less",
    "libpam-systemd",
    "netbase",
    "netplan.io",
    "openssh-server",
    "pciutils",
    "procps",
    "psmisc",
    "python3",
    "python3-apt",
    "python3-yaml",
    "rdma-core",
    "rsync",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
    "zstd",
)


def ensure_node_image(client: docker.DockerClient, paths: LabPaths, *, progress: Callable[[str], None]) -> str:
    """The reference of the node image for the present packages and files, made where the Engine lacks it."""
    import docker

    root_key = debian_root_key(NODE_PACKAGES)
    context, digest = _context(data_dir("images") / "node")
    reference = f"{IMAGE_REPOSITORY}:{hashlib.sha256(f'{root_key}{digest}'.encode()).hexdigest()[:12]}"
    if _has(client, reference):
        return reference
    root = f"{ROOT_REPOSITORY}:{root_key}"
    if not _has(client, root):
        tar = ensure_node_root(paths, progress=progress)
        progress(f"importing the Debian root ({tar.stat().st_size >> 20} MiB)")
        client.api.import_image(str(tar), repository=ROOT_REPOSITORY, tag=root_key)
    progress("building the node image")
    try:
        client.images.build(
            fileobj=context,
            custom_context=True,
            tag=reference,
            buildargs={"ROOT": root},
            labels={LABEL: paths.identity()},
            network_mode="none",
            rm=True,
            forcerm=True,
        )
    except docker.errors.BuildError as failed:
        said = [str(line.get("stream", "")).strip() for line in failed.build_log if line.get("stream")]
        raise NoVerdictError("the node image does not build; last lines:\n" + "\n".join(said[-6:])) from failed
    return reference


def ensure_node_root(paths: LabPaths, *, progress: Callable[[str], None]) -> Path:
    """The Debian root of the nodes in the cache, built when the packages or the archives changed."""
    key = debian_root_key(NODE_PACKAGES)
    tar = paths.cache / f"node-root-{key}.tar"
    if not tar.is_file():
        progress(f"building a Debian root with {len(NODE_PACKAGES)} packages (about a minute)")
        build_debian_root(tar, NODE_PACKAGES, log=paths.log / "node-root.log")
        for old in paths.cache.glob("node-root-*.tar"):
            if old != tar:
                old.unlink()
    return tar


def _has(client: docker.DockerClient, reference: str) -> bool:
    import docker

    try:
        client.images.get(reference)
    except docker.errors.ImageNotFound:
        return False
    return True


def _context(directory: Path) -> tuple[io.BytesIO, str]:
    """The build context as a tar, the same bytes for the same files, and its digest."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(directory.rglob("*")):
            if "__pycache__" in path.parts:
                continue
            info = tar.gettarinfo(str(path), arcname=str(path.relative_to(directory)))
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime = 0
            info.mode = 0o755 if path.is_dir() else 0o644
            with path.open("rb") if path.is_file() else io.BytesIO() as content:
                tar.addfile(info, content if path.is_file() else None)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    buffer.seek(0)
    return buffer, digest
