"""What both ends of an image transfer do on their node: the spool with its lock, free space, and the docker command."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

from ansible.module_utils.dspark_node_lock import lock_within

_GIB = float(1 << 30)
_SAY = 400


class NodeError(Exception):
    """A step on this node failed; the message ends with the id of its check."""


def docker(*arguments: str, timeout_s: float = 60) -> str:
    """Standard output of a docker command that must succeed."""
    done = attempt(*arguments, timeout_s=timeout_s)
    if done.returncode != 0:
        raise NodeError(f"docker {' '.join(arguments[:2])} failed: {_last(done.stderr)} [image.load]")
    return done.stdout.strip()


def attempt(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """One docker command, whatever its exit code."""
    try:
        return subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise NodeError("there is no docker command here [host.docker_down]") from None
    except subprocess.TimeoutExpired:
        raise NodeError(f"docker {' '.join(arguments[:2])} did not end within {timeout_s:g} s [image.load]") from None


def id_of(name: str) -> str | None:
    """The id that a name or an id has in this node's Engine; None when it is not there."""
    done = attempt("image", "inspect", "--format", "{{.Id}}", name)
    if done.returncode == 0:
        return done.stdout.strip()
    if "no such image" in (done.stderr + done.stdout).lower():
        return None
    raise NodeError(f"the Docker Engine does not answer: {_last(done.stderr)} [host.docker_down]")


def require_unmoved(reference: str, image_id: str) -> None:
    """Raises NodeError when the name belongs to another image here: it is never taken away from it."""
    found = id_of(reference)
    if found not in (None, image_id):
        raise NodeError(
            f"{reference} is {found} here and {image_id} in the site; nothing was changed [image.moved_tag]"
        )


def require_space(path: Path, needed: int, what: str) -> None:
    """Raises NodeError unless the file system of `path` (or of its nearest parent) has that many bytes free."""
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if free < needed:
        raise NodeError(
            f"{path} has {free / _GIB:.1f} GiB free, {what} needs up to {needed / _GIB:.1f} GiB; "
            f"nothing was written [image.disk_space]"
        )


@contextlib.contextmanager
def spool(base: Path, image: str, wait_s: float = 120) -> Iterator[Path]:
    """The directory of one image below the spool, for us alone; those of other images are gone.

    What an aborted run left behind may still hold it: its server is stopped, so that it ends soon.
    """
    base.mkdir(parents=True, exist_ok=True)
    base.chmod(0o700)
    descriptor = os.open(base / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not lock_within(descriptor, wait_s):
            raise NodeError(f"another sync works in {base} and did not end within {wait_s:g} s [image.sync_busy]")
        for other in base.iterdir():
            if other.is_dir() and other.name != image:
                shutil.rmtree(other)
        folder = base / image
        folder.mkdir(mode=0o700, exist_ok=True)
        yield folder
    finally:
        os.close(descriptor)


def stream_out(arguments: list[str], take: Callable[[IO[bytes]], dict[str, int]]) -> dict[str, int]:
    """Run a docker command and give its output to `take`, which may stop reading early; what `take` returned."""
    process = subprocess.Popen(["docker", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        with cast("IO[bytes]", process.stdout) as out:
            return take(out)
    finally:
        process.kill()
        process.wait()


def stream_in(arguments: list[str], give: Callable[[IO[bytes]], None], timeout_s: float) -> str:
    """Run a docker command with what `give` writes as its input; its output.

    Raises:
        NodeError: it failed, with its own last line.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(["docker", *arguments], stdin=subprocess.PIPE, stdout=said, stderr=said)
        try:
            # An Engine that refuses closes the pipe early; what it said says why.
            with contextlib.suppress(BrokenPipeError), cast("IO[bytes]", process.stdin) as into:
                give(into)
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise NodeError(f"docker {arguments[0]} did not end within {timeout_s:g} s [image.load]") from None
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    if process.returncode != 0:
        raise NodeError(f"docker {arguments[0]} failed, the Engine kept nothing: {_last(text)} [image.load]")
    return text


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][-_SAY:] if lines else "it said nothing"
