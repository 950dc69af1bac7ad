"""Run inside the image build: make the unpacked wheels an installation: the recipe's own part, `vllm`, compiled Python.

    python3 -B install.py full|overlay

An overlay is not compiled: under emulation that takes minutes, and nothing of it is served.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from compile_tree import compile_tree

SITE = Path("/usr/local/lib/python3.11/dist-packages")
_COMMAND = """#!/usr/bin/python3
import sys

from vllm.entrypoints.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""


def main(contents: str) -> None:
    """A step that fails fails the build."""
    if importlib.util.find_spec("finish") is not None:
        importlib.import_module("finish").finish(SITE)
    command = Path("/usr/local/bin/vllm")
    command.write_text(_COMMAND, encoding="utf-8")
    command.chmod(0o755)
    if contents == "full":
        compile_tree(SITE)


if __name__ == "__main__":
    main(sys.argv[1])
