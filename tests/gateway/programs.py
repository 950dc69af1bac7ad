"""The real programs for these tests: LiteLLM in an environment of its own, made from the product's lock, and HAProxy.

`python -m tests.gateway.programs --install-prerequisites` gets both; a test that finds one missing fails and says so.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from dspark_ops.errors import NoVerdictError
from dspark_ops.lab.prerequisites import Prerequisite, ensure_all
from dspark_ops.paths import cache_dir, data_dir

HAPROXY = Prerequisite("haproxy", "haproxy")
_INSTALL_S = 900


def lock_file() -> Path:
    """The lock that the role installs from."""
    return data_dir("templates") / "gateway" / "requirements.lock"


def environment() -> Path:
    """The environment for this lock and this interpreter; made where it is not there yet (two minutes, 750 MB)."""
    lock = lock_file().read_bytes()
    name = hashlib.sha256(lock + sys.version.encode()).hexdigest()[:16]
    place = cache_dir() / "gateway-test" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    whole = place / "complete"
    with (place.parent / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not whole.exists():
            shutil.rmtree(place, ignore_errors=True)
            venv.create(place, with_pip=True, symlinks=True)
            _install(place)
            whole.touch()
    return place


def _install(place: Path) -> None:
    command = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
    command += ["--only-binary", ":all:", "--no-deps", "-r", str(lock_file())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    if done.returncode != 0:
        raise NoVerdictError(f"pip could not install the gateway's lock:\n{done.stderr[-2000:]}")


def haproxy() -> Path:
    """The program; ConfigError with the command that installs it where it is missing."""
    ensure_all((HAPROXY,), install=False, verb="python -m tests.gateway.programs", progress=print)
    found = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    assert found is not None
    return Path(found)


def main() -> None:
    """Get both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install-prerequisites", action="store_true", help="let apt-get install HAProxy")
    given = parser.parse_args()

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    verb = "python -m tests.gateway.programs"
    ensure_all((HAPROXY,), install=given.install_prerequisites, verb=verb, progress=say)
    say(f"{haproxy()} and {environment()}")


if __name__ == "__main__":
    main()
