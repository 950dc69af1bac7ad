"""Packs what runs on the nodes into one file, the same bytes every time: nothing is installed on a Spark."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

from dspark_ops.paths import data_dir

_PACKAGES = ("core", "node")
_RULES = "dspark_container_rules.py"
#: The first moment that a zip file can name.
_MOMENT = (1980, 1, 1, 0, 0, 0)
_MAIN = "import sys\n\nfrom dspark_ops.supervise.node.__main__ import main\n\nsys.exit(main())\n"


def build() -> bytes:
    """The program /usr/local/lib/dspark/supervise.pyz: the state machine, the daemon and the container rules.

    Raises:
        ConfigError: the installation has no playbooks.
    """
    package = Path(__file__).resolve().parent
    files = {
        "__main__.py": _MAIN,
        # Stubs: the package on the control host may import what no node has.
        "dspark_ops/__init__.py": "",
        "dspark_ops/supervise/__init__.py": "",
        _RULES: (data_dir("playbooks") / "module_utils" / _RULES).read_text(encoding="utf-8"),
    }
    for name in _PACKAGES:
        for path in sorted((package / name).glob("*.py")):
            files[f"dspark_ops/supervise/{name}/{path.name}"] = path.read_text(encoding="utf-8")
    out = io.BytesIO()
    # Stored, not deflated: what zlib makes of the same bytes differs between its versions.
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    # Python finds the archive from its end, whatever stands before it.
    return b"#!/usr/bin/python3\n" + out.getvalue()


def digest(program: bytes) -> str:
    """Names the program, for a plan and for the node's own word."""
    return "sha256:" + hashlib.sha256(program).hexdigest()
