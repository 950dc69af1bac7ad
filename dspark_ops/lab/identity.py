"""What makes a node itself: its host key, the lab's login key and its name, as a tar that is laid over its root."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

from dspark_ops.lab.layout import USER

_USER_ID = 1000


@dataclass(frozen=True)
class NodeFile:
    """One file of a node; `path` is below the root, `owner` is both user and group."""

    path: str
    text: str
    mode: int = 0o644
    owner: int = 0


def key_files(*, host_private: str, host_public: str, login_public: str) -> tuple[NodeFile, ...]:
    """The node's host key and the key that logs in."""
    return (
        NodeFile("etc/ssh/ssh_host_ed25519_key", host_private, 0o600),
        NodeFile("etc/ssh/ssh_host_ed25519_key.pub", host_public + "\n"),
        NodeFile(f"home/{USER}/.ssh/authorized_keys", login_public + "\n", 0o600, _USER_ID),
    )


def tar_of(files: Sequence[NodeFile]) -> bytes:
    """A tar of the files and of nothing else: directories are the root's own."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in files:
            content = file.text.encode()
            info = tarfile.TarInfo(file.path)
            info.size, info.mode, info.uid, info.gid = len(content), file.mode, file.owner, file.owner
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
