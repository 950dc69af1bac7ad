"""A node for the module dspark_tenants: its `docker`, `systemctl`, `runuser` and its memory are the test's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import dspark_tenant_containers as containers
from ansible.module_utils import dspark_tenant_processes as bare
from ansible.module_utils import dspark_tenant_records as records
from ansible.module_utils import dspark_tenant_transactions as transactions
from ansible.module_utils import dspark_tenant_units as units

# An Engine of several containers. `docker stop` gives the memory back; every call is written down.
DOCKER = """
home = os.environ["FAKE_NODE"]
state = json.load(open(home + "/state"))
args = sys.argv[1:]
open(home + "/calls", "a").write(" ".join(["docker", *args]) + "\\n")
def die(text):
    sys.stderr.write(text + "\\n")
    sys.exit(1)
if state.get("down"):
    die("Cannot connect to the Docker daemon")
box = next((b for b in state["containers"] if args[-1] in (b["Id"], b["Name"].lstrip("/"))), None)
if box is None:
    die("Error response from daemon: No such container: " + args[-1])
if args[:2] == ["container", "inspect"]:
    print(json.dumps([box]))
    sys.exit()
if args[0] == "update":
    name, _, count = args[1].removeprefix("--restart=").partition(":")
    box["HostConfig"]["RestartPolicy"] = {"Name": name, "MaximumRetryCount": int(count or 0)}
elif args[0] in ("stop", "start", "pause", "unpause"):
    status = {"stop": "exited", "start": "running", "pause": "paused", "unpause": "running"}[args[0]]
    box["State"] = {"Status": status, "Running": status != "exited", "Pid": 0, "StartedAt": box["State"]["StartedAt"]}
    if args[0] == "stop" and state.get("respawn"):
        state["containers"].remove(box)
        state["containers"].append({**box, "Id": "new" + box["Id"], "State": {**box["State"], "Status": "running"}})
json.dump(state, open(home + "/state", "w"))
"""
# systemd in a file, with drop-ins that are really looked for: a unit with an unmet condition does not start.
SYSTEMCTL = """
home = os.environ["FAKE_NODE"]
state = json.load(open(home + "/state"))
args = [word for word in sys.argv[1:] if word != "--"]
user = "--user" in args
args = [word for word in args if word != "--user"]
open(home + "/calls", "a").write(" ".join(["systemctl", *(["--user"] if user else []), *args]) + "\\n")
units, name = state["units"], args[-1]
unit = units.get(name)
if args[0] == "show":
    found = dict(Id=name, LoadState="loaded", **unit["show"]) if unit else {"Id": name, "LoadState": "not-found",
        "ActiveState": "inactive"}
    print("\\n".join(k + "=" + v for k, v in found.items()))
elif args[0] == "is-active":
    sys.exit(3 if state.get("no_user_manager") else 0)
elif args[0] == "is-enabled":
    print(unit["enabled"] if unit else "")
elif args[0] == "stop" and unit:
    if not unit.get("stubborn"):
        unit["show"]["ActiveState"] = "inactive"
        if "/systemd/transient/" in unit["show"]["FragmentPath"]:
            del units[name]
            os.unlink(unit["show"]["FragmentPath"])
            state.setdefault("gone", {})[name] = unit
elif args[0] == "kill":
    unit["show"]["ActiveState"] = "failed"
elif args[0] == "daemon-reload":
    for name, gone in list(state.get("gone", {}).items()):
        if os.path.exists(gone["show"]["FragmentPath"]):
            units[name] = state["gone"].pop(name)
elif args[0] == "start":
    folder = home + ("/etc-user/" if user else "/etc-system/") + name + ".d"
    if not (os.path.isdir(folder) and any(f.startswith("zz-dspark") for f in os.listdir(folder))):
        unit["show"]["ActiveState"] = "active"
