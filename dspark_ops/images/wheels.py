"""The engine's Python packages: pip fills a directory for the image's Python, whatever Python runs this tool."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dspark_ops.errors import ConfigError, NoVerdictError

TORCH_INDEX_VARIABLE = "DSPARK_TORCH_INDEX_URL"
IMAGE_PYTHON = "3.11"
_GLIBC_MINOR = 36  # bookworm
_TIMEOUT_S = 1800
Architecture = Literal["x86_64", "aarch64"]


def install_wheels(
    lock: Path,
    torch_lock: Path | None,
    target: Path,
    *,
    log: Path,
    architecture: Architecture = "x86_64",
    only: Sequence[str] | None = None,
) -> None:
    """Unpack everything that the lock files name into `target`; what pip says goes to `log`.

    torch_lock: the CPU build's pin; None where torch is in `lock` like everything else. Torch comes first, because its
    wheel is the one that a machine may lack. The rest is checked against its sha256.
    only: these packages of `lock` and nothing else, torch neither.
    pip's own configuration (index, proxy, certificates, cache) applies to both.

    Raises:
        ConfigError: pip has no source for torch's CPU build, or `lock` does not name a package of `only`.
        NoVerdictError: pip did not end well; with its last lines.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    if only is not None:
        with tempfile.TemporaryDirectory(prefix="dspark-lock-") as scratch:
            part = Path(scratch) / lock.name
            part.write_text(_lines_of(lock, only), encoding="utf-8")
            _install_locked(part, target, log, architecture)
        return
    if torch_lock is not None:
        _install_torch(torch_lock, target, log, architecture)
    _install_locked(lock, target, log, architecture)


def _install_torch(torch_lock: Path, target: Path, log: Path, architecture: Architecture) -> None:
    torch_index = os.environ.get(TORCH_INDEX_VARIABLE)
    extra = ["--extra-index-url", torch_index] if torch_index else []
    said = _run_pip([*extra, "--requirement", str(torch_lock)], target, log, architecture)
    if said is None:
        return
    if "No matching distribution found for torch" in said:
        where = f"{TORCH_INDEX_VARIABLE} nor in pip's own sources" if torch_index else "pip's configured sources"
        raise ConfigError(
            f"pip found no {_torch_pin(torch_lock)} for Python {IMAGE_PYTHON} on {architecture} in {where}",
            hint=f"set {TORCH_INDEX_VARIABLE} to PyTorch's CPU wheel index; pip's log is {log}",
        )
    raise _pip_failed(said, log)


def _install_locked(lock: Path, target: Path, log: Path, architecture: Architecture) -> None:
    said = _run_pip(["--require-hashes", "--requirement", str(lock)], target, log, architecture)
    if said is not None:
        raise _pip_failed(said, log)


def platform_tags(architecture: Architecture) -> tuple[str, ...]:
    """What the image's C library can load, in pip's order of preference."""
    tags = [f"manylinux_2_{minor}" for minor in range(_GLIBC_MINOR, 16, -1)]
    tags.append("manylinux2014")
    if architecture == "x86_64":
        # aarch64 begins with glibc 2.17.
        tags += ["manylinux_2_12", "manylinux2010", "manylinux_2_5", "manylinux1"]
    return tuple(f"{tag}_{architecture}" for tag in (*tags, "linux"))


def _lines_of(lock: Path, only: Sequence[str]) -> str:
    lines = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if "==" in line and not line.startswith("#"):
            lines[_canonical(line.split("==", 1)[0])] = line
    absent = sorted(name for name in only if _canonical(name) not in lines)
    if absent:
        raise ConfigError(
            f"{lock.name} names no {', '.join(absent)}; expected a pin with its sha256",
            hint="the profile's release.distribution and its lock belong together",
        )
    return "".join(f"{lines[_canonical(name)]}\n" for name in only)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _torch_pin(torch_lock: Path) -> str:
    lines = torch_lock.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def _pip_failed(said: str, log: Path) -> NoVerdictError:
    tail = "\n".join(said.strip().splitlines()[-8:])
    return NoVerdictError(
        f"pip could not install the engine's packages; its last lines:\n{tail}", hint=f"the whole log is {log}"
    )


def _run_pip(arguments: list[str], target: Path, log: Path, architecture: Architecture) -> str | None:
    """None when pip is content; else what it said."""
    command = [*pip_command(), "install", "--no-deps", "--no-compile", "--no-input", "--target", str(target)]
    command += ["--progress-bar", "off", "--only-binary=:all:", "--python-version", IMAGE_PYTHON]
    command += ["--implementation", "cp", "--abi", f"cp{IMAGE_PYTHON.replace('.', '')}"]
    command += [part for platform in platform_tags(architecture) for part in ("--platform", platform)]
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


def pip_command() -> list[str]:
    """How pip is run here: this Python's own, else the one on PATH. Raises ConfigError where there is none."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    program = shutil.which("pip3") or shutil.which("pip")
    if program is None:
        raise ConfigError(
            "pip is not installed, neither beside this tool nor on PATH", hint="apt-get install python3-pip"
        )
    return [program]
