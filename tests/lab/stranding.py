"""Changes of the fabric that would strand a node: make one with the product's own playbook, and time the way back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dspark_ops.config.load import load_site
from dspark_ops.config.models import ROLES, Role
from dspark_ops.fabric.apply import rail_variables
from dspark_ops.fabric.transaction import REVERT_AFTER_S
from dspark_ops.lab.layout import HEAD, WORKER
from tests.lab.node_power import node_container, power_cycle

KINDS = ("control-killed", "wrong-interface", "wrong-address", "reboot")
JOURNAL = "/var/lib/dspark/journal/fabric.json"
MANAGEMENT = "enP7s7"
# The lab keeps networkd away from the management port; a real node does not.
UNMANAGED = "/etc/systemd/network/05-dspark-lab-unmanaged.network"
LIMIT_S = 60.0
_NODES = {"head": HEAD, "worker": WORKER}

# Everything that a person would compare: files with digest and mode, links with addresses, MTU and flags, routes.
# Docker's bridge is left out: it is made anew at a boot, and gets an fe80 address only with its first container.
_SNAPSHOT = """
import hashlib, json, os, subprocess
def ip(*words):
    return json.loads(subprocess.run(["ip", "-j", *words], capture_output=True, check=True).stdout)
files = [os.path.join(d, f) for top in ("/etc/netplan", "/etc/systemd/network", "/etc/NetworkManager")
         for d, _, names in os.walk(top) for f in names]
links = {l["ifname"]: [l["mtu"], sorted(l["flags"]),
         sorted("%s/%s" % (a["local"], a["prefixlen"]) for a in l["addr_info"])] for l in ip("addr")
         if l["ifname"] != "docker0"}
print(json.dumps({
    "files": {f: [hashlib.sha256(open(f, "rb").read()).hexdigest(), oct(os.stat(f).st_mode)] for f in files},
    "links": links,
    "routes": sorted(" ".join(str(r.get(k)) for k in ("dst", "gateway", "dev", "protocol", "prefsrc"))
                     for r in ip("route") if r.get("dev") != "docker0"),
    "journal": json.load(open("JOURNAL")) if os.path.exists("JOURNAL") else None,
}))
""".replace("JOURNAL", JOURNAL)

_CHILD = """
import json, sys
from pathlib import Path
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import load_site
told = json.loads(sys.argv[1])
result = run_playbook("fabric.yml", load_site(Path(told["site"])), variables=told["variables"],
                      host_variables=told["rails"], tags=("precheck", "fabric"))
print(result.rc, [f.message for f in result.failures], result.unreachable, flush=True)
"""


@dataclass(frozen=True)
class Trial:
    """kind: what goes wrong. role: on which node. moment_s: when the control process is killed, or the node restarted,
    after that node has begun to change."""

    kind: str
    role: Role
    moment_s: float
    revert_after_s: int = REVERT_AFTER_S

    @property
    def limit_s(self) -> float:
        """A minute with the default window, less with a shorter one."""
        return LIMIT_S - REVERT_AFTER_S + self.revert_after_s


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, in seconds after the change had begun on the node."""

    trial: Trial
    returned_s: float
    lost: bool
    why: str
    journal: dict[str, Any]

    def __str__(self) -> str:
        told = self.trial
        lost = "management lost" if self.lost else "management kept"
        return (
            f"{told.kind:<15} {told.role:<6} moment {told.moment_s:4.1f} s: {lost}, as before after "
            f"{self.returned_s:4.1f} s ({self.why}, the revert itself {self.journal['reverted']['took_s']} s)"
        )


