#!/usr/bin/env python3
"""Write the aarch64 locks again: `python images/locks/lock.py [current-aarch64 | seed-aarch64]...`; --check only looks.

uv resolves for the image's Python, architecture and C library, from PyPI alone and wheels alone: pip evaluates the
markers of the machine it runs on, so it cannot do that for another architecture. Of each package's wheels the one is
pinned that pip prefers there. Before a lock is written, pip's own choice is compared with it, wheel by wheel.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

HERE = Path(__file__).resolve().parent
PYTHON = (3, 11)
GLIBC_MINOR = 36  # Debian bookworm
ARCHITECTURE = "aarch64"
UV = "0.13.9"

#: Lock -> what it is resolved from; everything else follows from these.
WANTED: Mapping[str, tuple[str, ...]] = {
    "current-aarch64": (
        "vllm[b12x]==0.32.0",
        "b12x==1.5.1",
        "flashinfer-python==0.7.0.post1",
        # FlashInfer, DeepGEMM and Triton compile at the first start; torch 2.13 is built with this toolkit.
        "cuda-toolkit[nvcc,cccl]==13.0.3",
    ),
    "seed-aarch64": ("vllm==0.22.1",),
}


@dataclass(frozen=True)
class Pin:
    """One package and the one wheel of it that fits."""

    name: str
    version: str
    wheel: str
    sha256: str

    def line(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n"


class LockError(Exception):
    """Why no lock was written."""


def main(arguments: list[str] | None = None) -> int:
    """Write the locks that are named, or all; with --check compare them with the index instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("locks", nargs="*", metavar="LOCK", help=", ".join(WANTED))
    parser.add_argument("--check", action="store_true", help="does pip find these very wheels in the index today?")
    asked = parser.parse_args(arguments)
    unknown = sorted(set(asked.locks) - set(WANTED))
    if unknown:
        parser.error(f"no lock is named {', '.join(unknown)}; expected {' or '.join(WANTED)}")
    try:
        with tempfile.TemporaryDirectory(prefix="dspark-lock-") as scratch:
            for name in asked.locks or WANTED:
                path = HERE / f"{name}.lock"
                if asked.check:
                    pinned = read_lock(path.read_text(encoding="utf-8"))
                    compare(pinned, pips_choice(pinned, Path(scratch)))
                    print(f"{path.name}: pip finds the same {len(pinned)} wheels")
                else:
                    pins = chosen(resolve(WANTED[name], Path(scratch)))
                    pinned = {pin.name: (pin.version, pin.sha256) for pin in pins}
                    compare(pinned, pips_choice(pinned, Path(scratch)))
                    path.write_text(rendered(name, pins), encoding="utf-8")
                    print(f"{path.name}: {len(pins)} packages; pip finds the same wheels")
    except LockError as trouble:
        print(f"lock.py: {trouble}", file=sys.stderr)
        return 1
    return 0


def rendered(name: str, pins: Iterable[Pin]) -> str:
    """The lock file's text."""
    head = f"# Written by lock.py from {', '.join(WANTED[name])}: Python {_python()}, {ARCHITECTURE}, wheels alone.\n"
    return head + "# Do not edit.\n" + "".join(pin.line() for pin in sorted(pins, key=lambda pin: pin.name))


def read_lock(text: str) -> dict[str, tuple[str, str]]:
    """Package -> (version, sha256) of a lock's text."""
    line = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+) --hash=sha256:(?P<sha256>[0-9a-f]{64})")
    pinned = {}
    for number, content in enumerate(text.splitlines(), 1):
        if content and not content.startswith("#"):
            found = line.fullmatch(content)
            if found is None:
                raise LockError(f"line {number} is {content!r}; expected name==version --hash=sha256:…")
            pinned[found["name"]] = (found["version"], found["sha256"])
    return pinned


def platforms() -> tuple[str, ...]:
    """Platform tags in pip's order of preference."""
    manylinux = tuple(f"manylinux_2_{minor}_{ARCHITECTURE}" for minor in range(GLIBC_MINOR, 16, -1))
    return (*manylinux, f"manylinux2014_{ARCHITECTURE}", f"linux_{ARCHITECTURE}")


