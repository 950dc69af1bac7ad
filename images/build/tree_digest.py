"""Run inside the image build, before anything is changed: is the installed release the one that the profile names?

    python3 -B tree_digest.py SITE DISTRIBUTION [EXPECTED]

The digest is over the paths and hashes of the release's `.py` files as its RECORD lists them, and every listed file is
hashed against its line. pip writes RECORD anew when it installs, so RECORD's own hash would not do; the Python files
are the same bytes in the x86_64 and aarch64 wheels of a release. Exit 4: it is another tree, and the file is named.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import sys
from pathlib import Path


def recorded(site: Path, distribution: str) -> dict[str, str]:
    """Path below `site` -> sha256 (hexadecimal) of the release's own `.py` files, from RECORD."""
    name = distribution.replace("-", "_")
    [record] = site.glob(f"{name}-[0-9]*.dist-info/RECORD")
    found = {}
    for row in csv.reader(io.StringIO(record.read_text(encoding="utf-8"))):
        if len(row) >= 2 and row[0].startswith("vllm/") and row[0].endswith(".py") and row[1].startswith("sha256="):
            found[row[0]] = base64.urlsafe_b64decode(row[1].removeprefix("sha256=") + "=").hex()
    return found


def digest_of(files: dict[str, str]) -> str:
    """One digest over sorted `path sha256` lines."""
    return hashlib.sha256("".join(f"{path} {files[path]}\n" for path in sorted(files)).encode()).hexdigest()


def main(arguments: list[str]) -> int:
    """Compare; print what was seen."""
    site, distribution, *expected = arguments
    try:
        files = recorded(Path(site), distribution)
    except ValueError:
        print(f"foreign base: {site} holds no single release of {distribution}", file=sys.stderr)
        return 4
    for path, known in sorted(files.items()):
        observed = hashlib.sha256(Path(site, path).read_bytes()).hexdigest() if Path(site, path).is_file() else "absent"
        if observed != known:
            print(f"foreign base: {path} is {observed}, the release's RECORD has {known}", file=sys.stderr)
            return 4
    digest = digest_of(files)
    if expected and digest != expected[0]:
        print(
            f"foreign base: the Python files of {distribution} have the digest {digest}, expected {expected[0]}: "
            f"another release, or an edited one",
            file=sys.stderr,
        )
        return 4
    print(digest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