@dataclass(frozen=True)
class Stranding:
    """The pair seen from the control host."""

    site: Path
    ssh_config: Path

    def ssh(self, role: Role, *argv: str, script: str = "", timeout_s: float = 6.0) -> str | None:
        """What a command says on a node, as root, over a connection of its own; None when there was no way in."""
        options = ["-F", str(self.ssh_config), "-o", "ConnectTimeout=2", "-o", "ControlPath=none"]
        try:
            done = subprocess.run(
                ["ssh", *options, _NODES[role].name, "sudo", "-n", *argv],
                input=script,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None

    def look(self, role: Role) -> dict[str, Any] | None:
        """The node's network as it is, with the journal apart."""
        said = self.ssh(role, "python3", "-", script=_SNAPSHOT)
        found: dict[str, Any] | None = json.loads(said) if said else None
        return found

    def state(self, role: Role) -> dict[str, Any]:
        """As look, of a node that must answer; without the journal."""
        seen = self.look(role)
        assert seen is not None, f"{role} does not answer before the trial"
        return {key: value for key, value in seen.items() if key != "journal"}

    def run(self, trial: Trial) -> Outcome:
        """Make the change, do what goes wrong, and wait until both nodes are what they were."""
        with self._networkd_has_the_management_port(trial):
            before = {role: self.state(role) for role in ROLES}
            old = {role: (self.look(role) or {}).get("journal") for role in ROLES}
            child = self._begin(trial)
            try:
                self._await_change(trial.role, old[trial.role], child)
                time.sleep(trial.moment_s)
                if trial.kind == "reboot":
                    power_cycle(trial.role)
                # Nobody confirms: whatever the control process was doing, it is gone.
                child.send_signal(signal.SIGKILL)
                return self._await_return(trial, before, old)
            finally:
                child.kill()
                child.wait(timeout=30)

    def _begin(self, trial: Trial) -> subprocess.Popen[bytes]:
        told = {
            "site": str(self.site),
            "variables": {
                "fabric_mtu": 9000,
                "fabric_allow_management": trial.kind.startswith("wrong"),
                "fabric_revert_after_s": trial.revert_after_s,
            },
            "rails": self._rails(trial),
        }
        return subprocess.Popen(
            [sys.executable, "-c", _CHILD, json.dumps(told)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def _rails(self, trial: Trial) -> dict[Role, dict[str, Any]]:
        """Rails with other addresses than the site's, so that there is a change; of a bad change the first is wrong."""
        found: dict[Role, dict[str, Any]] = json.loads(json.dumps(rail_variables(load_site(self.site).site)))
        for variables in found.values():
            for rail in variables["fabric_rails"]:
                for key in ("address", "peer"):
                    rail[key] = rail[key].replace("10.77.", "10.88.", 1)
        first = found[trial.role]["fabric_rails"][0]
        if trial.kind == "wrong-interface":
            first["netdev"] = MANAGEMENT
        elif trial.kind == "wrong-address":
            # Swallows the control host, which is the first address of the lab's management network.
            first["address"] = "10.77.77.100/25"
        return found

    def _await_change(self, role: Role, old: dict[str, Any] | None, child: subprocess.Popen[bytes]) -> None:
        """Until the node's journal has a new entry: asked over the lab's Docker, which needs no network of the node."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            entry = self.journal_inside(role)
            if entry is not None and (old is None or entry["id"] != old["id"]):
                return
            assert child.poll() is None, "the playbook ended without a change"
            time.sleep(0.05)
        raise AssertionError(f"{role} did not begin to change within 60 s")

    def journal_inside(self, role: Role) -> dict[str, Any] | None:
        """The journal's current entry, read from beside the node."""
        with node_container(role) as container:
            code, out = container.exec_run(["cat", JOURNAL])
        # Docker now and then ends before it has passed on the output.
        found: dict[str, Any] | None = json.loads(out) if code == 0 and out.endswith(b"}") else None
        return found

    @contextmanager
    def _networkd_has_the_management_port(self, trial: Trial) -> Iterator[None]:
        if trial.kind != "wrong-interface":
            yield
            return
        text = self.ssh(trial.role, "cat", UNMANAGED)
        assert text
        assert self.ssh(trial.role, "sh", "-c", f"'rm {UNMANAGED} && networkctl reload'") is not None
        try:
            yield
        finally:
            put = f"'cat > {UNMANAGED} && networkctl reload'"
            assert self.ssh(trial.role, "sh", "-c", put, script=text, timeout_s=20) is not None

    def _await_return(
        self, trial: Trial, before: dict[Role, dict[str, Any]], old: dict[Role, dict[str, Any] | None]
    ) -> Outcome:
        lost, returned, entry = False, 0.0, {}
        for role in (trial.role, *(other for other in ROLES if other != trial.role)):
            if role != trial.role:
                time.sleep(3)  # it may have begun later, and nobody is left to tell
            until = time.monotonic() + LIMIT_S + 30
            while True:
                seen = self.look(role)
                lost = lost or (seen is None and role == trial.role)
                journal = seen.pop("journal") if seen else None
                changed = journal is not None and (old[role] is None or journal["id"] != old[role]["id"])
                if seen == before[role] and (not changed or journal["state"] == "reverted"):
                    break
                assert time.monotonic() < until, f"{trial}: {role} is not as before: {_difference(before[role], seen)}"
                time.sleep(0.2)
            if role == trial.role:
                assert journal is not None
                returned, entry = time.time() - _began(journal), journal
        return Outcome(trial, returned, lost, entry["reverted"]["why"], entry)


def _began(entry: dict[str, Any]) -> float:
    return datetime.strptime(entry["id"], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC).timestamp()


def _difference(before: dict[str, Any], seen: dict[str, Any] | None) -> str:
    if seen is None:
        return "no answer"
    found = []
    for part, was in before.items():
        if was != seen[part]:
            found.append(f"{part}: was {was}, is {seen[part]}")
    return "; ".join(found) or "the journal is not settled"
