"""The rules and their unit tests as they lie in the tree, and the real programs that judge them.

usage: python -m tests.monitoring.rule_files --install-prerequisites
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dspark_ops.lab.prerequisites import Prerequisite, ensure_all
from dspark_ops.paths import data_dir

TESTS = Path(__file__).parent
RULES = data_dir("templates") / "monitoring" / "rules"
PROGRAMS = (
    Prerequisite("promtool", "prometheus"),
    Prerequisite("amtool", "prometheus-alertmanager"),
    Prerequisite("prometheus-node-exporter", "prometheus-node-exporter"),
    Prerequisite("ss", "iproute2"),
)


def need_programs(*, install: bool = False) -> None:
    """The real programs are here; a machine that lacks them is an error and no reason to skip.

    install: apt gets what is missing. Its services stay off: they would listen on every address.

    Raises:
        ConfigError: something is missing and not to be installed. NoVerdictError: apt-get failed.
    """
    if install:
        for program in PROGRAMS[:3]:
            unit = Path(f"/etc/systemd/system/{program.package}.service")
            if not program.present() and unit.parent.is_dir() and not unit.is_symlink() and not unit.exists():
                unit.symlink_to("/dev/null")
    verb = "python -m tests.monitoring.rule_files"
    ensure_all(PROGRAMS, install=install, verb=verb, progress=_say)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def alerts() -> dict[str, tuple[Path, dict[str, Any]]]:
    """Every alert by its name, with the file that holds it."""
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    assert rule["alert"] not in found, f"{rule['alert']} is there twice"
                    found[rule["alert"]] = (path, rule)
    return found


def test_file(alert: str) -> Path:
    """Where the unit tests of an alert are."""
    return TESTS / f"{alert}.test.yml"


test_file.__test__ = False  # type: ignore[attr-defined]


def promtool(*words: str, timeout_s: float = 540) -> subprocess.CompletedProcess[str]:
    """Run promtool; both of its outputs in one."""
    return subprocess.run(
        ["promtool", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def failed_files(output: str, files: Sequence[Path]) -> set[Path]:
    """The test files that promtool says failed, by what it prints under each name.

    Raises:
        ValueError: it did not say how one of them went.
    """
    told: dict[str, bool] = {}
    name = None
    for line in output.splitlines():
        if line.startswith("Unit Testing:"):
            name = line.partition(":")[2].strip()
        elif name is not None and line.strip() in ("SUCCESS", "FAILED:"):
            told[name] = line.strip() == "SUCCESS"
            name = None
    silent = [path for path in files if str(path) not in told]
    if silent:
        raise ValueError(f"promtool did not say how {silent[0].name} went: {output[-400:]}")
    return {path for path in files if not told[str(path)]}


if __name__ == "__main__":
    need_programs(install="--install-prerequisites" in sys.argv[1:])
