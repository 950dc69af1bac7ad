"""Run inside the image build: writes down every file below the given roots with its hash, once, before the stages.

    python3 seal.py MANIFEST ROOT [ROOT ...]

The manifest's own digest becomes a label of the image, and so part of its id: what verification compares with is not
itself a thing that somebody could edit unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

SCHEMA = "dspark-ops/manifest/v1"
_CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def walk(roots: list[Path]) -> list[Path]:
    """Every file and symbolic link below the roots, sorted; a root that is a file stands for itself."""
    found: list[Path] = []
    for root in roots:
        if root.is_file():
            found.append(root)
        for folder, _, names in os.walk(root):
            found += [Path(folder, name) for name in names]
    return sorted(found)


def main(arguments: list[str]) -> int:
    """Write the manifest; it appears complete or not at all."""
    target, roots = Path(arguments[0]), [Path(argument) for argument in arguments[1:]]
    entries = {
        str(path): f"link:{path.readlink()}" if path.is_symlink() else sha256_of(path)
        for path in walk(roots)
        if path != target
    }
    document = {"schema": SCHEMA, "roots": [str(root) for root in roots], "files": entries}
    fresh = target.with_suffix(".new")
    fresh.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")), encoding="utf-8")
    fresh.replace(target)
    print(f"{len(entries)} files sealed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
