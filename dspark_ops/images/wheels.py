"""The engine's Python packages: pip fills a directory for the image's Python, whatever Python runs this tool."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from dspark_ops.errors import ConfigError, NoVerdictError

TORCH_INDEX_VARIABLE = "DSPARK_TORCH_INDEX_URL"
IMAGE_PYTHON = "3.11"
_GLIBC_MINOR = 36  # bookworm
_TIMEOUT_S = 1800
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(_GLIBC_MINOR, 16, -1)),
    "manylinux2014_x86_64",
    "manylinux_2_12_x86_64",
    "manylinux2010_x86_64",
    "manylinux_2_5_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
)


def install_wheels(lock: Path, torch_lock: Path, target: Path, *, log: Path) -> None:
    """Unpack everything that the two lock files name into `target`; what pip says goes to `log`.

    Torch first, because its wheel is the one that a machine may lack. The rest is checked against its sha256.
    pip's own configuration (index, proxy, certificates, cache) applies to both.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    torch_index = os.environ.get(TORCH_INDEX_VARIABLE)
    extra = ["--extra-index-url", torch_index] if torch_index else []
    said = _run_pip([*extra, "--requirement", str(torch_lock)], target, log)
    if said is not None:
        if "No matching distribution found for torch" in said:
            where = f"{TORCH_INDEX_VARIABLE} nor in pip's own sources" if torch_index else "pip's configured sources"
            raise ConfigError(
                f"pip found no {_torch_pin(torch_lock)} for Python {IMAGE_PYTHON} on x86_64 in {where}",
                hint=f"set {TORCH_INDEX_VARIABLE} to PyTorch's CPU wheel index; pip's log is {log}",
            )
        raise _pip_failed(said, log)
    said = _run_pip(["--require-hashes", "--requirement", str(lock)], target, log)
    if said is not None:
        raise _pip_failed(said, log)


def _torch_pin(torch_lock: Path) -> str:
    lines = torch_lock.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def _pip_failed(said: str, log: Path) -> NoVerdictError:
    tail = "\n".join(said.strip().splitlines()[-8:])
    return NoVerdictError(
        f"pip could not install the engine's packages; its last lines:\n{tail}", hint=f"the whole log is {log}"
    )


def _run_pip(arguments: list[str], target: Path, log: Path) -> str | None:
    """None when pip is content; else what it said."""
    command = [*_pip(), "install", "--no-deps", "--no-compile", "--no-input", "--target", str(target)]
    command += ["--progress-bar", "off", "--only-binary=:all:", "--python-version", IMAGE_PYTHON]
    command += ["--implementation", "cp", "--abi", f"cp{IMAGE_PYTHON.replace('.', '')}"]
    command += [part for platform in _PLATFORMS for part in ("--platform", platform)]
    # A user installation (a common default) and a target exclude each other.
    environment = {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "LC_ALL": "C.UTF-8"}
    with log.open("ab") as out:
        start = out.tell()
        try:
            done = subprocess.run(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT_S,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired as late:
            raise NoVerdictError(f"pip was not done after {_TIMEOUT_S} s", hint=f"its log is {log}") from late
    if done.returncode == 0:
        return None
    return log.read_bytes()[start:].decode(errors="replace")


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    program = shutil.which("pip3") or shutil.which("pip")
    if program is None:
        raise ConfigError(
            "pip is not installed, neither beside this tool nor on PATH", hint="apt-get install python3-pip"
        )
    return [program]
