#!/usr/bin/env python3
"""Write requirements.lock again: `python templates/gateway/lock.py`; --check says whether uv would write the same.

uv resolves once for all targets, from PyPI alone, wheels alone, and nothing that was uploaded within the last week: a
stolen release is usually found within days. Of each package's wheels those are pinned that pip takes on a target.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

LOCK = Path(__file__).with_name("requirements.lock")
#: Below 1.84 a Host header gets past LiteLLM's authentication (CVE-2026-49468).
WANTED = "litellm[proxy]>=1.84"
QUARANTINE = timedelta(days=7)
PYTHONS = ((3, 11), (3, 12))  # Debian 12; DGX OS 7 (Ubuntu 24.04)
#: A marker may tell patch releases apart: Debian 12 has 3.11.2, and whoever built a Python has a later one.
PATCHES = (2, 9)
ARCHITECTURES = ("x86_64", "aarch64")
GLIBC_MINOR = 36
UV = "0.13.9"


def main(arguments: list[str] | None = None) -> int:
    """Write the lock, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare with what is there; write nothing")
    asked = parser.parse_args(arguments)
    until = (datetime.now(UTC) - QUARANTINE).replace(hour=0, minute=0, second=0, microsecond=0)
    with tempfile.TemporaryDirectory(prefix="dspark-lock-") as scratch:
        document = resolve(Path(scratch), until)
    text = rendered(document, until)
    if asked.check:
        same = _pins(LOCK.read_text(encoding="utf-8")) == _pins(text)
        sys.stdout.write("the same pins\n" if same else "other pins; run without --check\n")
        return 0 if same else 1
    LOCK.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{LOCK.name}: {len(_pins(text))} packages\n")
    return 0


def rendered(document: Mapping[str, Any], until: datetime) -> str:
    """The lock file's text."""
    pythons = ", ".join(".".join(map(str, python)) for python in PYTHONS)
    head = (
        f"# Written by lock.py from {WANTED}, uploaded before {until:%Y-%m-%d}: Linux, {' and '.join(ARCHITECTURES)}, "
    )
    head += f"Python {pythons}, wheels alone. Do not edit.\n"
    lines = [line for package in document["packages"] for line in pinned(package)]
    return head + "".join(sorted(lines))


def pinned(package: Mapping[str, Any]) -> Iterable[str]:
    """The line of one package, with the hash of every wheel that a target takes; none where no target wants it.

    Raises:
        SystemExit: a target wants it and has no wheel.
    """
    name, version = canonicalize_name(package["name"]), package["version"]
    wanted = [target for target in targets() if wanted_on(package, *target)]
    hashes: dict[str, None] = {}
    for python, architecture in wanted:
        wheel = best(package, python, architecture)
        if wheel is None:
            sys.exit(f"lock.py: {name} {version} has no wheel for Python {python[0]}.{python[1]} on {architecture}")
        hashes[wheel] = None
    if not wanted:
        return
    marker = ""
    pythons = sorted({python for python, _ in wanted})
    if len(pythons) < len(PYTHONS):
        marker = f' ; python_version == "{pythons[0][0]}.{pythons[0][1]}"'
    yield f"{name}=={version}{marker}" + "".join(f" --hash=sha256:{digest}" for digest in sorted(hashes)) + "\n"


def targets() -> list[tuple[tuple[int, int], str]]:
    """Every Python and architecture that the lock is for."""
    return [(python, architecture) for python in PYTHONS for architecture in ARCHITECTURES]


def wanted_on(package: Mapping[str, Any], python: tuple[int, int], architecture: str) -> bool:
    """Whether a target installs the package, by any of the patch releases that it may have."""
    return any(_wanted_by(package, python, patch, architecture) for patch in PATCHES)


def _wanted_by(package: Mapping[str, Any], python: tuple[int, int], patch: int, architecture: str) -> bool:
    short = ".".join(map(str, python))
    environment = {
        "python_version": short,
        "python_full_version": f"{short}.{patch}",
        "platform_machine": architecture,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
    return "marker" not in package or Marker(package["marker"]).evaluate(environment)


def best(package: Mapping[str, Any], python: tuple[int, int], architecture: str) -> str | None:
    """The sha256 of the wheel that pip prefers on a target; None where none fits."""
    rank = {tag: at for at, tag in enumerate(tags(python, architecture))}
    fitting = []
    for wheel in package.get("wheels", ()):
        name = wheel.get("name") or str(wheel["url"]).rsplit("/", 1)[-1]
        ranks = [rank[tag] for tag in parse_wheel_filename(unquote(name))[3] if tag in rank]
        if ranks:
            fitting.append((min(ranks), name, wheel["hashes"]["sha256"]))
    return min(fitting)[2] if fitting else None


def tags(python: tuple[int, int], architecture: str) -> tuple[Tag, ...]:
    """What a target's Python accepts, the preferred first."""
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in range(GLIBC_MINOR, 16, -1)]
    platforms += [f"manylinux2014_{architecture}"]
    if architecture == "x86_64":
        platforms += [f"manylinux_2_12_{architecture}", f"manylinux2010_{architecture}", f"manylinux1_{architecture}"]
    platforms += [f"linux_{architecture}"]
    abi = f"cp{python[0]}{python[1]}"
    return (*cpython_tags(python, [abi], platforms), *compatible_tags(python, abi, platforms))


def resolve(scratch: Path, until: datetime) -> dict[str, Any]:
    """uv's answer as pylock (PEP 751), by a uv of its own and without the machine's uv configuration."""
    venv.create(scratch / "uv", with_pip=True)
    bin_ = scratch / "uv" / "bin"
    subprocess.run([str(bin_ / "python"), "-m", "pip", "install", "--quiet", f"uv=={UV}"], check=True)
    source, result = scratch / "wanted.txt", scratch / "pylock.toml"
    source.write_text(WANTED + "\n", encoding="utf-8")
    command = [str(bin_ / "uv"), "pip", "compile", "--quiet", "--no-config", "--system-certs", "--only-binary", ":all:"]
    command += ["--universal", "--python-version", ".".join(map(str, PYTHONS[0])), "--exclude-newer", until.isoformat()]
    command += ["--format", "pylock.toml", "--output-file", str(result), "--no-header", str(source)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return tomllib.loads(result.read_text(encoding="utf-8"))


def _pins(text: str) -> set[str]:
    return {line for line in text.splitlines() if line and not line.startswith("#")}


if __name__ == "__main__":
    sys.exit(main())
