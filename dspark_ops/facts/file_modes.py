"""Who may read the tokens and write the folders: permission bits, never a content."""

from __future__ import annotations

import re

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, ForEach, NodeReading, Probe

FOLDERS = ("/etc/dspark-ops", "/var/lib/dspark", "/var/lib/dspark-ops")
SOCKET = "/run/docker.sock"
_TOKENS = (".cache/huggingface/token", ".huggingface/token", ".cache/huggingface/stored_tokens")
_ABOVE = (".cache", ".cache/huggingface", ".huggingface")
PROBES: tuple[Probe, ...] = (
    Command("modes.folders", ("stat", "-c", "%a %u %n", *FOLDERS, SOCKET)),
    ForEach(
        "modes.tokens",
        ("stat", "-c", "%a %u %n", "/home/{}", *(f"/home/{{}}/{part}" for part in (*_ABOVE, *_TOKENS))),
        links=("/home/*",),
    ),
)
_LINE = re.compile(r"([0-7]{1,5}) (\d{1,10}) (/.{1,300})")


class FileMode(Fact):
    """One file or folder. mode: permission bits as a number. owner: the user's number."""

    path: str
    mode: int
    owner: int

    @property
    def others_write(self) -> bool:
        return bool(self.mode & 0o002)


class FileModeFacts(Fact):
    """folders: those of ours that exist, and the Engine's socket. tokens: every token that was found.

    open_tokens: of them, those that every user of the machine can read.
    """

    folders: tuple[FileMode, ...] | None = None
    tokens: tuple[str, ...] | None = None
    open_tokens: tuple[str, ...] | None = None


def parse_stat_lines(text: str | None) -> tuple[FileMode, ...]:
    """The lines of `stat -c '%a %u %n'`."""
    found = (_LINE.fullmatch(line) for line in (text or "").splitlines())
    return tuple(FileMode(path=m[3], mode=int(m[1], 8), owner=int(m[2])) for m in found if m)


def readable_by_all(path: str, modes: dict[str, int]) -> bool:
    """Others may read the file and pass every folder above it; a folder that was not seen is taken to be closed."""
    parts = path.split("/")[1:-1]
    above = ["/" + "/".join(parts[: depth + 1]) for depth in range(1, len(parts))]
    return bool(modes.get(path, 0) & 0o004) and all(modes.get(folder, 0) & 0o001 for folder in above)


def read_file_modes(reading: NodeReading) -> FileModeFacts | None:
    """The permission bits of a reading; None when none were read."""
    folders, homes = reading.get("modes.folders"), reading.get("modes.tokens").files
    if folders.rc is None and homes is None:
        return None
    seen = [item for text in (homes or {}).values() for item in parse_stat_lines(text)]
    modes = {item.path: item.mode for item in seen}
    tokens = tuple(sorted(path for path in modes if path.endswith(_TOKENS)))
    return FileModeFacts(
        folders=None if folders.rc is None else parse_stat_lines(folders.stdout),
        tokens=None if homes is None else tokens,
        open_tokens=None if homes is None else tuple(path for path in tokens if readable_by_all(path, modes)),
    )
