"""The story that test_zz_teardown tells, run inside fresh network and mount namespaces. Prints one JSON document."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STATE = Path(sys.argv[1]).resolve()
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "DOCKER_HOST"} | {"XDG_STATE_HOME": str(STATE)}
CLI = [sys.executable, "-m", "dspark_ops"]
ENGINE = STATE / "dspark-ops/lab/docker"


def isolate() -> None:
    """Show /sys of this network namespace and keep the machine's cgroup tree: dockerd needs both."""
    keep = STATE / "cgroup"
    keep.mkdir()
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["mount", "--rbind", "/sys/fs/cgroup", str(keep)],
        ["mount", "-t", "sysfs", "sysfs", "/sys"],
        ["mount", "--rbind", str(keep), "/sys/fs/cgroup"],
        ["umount", "-l", str(keep)],
    ):
        subprocess.run(command, check=True, timeout=30)
    keep.rmdir()


def lab(*arguments: str) -> dict[str, Any]:
    """Run a lab command; its document with the exit code."""
    done = subprocess.run(
        [*CLI, "lab", *arguments, "--json"], env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )
    sys.stderr.write(done.stderr)
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return {"exit": done.returncode, **document}


def up_and_kill(line: str) -> str:
    """Start `lab up` and kill it with -9 when it says `line`; what it said last."""
    process = subprocess.Popen([*CLI, "lab", "up", "--no-engine"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    said = ""
    assert process.stderr is not None
    for text in process.stderr:
        said = text.split("] ", 1)[-1].strip()
        if said.startswith(line):
            break
    process.kill()
    process.wait(10)
    return said


def snapshot() -> dict[str, list[str]]:
    """Links, mounts, rules, files and processes that a lab would leave."""

    def lines(*command: str) -> list[str]:
        return sorted(
            subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.splitlines()
        )

    processes = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_text(errors="replace") + (entry / "mountinfo").read_text().split("\n", 1)[0]
        except OSError:
            continue
        if str(ENGINE) in text:
            processes.append(text.replace("\0", " "))
    return {
        "links": [line.split()[1] for line in lines("ip", "-o", "link")],
        "mounts": [at for at in lines("findmnt", "-rno", "TARGET") if at.startswith(str(STATE)) or not _foreign(at)],
        "filter": lines("iptables", "-S"),
        "nat": lines("iptables", "-t", "nat", "-S"),
        "sysctl": [Path("/proc/sys/net/ipv4/ip_forward").read_text()],
        "files": sorted(str(path) for path in STATE.rglob("*")),
        "run": sorted(str(p) for p in (*Path("/run").glob("docker*"), *Path("/run").glob("containerd*"))),
        "etc": sorted(str(path) for path in Path("/etc/docker").rglob("*")),
        "processes": processes,
    }


def _foreign(mount: str) -> bool:
    """Whether a mount is another Engine's: they come and go while this runs."""
    return "/overlay2/" in mount or "/netns/" in mount or "/containers/" in mount


def pick(document: dict[str, Any], *names: str) -> dict[str, Any]:
    """Some keys of a document."""
    return {name: document[name] for name in names}


def main() -> dict[str, Any]:
    """Tell the story."""
    isolate()
    told: dict[str, Any] = {"before": snapshot()}
    told["interrupted_after"] = up_and_kill("starting spark-worker")
    told["half_built"] = pick(lab("status"), "exit", "state")
    told["finished"] = pick(lab("up", "--no-engine"), "exit", "state")
    told["again"] = pick(lab("up", "--no-engine"), "exit", "state", "changed")
    os.kill(int((ENGINE / "docker.pid").read_text()), signal.SIGKILL)
    time.sleep(0.5)
    told["down"] = lab("down")
    told["after"] = snapshot()
    up_and_kill("starting spark-head")
    told["down_half_built"] = lab("down")
    told["after_half_built"] = snapshot()
    told["down_again"] = lab("down")
    told["status_after"] = pick(lab("status"), "exit", "state")
    return told


sys.stdout.write(json.dumps(main()))
