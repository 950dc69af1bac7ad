"""A directory as a tar: sorted, owned by root, one date, so that the same files give the same layer."""

from __future__ import annotations

import tarfile
from pathlib import Path

from dspark_ops.images.normalise import EPOCH


def pack_tree(tree: Path, tar: Path) -> None:
    """Write what is below `tree` as `tar`; it appears complete or not at all."""
    partial = tar.with_name(f".{tar.name}.partial")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as out:
        for path in sorted(tree.rglob("*")):
            entry = out.gettarinfo(path, arcname=path.relative_to(tree).as_posix())
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            entry.mtime = EPOCH
            if entry.isreg():
                with path.open("rb") as content:
                    out.addfile(entry, content)
            else:
                out.addfile(entry)
    partial.replace(tar)