def tags() -> tuple[Tag, ...]:
    """What the image's Python accepts, the preferred first."""
    abi = f"cp{PYTHON[0]}{PYTHON[1]}"
    first = cpython_tags(PYTHON, [abi], platforms())
    return (*first, *compatible_tags(PYTHON, abi, platforms()))


def chosen(document: Mapping[str, Any]) -> tuple[Pin, ...]:
    """One wheel for every package of a pylock document.

    Raises:
        LockError: a package has no wheel that fits, or comes from elsewhere than an index.
    """
    rank = {tag: at for at, tag in enumerate(tags())}
    pins = []
    for package in document["packages"]:
        fitting = []
        for wheel in package.get("wheels", ()):
            name = wheel.get("name") or str(wheel["url"]).rsplit("/", 1)[-1]
            _, _, build, wheels_tags = parse_wheel_filename(unquote(name))
            ranks = [rank[tag] for tag in wheels_tags if tag in rank]
            if ranks:
                newest_build_first = -build[0] if build else 1
                fitting.append((min(ranks), newest_build_first, name, wheel["hashes"]["sha256"]))
        if not fitting:
            raise LockError(f"{package['name']} {package.get('version')}: no wheel for {ARCHITECTURE}, {_python()}")
        _, _, wheel_name, sha256 = min(fitting)
        pins.append(Pin(canonicalize_name(package["name"]), package["version"], wheel_name, sha256))
    return tuple(pins)


def resolve(wanted: Iterable[str], scratch: Path) -> dict[str, Any]:
    """uv's answer as pylock (PEP 751), by a uv of its own and without the machine's uv configuration."""
    uv = _uv(scratch)
    source, result = scratch / "wanted.txt", scratch / "pylock.toml"
    source.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    command = [str(uv), "pip", "compile", "--quiet", "--no-config", "--system-certs", "--only-binary", ":all:"]
    command += ["--python-platform", f"{ARCHITECTURE}-manylinux_2_{GLIBC_MINOR}", "--python-version", _python()]
    command += ["--format", "pylock.toml", "--output-file", str(result), "--no-header", str(source)]
    result.unlink(missing_ok=True)
    if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode != 0:
        raise LockError("uv found no solution; its message is above")
    return tomllib.loads(result.read_text(encoding="utf-8"))


def pips_choice(pinned: Mapping[str, tuple[str, str]], scratch: Path) -> dict[str, tuple[str, str]]:
    """What pip would install for the same pins on the target, by the index's own hashes; metadata alone is fetched."""
    source, report = scratch / "pinned.txt", scratch / "report.json"
    source.write_text("".join(f"{name}=={version}\n" for name, (version, _) in pinned.items()), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    command += ["--report", str(report), "--target", str(scratch / "none"), "--only-binary=:all:"]
    command += ["--python-version", _python(), "--implementation", "cp", "--abi", f"cp{PYTHON[0]}{PYTHON[1]}"]
    command += [part for platform in platforms() for part in ("--platform", platform)]
    if subprocess.run([*command, "--requirement", str(source)], check=False).returncode != 0:
        raise LockError("pip does not find what the lock names; its message is above")
    found: dict[str, tuple[str, str]] = {}
    for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
        about = item["metadata"]
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        found[canonicalize_name(about["name"])] = (about["version"], digest)
    return found


def compare(pinned: Mapping[str, tuple[str, str]], found: Mapping[str, tuple[str, str]]) -> None:
    """Raise LockError with every package for which pip would take other bytes."""
    differing = [
        f"{name}: the lock has {pinned.get(name)}, pip takes {found.get(name)}"
        for name in sorted(pinned.keys() | found.keys())
        if pinned.get(name, ("", ""))[1] != found.get(name, ("", ""))[1]
    ]
    if differing:
        raise LockError("\n  ".join(["pip would take other wheels:", *differing]))


def _python() -> str:
    return ".".join(map(str, PYTHON))


def _uv(scratch: Path) -> Path:
    place = scratch / "uv"
    program = place / "bin" / "uv"
    if not program.exists():
        venv.create(place, with_pip=True)
        install = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", f"uv=={UV}"]
        if subprocess.run(install, check=False).returncode != 0:
            raise LockError(f"uv {UV} could not be installed; pip's message is above")
    return program


if __name__ == "__main__":
    sys.exit(main())
