"""Run inside the image build: compile a site-packages tree to the same bytes each time."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from py_compile import PycInvalidationMode


def compile_tree(site: Path) -> None:
    """Every package in a process of its own: what marshal writes depends on what the process compiled before.

    Checked against nothing at import: the files of an image do not change, and a layer's times need not be kept.
    """
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    entries = sorted(str(path) for path in site.iterdir() if path.is_dir() or path.suffix == ".py")
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        list(
            pool.map(
                lambda entry: subprocess.run([sys.executable, "-B", __file__, entry], env=environment, check=True),
                entries,
            )
        )


def main(entry: Path) -> None:
    """One package or module, in sorted order; a file that is no valid Python (a template) is left as it is."""
    mode = PycInvalidationMode.UNCHECKED_HASH
    if entry.is_file():
        compileall.compile_file(entry, quiet=2, invalidation_mode=mode)
        return
    for path in sorted(entry.rglob("*.py")):
        compileall.compile_file(path, quiet=2, invalidation_mode=mode)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
