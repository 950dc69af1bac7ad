"""Run inside the image: the command `vllm`, and compiled Python. With `overlay` (no dependencies) only the command."""

from __future__ import annotations

import sys
from pathlib import Path

from compile_tree import compile_tree

_COMMAND = """#!/usr/bin/python3
import sys

from vllm.entrypoints.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""


def main(contents: str) -> None:
    """A step that fails fails the build."""
    command = Path("/usr/local/bin/vllm")
    command.write_text(_COMMAND, encoding="utf-8")
    command.chmod(0o755)
    if contents != "overlay":
        compile_tree(Path("/usr/local/lib/python3.11/dist-packages"))


if __name__ == "__main__":
    main(sys.argv[1])