json.dump(state, open(home + "/state", "w"))
"""
RUNUSER = (
    'open(os.environ["FAKE_NODE"] + "/users", "a").write(sys.argv[2] + "\\n")\nos.execvp(sys.argv[4], sys.argv[4:])'
)


class Killed(BaseException):
    """The module ends here, as by SIGKILL: nothing after it happens."""


class TenantNode:
    """The node as a test sees it. 2 GiB come back by an eviction, unless `keeps` is set."""

    def __init__(self, home: Path) -> None:
        self.home, self.records = home, home / "records"
        self.memory_kib, self.held_kib, self.keeps = 10 << 20, 2 << 20, False
        self.has()

    def has(self, **state: Any) -> None:
        told: dict[str, Any] = {"containers": [], "units": {}, **state}
        (self.home / "state").write_text(json.dumps(told))
        (self.home / "calls").write_text("")

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "state").read_text())
        return found

    def changing_calls(self) -> list[str]:
        read = ("docker container inspect", "systemctl show", "systemctl is-", "systemctl --user show")
        calls = (self.home / "calls").read_text().splitlines()
        return [call for call in calls if not call.startswith((*read, "systemctl --user is-"))]

    def available(self) -> int:
        """More after every stop."""
        stops = sum(" stop " in call or " kill " in call for call in self.changing_calls())
        return self.memory_kib + (0 if self.keeps else stops * self.held_kib)

    def limits(self, **more: Any) -> transactions.Limits:
        given: dict[str, Any] = {"timeout_s": 20.0, "return_timeout_s": 0.2, "folder": self.records, **more}
        return transactions.Limits(**given)

    def evict(self, tenant: dict[str, Any], run: str = "run", **more: Any) -> transactions.Result:
        return transactions.evict(tenant, run, self.limits(**more))

    def restore(self, **more: Any) -> list[transactions.Result]:
        limits = self.limits(**more)
        return [transactions.restore(record, limits) for record in reversed(records.owed(self.records))]

    def states(self) -> list[str]:
        return [record["state"] for record in records.load_all(self.records)] if self.records.is_dir() else []


def prepare(tmp_path: Path, on_path: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> TenantNode:
    """A node in a folder of the test, instead of this machine."""
    home = tmp_path / "node"
    home.mkdir()
    monkeypatch.setenv("FAKE_NODE", str(home))
    for name, text in (("docker", DOCKER), ("systemctl", SYSTEMCTL), ("runuser", RUNUSER)):
        on_path(name, text)
    node = TenantNode(home)
    node.records.mkdir()
    monkeypatch.setattr(units, "SYSTEM_FOLDER", home / "etc-system")
    monkeypatch.setattr(units, "USER_FOLDER", home / "etc-user")
    monkeypatch.setattr(transactions, "available_kib", node.available)
    monkeypatch.setattr(transactions, "held_kib", lambda _pids: node.held_kib)
    monkeypatch.setattr(transactions, "_POLL_S", 0.01)
    monkeypatch.setattr(transactions, "_SETTLE_S", 0.01)
    return node


class Killer:
    """Ends the module before the n-th thing that it changes: a program that is run, a file that is written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for module, name in (
            (containers, "must"),
            (units, "must"),
            (units, "write_durably"),
            (units, "remove_durably"),
            (records, "write_durably"),
            (bare, "send"),
        ):
            self._wrap(monkeypatch, module, name)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        real = getattr(module, name)

        def wrapped(*args: Any, **more: Any) -> Any:
            reads = name == "must" and "show" in args
            if self.left is not None and not reads:
                if self.left == 0:
                    raise Killed
                self.left -= 1
            return real(*args, **more)

        monkeypatch.setattr(module, name, wrapped)

    def run(self, after: int | None, work: Callable[[], Any]) -> bool:
        """Do the work and be killed before its n-th change; False when it ended before that."""
        self.left = after
        try:
            work()
        except Killed:
            return True
        finally:
            self.left = None
        return False


def box(identity: str, name: str, *, policy: str = "unless-stopped", retries: int = 0, **more: Any) -> dict[str, Any]:
    """A container that runs, as docker tells it."""
    labels = {"com.docker.compose.service": more["service"]} if "service" in more else {}
    if "depends_on" in more:
        labels["com.docker.compose.depends_on"] = more["depends_on"]
    return {
        "Id": identity,
        "Name": f"/{name}",
        "Image": "sha256:" + "1" * 64,
        "Config": {"Labels": labels},
        "HostConfig": {
            "RestartPolicy": {"Name": policy, "MaximumRetryCount": retries},
            "AutoRemove": more.get("rm", False),
        },
        "State": {
            "Status": more.get("status", "running"),
            "Running": True,
            "Pid": 0,
            "StartedAt": more.get("started", "2026-11-27T10:00:00Z"),
        },
    }


def container_tenant(*members: tuple[str, str], key: str = "container:comfyui") -> dict[str, Any]:
    kind = key.split(":", 1)[0]
    shown = [{"id": identity, "name": name} for identity, name in members]
    return {"key": key, "kind": kind, "what": "ComfyUI", "members": shown, "memory_kib": 2 << 20}


def unit(active: str = "active", enabled: str = "enabled", fragment: str = "/etc/x.service", **show: str) -> Any:
    told = {"ActiveState": active, "FragmentPath": fragment, "ControlGroup": "", "TriggeredBy": "", **show}
    return {"show": told, "enabled": enabled}


def unit_tenant(name: str, *, user: str | None = None, fragment: str | None = "/etc/x.service") -> dict[str, Any]:
    told = {"name": name, "user": user, "uid": 1000 if user else None, "fragment": fragment}
    kind = "user-unit" if user else "unit"
    key = f"{kind}:{user}/{name}" if user else f"{kind}:{name}"
    return {"key": key, "kind": kind, "what": name, "unit": told, "members": [], "memory_kib": 2 << 20}
