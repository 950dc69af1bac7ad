"""Maintainers' tool: write the seed's change sets from edited copies of the release.

    python3 images/stages/seed/write.py PRISTINE A B C

PRISTINE holds the release's own files (site-packages, or only those that are edited), A, B and C the same files as
each stage leaves them; only files present there are compared. Writes changes.json and the patches of all three.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dspark_ops.images.changes import ChangeSet, FileChange
from dspark_ops.images.changes.diff import make_patch
from dspark_ops.images.changes.model import sha256_hex
from dspark_ops.images.stages import CHANGES, STAGE_IDS

HERE = Path(__file__).resolve().parent
RELEASE = ("vllm", "0.22.1")


def main(trees: list[Path]) -> int:
    """Compare each tree with the one before it."""
    for stage, before, after in zip(STAGE_IDS, trees[:-1], trees[1:], strict=True):
        files = []
        for path in sorted(p.relative_to(after).as_posix() for p in after.rglob("*.py")):
            old, new = (before / path).read_bytes(), (after / path).read_bytes()
            if old != new:
                patch = make_patch(path, old, new)
                files.append(FileChange(path, sha256_hex(old), sha256_hex(new), patch=patch))
        for stale in (HERE / stage).glob("*.patch"):
            stale.unlink()
        ChangeSet(f"seed-{stage}", *RELEASE, tuple(files)).write(HERE / stage, document=CHANGES)
        print(f"{stage}: {', '.join(change.path for change in files)}")
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
