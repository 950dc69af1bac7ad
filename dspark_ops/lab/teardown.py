"""Takes the lab away: from a full one, a half-built one, one whose Engine was killed, or none at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dspark_ops.errors import DsparkError
from dspark_ops.lab import cables
from dspark_ops.lab.engine_host import OwnEngine, ensure_docker, find_docker, stop_own_engine
from dspark_ops.lab.layout import IMAGE_REPOSITORY, NODES, ROOT_REPOSITORY, LabPaths
from dspark_ops.lab.models import DownReport
from dspark_ops.lab.nodes import remove_nodes

if TYPE_CHECKING:
    import docker


def remove_lab(paths: LabPaths, *, purge: bool, progress: Callable[[str], None]) -> DownReport:
    """Remove everything but the build cache (with `purge` that too); report what went and what could not."""
    removed: list[str] = []
    own = OwnEngine(paths.state / "docker")
    removed += _remove_from_docker(paths, own, progress)
    ended = _end_processes_of(own.data_root) if own.data_root.is_dir() else 0
    if ended:
        removed.append(f"{ended} orphaned processes")
    if stop_own_engine(paths.state):
        progress("docker engine of the lab stopped")
        removed.append("docker engine")
    if cables.is_namespace(paths.dark):
        removed.append("dark network namespace")
    _unmount_below(paths.state)
    if paths.state.exists():
        shutil.rmtree(paths.state, ignore_errors=True)
        removed.append(f"directory {paths.state}")
    if purge and paths.cache.exists():
        shutil.rmtree(paths.cache)
        removed.append(f"build cache {paths.cache}")
    if purge:
        removed += _remove_builds(paths.images)
        remove_if_empty(paths.cache.parent)
    left = _left(paths)
    paths.lock.unlink(missing_ok=True)
    remove_if_empty(paths.lock.parent)
    kept = paths.cache if paths.cache.is_dir() else None
    return DownReport(
        removed=tuple(removed),
        left=left,
        cache=kept,
        cache_bytes=tree_bytes(kept) if kept else None,
    )


def _remove_builds(images: Path) -> list[str]:
    """The rehearsal's own images; what `image build` made for real nodes is not the lab's to take."""
    from dspark_ops.images.builds import finished_builds

    builds = [built for built in finished_builds(images) if built.record.profile == "rehearsal"]
    for built in builds:
        shutil.rmtree(built.archive.parent)
    if not finished_builds(images):
        shutil.rmtree(images, ignore_errors=True)
    return [f"build {built.reference}" for built in builds]


def _remove_from_docker(paths: LabPaths, own: OwnEngine, progress: Callable[[str], None]) -> list[str]:
    """Remove what the lab has in Docker. A killed Engine of our own is started once more: it knows its containers."""
    host = find_docker(paths.state)
    if host is not None and not host.own and own.data_root.is_dir():
        host = None
    if host is None and own.data_root.is_dir():
        try:
            host = ensure_docker(paths.state)
        except DsparkError as failed:
            progress(
                f"the lab's docker engine does not start again ({failed.message.splitlines()[0]}); clearing by hand"
            )
            return []
    if host is None:
        return []
    with closing(host.client()) as client:
        removed = list(remove_nodes(client, paths.identity()))
        if not host.own:
            removed += _remove_images(client)
    for item in removed:
        progress(f"removed {item}")
    return removed


def _remove_images(client: docker.DockerClient) -> list[str]:
    """Remove the lab's images from the machine's Engine; with our own Engine they go with its data."""
    ours = (f"{IMAGE_REPOSITORY}:", f"{ROOT_REPOSITORY}:")
    tags = [tag for image in client.images.list() for tag in image.tags if tag.startswith(ours)]
    for tag in sorted(tags):
        client.images.remove(tag, force=True)
    return [f"image {tag}" for tag in sorted(tags)]


def _end_processes_of(data_root: Path) -> int:
    """End processes whose root file system is one of our Engine's: what a killed Engine left running."""
    pids = _processes_on(data_root)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while pids and time.monotonic() < deadline and _processes_on(data_root):
        time.sleep(0.1)
    return len(pids)


def _processes_on(data_root: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            first = next(iter((entry / "mountinfo").read_text(encoding="utf-8").splitlines()), "")
        except OSError:
            continue
        if f"upperdir={data_root}/" in first:
            found.append(int(entry.name))
    return found


def _unmount_below(directory: Path) -> None:
    """Detach every mount below `directory`, deepest first: overlays, tmpfs and the dark namespace's file."""
    for _ in range(3):
        mounts = _mounts_below(directory)
        if not mounts:
            return
        for mount in sorted(mounts, key=len, reverse=True):
            subprocess.run(["umount", "-l", mount], capture_output=True, timeout=30, check=False)


def _mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = (line.split()[4].encode().decode("unicode_escape") for line in lines)
    return [point for point in points if point.startswith(f"{directory}/")]


def _left(paths: LabPaths) -> tuple[str, ...]:
    """What is still there although it should not be; empty is the promise of `lab down`."""
    found = [f"mount {m}" for m in _mounts_below(paths.state)]
    if paths.state.exists():
        found.append(f"directory {paths.state}")
    found += [f"process {pid}" for pid in _processes_on(paths.state / "docker/data")]
    host = find_docker(paths.state)
    if host is not None:
        import docker

        with closing(host.client()) as client:
            for node in NODES:
                with contextlib.suppress(docker.errors.NotFound):
                    found.append(f"container {client.containers.get(node.container).name}")
    return tuple(found)


def remove_if_empty(directory: Path) -> None:
    """Remove the directory unless something is in it."""
    with contextlib.suppress(OSError):
        directory.rmdir()


def tree_bytes(directory: Path) -> int:
    """What the files below it take on the disk; a VM's disk is mostly holes."""
    return sum(p.stat().st_blocks * 512 for p in directory.rglob("*") if p.is_file() and not p.is_symlink())
