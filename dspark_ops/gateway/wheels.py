"""Fetches the router's wheels on the control host, by the lock, for the head's Python and architecture.

The role `gateway` runs `python -m dspark_ops.gateway.wheels --lock L --python 3.12 --architecture aarch64 --into DIR`:
it prints a tar archive's path. pip evaluates markers for the machine that it runs on, so they are resolved here.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from dspark_ops.errors import DsparkError, NoVerdictError

_PIN = re.compile(
    r"(?P<pin>[a-z0-9-]+==[^\s;]+)(?: ; python_version == \"(?P<python>3\.\d+)\")?"
    r"(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)"
)
_ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "aarch64", "amd64": "x86_64", "arm64": "aarch64"}
_GLIBC_MINOR = 36
_LEFT_OVER_S = 86_400


def requirements(lock: str, python: str) -> str:
    """The lines of a lock for one Python, without markers.

    Raises:
        NoVerdictError: a line is no pin with hashes, or the lock is not for this Python.
    """
    kept = []
    pythons = re.search(r"^# .*Python ([0-9., ]+), wheels", lock)
    if pythons is None or python not in pythons[1].split(", "):
        known = pythons[1] if pythons else "nothing that it says"
        raise NoVerdictError(
            f"the head has Python {python}; the lock is for {known}", hint="write the lock anew for it"
        )
    for number, line in enumerate(lock.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        pin = _PIN.fullmatch(line)
        if pin is None:
            raise NoVerdictError(f"line {number} of the lock is no pin with hashes: {line[:80]}", hint="write it anew")
        if pin["python"] in (None, python):
            kept.append(pin["pin"] + pin["hashes"] + "\n")
    return "".join(kept)


def fetch(lock: Path, python: str, architecture: str, into: Path) -> Path:
    """The archive of all wheels, made once and kept.

    Raises:
        NoVerdictError: an architecture without wheels, or pip could not fetch them or got other bytes.
    """
    machine = _ARCHITECTURES.get(architecture)
    if machine is None:
        raise NoVerdictError(f"the head is {architecture}; expected {' or '.join(_ARCHITECTURES)}")
    text = lock.read_text(encoding="utf-8")
    wanted = requirements(text, python)
    archive = into / f"gateway-wheels-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}-{python}-{machine}.tar"
    if archive.is_file():
        return archive
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gateway-wheels-", dir=into) as scratch:
        source, wheels = Path(scratch) / "requirements.txt", Path(scratch) / "wheels"
        source.write_text(wanted, encoding="utf-8")
        done = subprocess.run(
            pip_command(source, wheels, python, machine), check=False, capture_output=True, text=True, timeout=1800
        )
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise NoVerdictError(
                f"the router's wheels could not be fetched: {said}", hint="look at the index and the lock"
            )
        made = Path(scratch) / "wheels.tar"
        with tarfile.open(made, "w") as out:
            for wheel in sorted(wheels.iterdir()):
                out.add(wheel, wheel.name, filter=_plain)
        made.replace(archive)
    _prune(into, archive)
    return archive


def _prune(into: Path, kept: Path) -> None:
    """Forget archives of earlier locks for the same Python and architecture, 170 MB each, and what a kill left over."""
    same = kept.name.split("-", 3)[3]
    for path in into.glob(f"gateway-wheels-*-{same}"):
        if path != kept:
            path.unlink(missing_ok=True)
    for scratch in into.glob("gateway-wheels-*"):
        if scratch.is_dir() and time.time() - scratch.stat().st_mtime > _LEFT_OVER_S:
            shutil.rmtree(scratch, ignore_errors=True)


def pip_command(source: Path, wheels: Path, python: str, machine: str) -> list[str]:
    """pip's argument list for another machine than this one."""
    short = "cp" + python.replace(".", "")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += [
        "--disable-pip-version-check",
        "--only-binary=:all:",
        "--dest",
        str(wheels),
        "--requirement",
        str(source),
    ]
    command += ["--implementation", "cp", "--python-version", python, "--abi", short, "--abi", "abi3", "--abi", "none"]
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC_MINOR, 16, -1)]
    platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
    if machine == "x86_64":
        platforms += [f"{old}_{machine}" for old in ("manylinux_2_12", "manylinux2010", "manylinux1")]
    return command + [word for platform in platforms for word in ("--platform", platform)]


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode, entry.mtime = 0o644, 0
    return entry


def main() -> None:
    """The command line that the role calls."""
    parser = argparse.ArgumentParser(description="Fetch the router's wheels; print the archive's path.")
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--python", required=True, help="as 3.12")
    parser.add_argument("--architecture", required=True)
    parser.add_argument("--into", type=Path, required=True)
    asked = parser.parse_args()
    try:
        sys.stdout.write(f"{fetch(asked.lock, asked.python, asked.architecture, asked.into)}\n")
    except DsparkError as error:
        sys.exit(f"{error.message}" + (f"; {error.hint}" if error.hint else ""))


if __name__ == "__main__":
    main()
