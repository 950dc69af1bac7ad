"""A node for the module dspark_fabric: its programs (`ip`, `netplan`, `networkctl`, `systemctl`) are the test's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.roles.conftest import PLAYBOOKS, Call

# The loopback port has a carrier everywhere; what `ip` says of it comes from the test.
RAILS = [{"name": "p0a", "netdev": "lo", "address": "10.77.0.1/24", "peer": "10.77.0.2"}]
CONTROL = "192.168.9.1"
MANAGEMENT = (1500, ["192.168.9.7/24"])
ROUTES = ["default via 192.168.9.1 dev mgmt proto static metric 100"]

_HEAD = """
home = os.environ["FAKE_NODE"] + "/"
open(home + "calls", "a").write(" ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
state = json.load(open(home + "links"))
links, routes = state["links"], state["routes"]
def save():
    json.dump(state, open(home + "links", "w"))
"""
# Words as iproute2 takes them; a route needs an address on its port, as in a kernel.
_IP = """
argv = [word for word in sys.argv[1:] if word not in ("-j", "-4", "-o")]
if argv[:2] == ["addr", "show"]:
    print(json.dumps([{"ifname": n, "mtu": l["mtu"], "address": "02:00:00:00:00:01", "flags": ["UP"] if l["up"] else [],
        "addr_info": [{"local": a.split("/")[0], "prefixlen": int(a.split("/")[1]), "scope": "global",
        "valid_life_time": 4294967295} for a in l["addresses"]]} for n, l in links.items()]))
elif argv[:2] == ["route", "show"]:
    print("\\n".join(routes))
elif argv[:2] == ["route", "get"]:
    print(json.dumps([{"dst": argv[2], "dev": open(home + "control-port").read()}]))
elif argv[:2] == ["route", "replace"]:
    if not any(l["addresses"] for n, l in links.items() if n in argv):
        sys.exit("Nexthop has invalid gateway.")
    routes.append(" ".join(argv[2:]))
    save()
elif argv[:2] == ["addr", "del"]:
    links[argv[4]]["addresses"].remove(argv[2])
    save()
elif argv[:2] == ["addr", "replace"]:
    links[argv[4]]["addresses"].append(argv[2])
    save()
elif argv[:2] == ["link", "set"]:
    link = links[argv[3]]
    if argv[4] == "mtu":
        link["mtu"] = int(argv[5])
    else:
        link["up"] = argv[4] == "up"
    save()
else:
    sys.exit("what is " + " ".join(argv))
"""
# As networkd: gives a port what the file says, and leaves alone a port that no file names.
_NETPLAN = (
    f"sys.path.append({str(Path(yaml.__file__).parents[1])!r})\n"
    """
mode = open(home + "netplan").read()
if sys.argv[1] == "generate":
    sys.exit("Error in network definition" if mode == "refuses" else 0)
if mode == "hangs":
    os.execvp("sleep", ["sleep", "60"])
if mode == "fails":
    sys.exit("dbus is gone")
if mode == "harms":
    links["mgmt"] = {"mtu": 9000, "up": False, "addresses": []}
    routes[:] = []
    save()
target = home + "etc/60-dspark-fabric.yaml"
if mode != "idle" and os.path.exists(target):
    import yaml
    for name, given in yaml.safe_load(open(target))["network"]["ethernets"].items():
        links[name] = {"mtu": given["mtu"], "up": True, "addresses": given["addresses"]}
    save()
"""
)
_NETWORKCTL = """
if sys.argv[1] == "reload":
    folder = home + "networkd/"
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        lines = dict(l.strip().split("=", 1) for l in open(folder + name) if "=" in l)
        links[lines["Name"]] = {"mtu": int(lines["MTUBytes"]), "up": True, "addresses": [lines["Address"]]}
    save()
"""
_SYSTEMD_RUN = """
if "--wait" in sys.argv:
    at = next(i for i, word in enumerate(sys.argv) if i and not word.startswith("--"))
    os.execvp(sys.argv[at], sys.argv[at:])
if os.path.exists(home + "no-timer"):
    sys.exit("no systemd today")
"""
_SYSTEMCTL = """
if sys.argv[1] == "is-active":
    sys.exit(0 if sys.argv[-1] in open(home + "active").read() else 3)
if sys.argv[1] == "is-enabled":
    sys.exit(0 if os.path.exists(home + "enabled") else 1)
if sys.argv[1] == "enable":
    open(home + "enabled", "w")
"""
_PROGRAMS = {
    "ip": _HEAD + _IP,
    "netplan": _HEAD + _NETPLAN,
    "networkctl": _HEAD + _NETWORKCTL,
    "systemd-run": _HEAD + _SYSTEMD_RUN,
    "systemctl": _HEAD + _SYSTEMCTL,
}


def agent(folder: Path) -> list[dict[str, str]]:
    """The programs and units of the revert, as the role installs them, but in a folder of the test."""
    sources = [
        *(PLAYBOOKS / "module_utils" / f"dspark_fabric_{name}.py" for name in ("journal", "live")),
        *sorted((PLAYBOOKS / "roles/fabric/files").iterdir()),
    ]
    return [
        {"path": str(folder / path.name), "mode": "0644", "content": path.read_text()}
        for path in sources
        if path.is_file()
    ]


class FakeNode:
    """The node as a test sees it."""

    def __init__(self, home: Path, call: Call, on_path: Callable[[str, str], None], *, backend: str) -> None:
        self.home, self._call, self.backend = home, call, backend
        self.etc, self.networkd = home / "etc", home / "networkd"
        self.target, self.journal = self.etc / "60-dspark-fabric.yaml", home / "journal" / "fabric.json"
        self.program = home / "agent" / "fabric_revert.py"
        for folder in (self.etc, self.networkd, home / "profiles"):
            folder.mkdir()
        absent = {"netplan": "networkctl", "networkd": "netplan", "networkmanager": "netplan"}[backend]
        for name, text in _PROGRAMS.items():
            if name != absent:
                on_path(name, text)
        manager = "NetworkManager.service" if backend == "networkmanager" else "systemd-networkd.service"
        (home / "active").write_text(manager)
        self.has(lo=(65536, []), mgmt=MANAGEMENT)
        self.netplan("applies")
        (home / "control-port").write_text("mgmt")

    def has(self, *, routes: list[str] | None = None, **links: tuple[int, list[str]]) -> None:
        told = {name: {"mtu": mtu, "up": True, "addresses": addresses} for name, (mtu, addresses) in links.items()}
        document = {"links": told, "routes": ROUTES if routes is None else routes}
        (self.home / "links").write_text(json.dumps(document))

    def netplan(self, mode: str) -> None:
        (self.home / "netplan").write_text(mode)

    def do(self, state: str, *, check: bool = False, control: str | None = CONTROL, **more: Any) -> dict[str, Any]:
        (self.home / "calls").write_text("")
        told = {
            "rails": RAILS,
            "mtu": 9000,
            "agent": agent(self.home / "agent"),
            "path": str(self.target),
            "networkd_folder": str(self.networkd),
            "journal": str(self.journal),
            "revert_program": str(self.program),
            "settle_timeout_s": 1,
            **more,
        }
        patch = {
            "FOLDERS": (str(self.etc),),
            "NETWORKD_FOLDERS": ("/absent/a", "/absent/b"),
            "PROFILES": str(self.home / "profiles"),
            "control_address": lambda: control,
        }
        with pytest.MonkeyPatch.context() as patched:
            for name, value in patch.items():
                patched.setattr(f"ansible.module_utils.dspark_fabric_node.{name}", value)
            return self._call(
                "dspark_fabric", check=check, patch={"control_address": lambda: control}, state=state, **told
            )

    def calls(self, *programs: str) -> list[str]:
        lines = (self.home / "calls").read_text().splitlines()
        return [line for line in lines if not programs or line.split()[0] in programs]

    def changing_calls(self) -> list[str]:
        """Calls that change the node: reading is `ip -j`, `show`, `is-...`."""
        read = ("ip -j", "ip -4 -o route show", "systemctl is-")
        return [line for line in self.calls() if not line.startswith(read)]

    def live(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "links").read_text())
        return found

    def addresses(self, netdev: str) -> list[str]:
        found: list[str] = self.live()["links"][netdev]["addresses"]
        return found

    def entry(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.journal.read_text())
        return found

    def timer_fires(self, token: str | None = None) -> dict[str, Any]:
        """What the armed timer runs."""
        return self.revert("timer", token or self.entry()["token"])

    def revert(self, *words: str) -> dict[str, Any]:
        import subprocess

        argv = [sys.executable, str(self.program), *words, "--journal", str(self.journal)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer
