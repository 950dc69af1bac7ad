"""Run inside the image: is every file what the build sealed, with the stages' changes and nothing else?

    python3 -B files_check.py [--quick]

Prints one JSON document and ends with 0 when it could look, whatever it found. Standard library only. --quick hashes
the engine, its plugins and kernels and every file that Python reads at its start, and of the rest only whether it is
there: a second instead of half a minute, before each start.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import sys
import time
from pathlib import Path

from seal import sha256_of, walk

SCHEMA = "dspark-ops/files-check/v1"
HOME = Path("/opt/dspark")
#: Below site-packages: what --quick hashes; and files directly there (`.pth`, single modules), and entry points.
_DECISIVE = ("vllm", "dspark_vllm", "b12x", "flashinfer")
#: How many files of one kind are named; their number is always told.
_NAMED = 20


def main(arguments: list[str]) -> int:
    """Look, and print what was seen."""
    began = time.monotonic()
    quick = "--quick" in arguments
    sealed = HOME / "manifest.json"
    raw = sealed.read_bytes()
    manifest = json.loads(raw)
    expected = {Path(path): digest for path, digest in manifest["files"].items()}
    roots = [Path(root) for root in manifest["roots"]]
    stages, records = [], set()
    for folder in sorted((HOME / "stages").iterdir()) if (HOME / "stages").is_dir() else []:
        document = json.loads((folder / "change_set.json").read_text(encoding="utf-8"))
        stages.append({"id": folder.name, "name": document["name"], "sha256": sha256_of(folder / "change_set.json")})
        site = Path(manifest["roots"][0])
        for change in document["files"]:
            path = site / change["path"]
            expected[path] = change["after"].removeprefix("sha256:")
            # A changed module is compiled again at its first import, or not at all in a read-only container.
            for stale in list(expected):
                if stale.parent == path.parent / "__pycache__" and stale.name.split(".")[0] == path.stem:
                    del expected[stale]
        records |= set(site.glob(f"{document['distribution'].replace('-', '_')}-*.dist-info/RECORD"))
    differing, skipped, looked = [], 0, 0
    present = set(walk(roots)) - {sealed}
    for path in sorted(expected.keys() & present):
        if path in records:
            continue
        if quick and not _decisive(path, Path(manifest["roots"][0])):
            skipped += 1
            continue
        looked += 1
        observed = f"link:{path.readlink()}" if path.is_symlink() else sha256_of(path)
        if observed != expected[path]:
            differing.append({"path": str(path), "expected": expected[path], "observed": observed})
    for record in sorted(records & present):
        looked += 1
        differing += _record_differs(record, expected)
    missing = sorted(str(path) for path in expected.keys() - present if path not in records)
    added = sorted(str(path) for path in present - expected.keys() - records if path.parent.name != "__pycache__")
    print(
        json.dumps(
            {
                "schema": SCHEMA,
                "manifest_sha256": hashlib.sha256(raw).hexdigest(),
                "stages": stages,
                "files": looked,
                "not_hashed": skipped,
                "differing": differing[:_NAMED],
                "differing_count": len(differing),
                "missing": missing[:_NAMED],
                "missing_count": len(missing),
                "added": added[:_NAMED],
                "added_count": len(added),
                "elapsed_s": round(time.monotonic() - began, 2),
            }
        )
    )
    return 0


def _decisive(path: Path, site: Path) -> bool:
    if site not in path.parents:
        return True
    below = path.relative_to(site).parts
    return len(below) == 1 or below[0] in _DECISIVE or below[0].endswith(".dist-info")


def _record_differs(record: Path, expected: dict[Path, str]) -> list[dict[str, str]]:
    """RECORD is rewritten by each stage: its lines must say what the files are expected to be."""
    told = []
    for row in csv.reader(io.StringIO(record.read_text(encoding="utf-8"))):
        path = Path(os.path.normpath(record.parent.parent / row[0]))
        if len(row) < 2 or not row[1].startswith("sha256=") or path not in expected:
            continue
        padded = row[1].removeprefix("sha256=") + "="
        said = base64.urlsafe_b64decode(padded).hex()
        if said != expected[path]:
            told.append({"path": f"{record} ({row[0]})", "expected": expected[path], "observed": said})
    return told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
