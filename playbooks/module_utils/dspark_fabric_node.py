"""One node as the module dspark_fabric works on it: what is wanted, what speaks against it, what it runs."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from ansible.module_utils import dspark_fabric_journal as journals
from ansible.module_utils import dspark_fabric_live as live
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dspark_fabric_control import control_address, management_conflicts, route_netdev
from ansible.module_utils.dspark_fabric_files import (
    NETPLAN_MODE,
    NETWORKD_MODE,
    NETWORKD_PREFIX,
    netplan_text,
    networkd_name,
    networkd_text,
)
from ansible.module_utils.dspark_fabric_owners import NETWORKD_FOLDERS, networkd_claim, profile_claim, profile_commands
from ansible.module_utils.dspark_netplan_rules import (
    Link,
    Rail,
    addresses_of,
    dropped,
    effective_files,
    live_conflicts,
    not_effective,
    ownership,
)

TIMER = "dspark-fabric-revert"
APPLY_UNIT = "dspark-fabric-apply"
FOLDERS = ("/run/netplan", "/etc/netplan", "/lib/netplan", "/usr/lib/netplan")
PROFILES = "/etc/NetworkManager/system-connections"

Wanted = dict[str, tuple[bytes | None, int]]


class Node:
    """The module's call: its parameters, the files it works on and the programs it runs."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path = Path(module.params["path"])
        self.networkd = Path(module.params["networkd_folder"])
        self.journal = Path(module.params["journal"])
        self.mtu: int = module.params["mtu"]
        self.rails = [Rail(r["name"], r["netdev"], r["address"], self.mtu) for r in module.params["rails"]]
        self.backend = self._backend()
        self.adopted: dict[str, str] = {}

    def fail(self, message: str, **more: Any) -> None:
        self.module.fail_json(msg=message, **more)

    def run(self, *argv: str) -> tuple[int, str, str]:
        rc, out, err = self.module.run_command(list(argv))
        return int(rc), str(out), str(err).strip()

    def active(self, unit: str) -> bool:
        return self.run("systemctl", "is-active", "--quiet", unit)[0] == 0

    def _backend(self) -> str:
        """Who makes the configuration persistent on this node."""
        if shutil.which("netplan"):
            return "netplan"
        if self.active("systemd-networkd.service"):
            return "networkd"
        return "networkmanager" if self.active("NetworkManager.service") else "none"

    def links(self) -> dict[str, Link]:
        rc, out, err = self.run("ip", "-j", "addr", "show")
        if rc != 0:
            self.fail(f"`ip addr` failed: {err}")
        return {link["ifname"]: _link(link) for link in json.loads(out)}

    def live_state(self) -> live.Live:
        """What a revert would put back; without it nothing may be changed."""
        try:
            return live.read()
        except (OSError, ValueError) as error:
            self.fail(f"the live state cannot be read, nothing was changed: {error} [fabric.live_unreadable]")
            raise

    def documents(self) -> dict[str, Any]:
        """Every file netplan reads but ours, parsed."""
        if self.backend != "netplan":
            return {}
        try:
            import yaml
        except ImportError:
            self.fail("python3-yaml is missing on the node; it comes with netplan.io [fabric.netplan_absent]")
            return {}
        found = effective_files([str(p) for folder in FOLDERS for p in sorted(Path(folder).glob("*.yaml"))])
        documents = {}
        for name in found:
            if name != str(self.path):
                try:
                    documents[name] = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
                except (OSError, ValueError, yaml.YAMLError) as error:
                    self.fail(f"{name} cannot be parsed, so netplan would refuse it: {error} [fabric.foreign_netplan]")
        return documents

    def inspect(self) -> tuple[Wanted, dict[str, Link]]:
        """The files that are wanted and the links; fails the task on any conflict or guard, naming the file."""
        links = self.links()
        found = ownership(self.rails, self.documents(), links)
        problems = [f"{text} [fabric.foreign_netplan]" for text in found.conflicts]
        self.adopted = dict(found.adopted)
        problems += self._claims(links)
        own = [rail for rail in self.rails if rail.netdev not in self.adopted]
        if self.backend == "none":
            problems.append("neither netplan nor networkd nor NetworkManager is in charge here [fabric.no_backend]")
        if self.backend == "networkmanager" and not problems:
            problems = self._profile_problems(own, links)
        problems = problems or self._live_problems(links)
        if problems:
            self.fail(f"nothing was changed: {'; '.join(problems)}")
        return self._wanted(own), links

    def _profile_problems(self, own: list[Rail], links: dict[str, Link]) -> list[str]:
        """NetworkManager without netplan is adopted, or its operator is told what to run: we write no profiles."""
        commands = profile_commands(own)
        if not own and not_effective(self.rails, links):
            commands = [f"nmcli device connect {rail.netdev}" for rail in self.rails]
        if not commands:
            return []
        who = "NetworkManager without netplan has this node, and dspark-ops does not write its profiles; run there:"
        return ["\n  ".join([who, *commands, "[fabric.networkmanager]"])]

    def _claims(self, links: dict[str, Link]) -> list[str]:
        """Conflicts with networkd's files and NetworkManager's profiles; what gives exactly the wanted is adopted."""
        networkd = _texts([*NETWORKD_FOLDERS[:2], str(self.networkd)], "*.network")
        if not self.active("systemd-networkd.service"):
            networkd = {}
        profiles = _texts([PROFILES], "*")
        problems = []
        for rail in self.rails:
            mac = links[rail.netdev].mac if rail.netdev in links else None
            ours = f"10-netplan-{rail.netdev}.network" if self.backend == "netplan" else networkd_name(rail)
            claims = [networkd_claim(networkd, rail, mac, ours=ours), profile_claim(profiles, rail, mac)]
            for claim in filter(None, claims):
                check = "fabric.foreign_profile" if claim.source.startswith("the Net") else "fabric.foreign_networkd"
                if claim.reasons:
                    problems.append(f"{claim.sentence()} [{check}]")
                elif rail.netdev in self.adopted:
                    both = f"{self.adopted[rail.netdev]} and {claim.source} both configure {rail.netdev}"
                    problems.append(f"{both}: a rail has one owner [{check}]")
                else:
                    self.adopted[rail.netdev] = claim.source
        return problems

    def _live_problems(self, links: dict[str, Link]) -> list[str]:
        netdevs = {rail.netdev for rail in self.rails}
        consent: bool = self.module.params["allow_management"]
        control = control_address()
        management = route_netdev(control) if control else None
        others = {
            name: [a for a in link.addresses if ":" not in a]
            for name, link in links.items()
            if name not in netdevs and not (consent and name == management)
        }
        ours = journals.given_by_us(self.journal) | self._addresses_in_our_files()
        if consent and management in links:
            ours |= set(links[management].addresses)
        problems = [] if consent else management_conflicts(self.rails, links, control, management)
        return problems or live_conflicts(self.rails, links, ours, others)

    def _addresses_in_our_files(self) -> set[str]:
        if self.backend != "netplan" or not self.path.exists():
            return set()
        import yaml

        try:
            return addresses_of(yaml.safe_load(self.path.read_text(encoding="utf-8", errors="replace")))
        except yaml.YAMLError:
            return set()

    def _wanted(self, own: list[Rail]) -> Wanted:
        """Path to content and mode of every file of ours, those that have to go among them."""
        wanted: Wanted = {str(path): (None, NETWORKD_MODE) for path in self.networkd.glob(f"{NETWORKD_PREFIX}*")}
        text = netplan_text(own) if self.backend == "netplan" else ""
        wanted[str(self.path)] = (text.encode() if text else None, NETPLAN_MODE)
        if self.backend == "networkd":
            for rail in own:
                wanted[str(self.networkd / networkd_name(rail))] = (networkd_text(rail).encode(), NETWORKD_MODE)
        return wanted

    def refuse_edited_files(self, wanted: Wanted) -> None:
        """A file at our path that we did not write is somebody's work, unless netplan can read nothing in it."""
        for name, (content, _) in wanted.items():
            now = journals.snapshot(Path(name))
            if now is None or (content is not None and now["sha256"] == journals.digest(content)):
                continue
            if now["sha256"] in journals.known_digests(self.journal, name) or _says_nothing(name, now["content"]):
                continue
            self.fail(
                f"{name} was edited since dspark-ops wrote it; nothing was changed. Move the edit to a file of its "
                f"own or remove the file, and run again [fabric.edited]"
            )

    def refuse_running_rank(self) -> None:
        """Applying the configuration cuts the connections of a rank."""
        if self.module.params["allow_disruption"] or not shutil.which("docker"):
            return
        # Without its Engine no rank runs.
        rc, out, _ = self.run("docker", "ps", "--quiet", "--filter", "label=io.dspark-ops.site")
        if rc == 0 and out.strip():
            self.fail(
                "a rank runs on this node and applying the network configuration would cut its connections; nothing "
                "was changed. Stop the pair first (dspark-ops stop) [fabric.engine_running]"
            )

    def validate(self, wanted: Wanted) -> None:
        """Let netplan read all files with ours among them, in a directory apart."""
        if self.backend != "netplan":
            return
        content = wanted[str(self.path)][0]
        with tempfile.TemporaryDirectory(prefix="dspark-netplan-") as root:
            for folder in FOLDERS:
                source, copy = Path(folder), Path(root + folder)
                copy.mkdir(parents=True, exist_ok=True)
                for name in source.glob("*.yaml"):
                    shutil.copy2(name, copy / name.name)
            candidate = Path(root + str(self.path))
            candidate.unlink(missing_ok=True)
            if content is not None:
                journals.write_durably(candidate, content)
            rc, out, err = self.run("netplan", "generate", "--root-dir", root)
        if rc != 0:
            self.fail(f"netplan refuses the new file, nothing was changed: {err or out} [fabric.netplan_invalid]")

    def agent_changes(self) -> list[dict[str, Any]]:
        """Programs and units of the revert that are not as they should be."""
        found = []
        for item in self.module.params["agent"]:
            now = journals.snapshot(Path(item["path"]))
            wanted = (journals.digest(item["content"].encode()), oct(int(item["mode"], 8)))
            units = item["path"].endswith(".service")
            if now is None or (now["sha256"], now["mode"]) != wanted or (units and not self._enabled(item["path"])):
                found.append(item)
        return found

    def _enabled(self, path: str) -> bool:
        return self.run("systemctl", "is-enabled", "--quiet", Path(path).name)[0] == 0

    def install_agent(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            journals.write_durably(Path(item["path"]), item["content"].encode(), int(item["mode"], 8))
        units = [Path(item["path"]).name for item in items if item["path"].endswith(".service")]
        if units:
            self.run("systemctl", "daemon-reload")
            rc, _, err = self.run("systemctl", "enable", "--quiet", *units)
            if rc != 0:
                self.fail(f"the revert at boot could not be enabled, nothing was changed: {err} [fabric.revert_unit]")

    def arm(self) -> str:
        """Have the node revert by itself unless confirmed in time; the name of the timer that may do it."""
        token = uuid.uuid4().hex[:8]
        rc, _, err = self.run(
            "systemd-run",
            "--quiet",
            f"--unit={TIMER}-{token}",
            f"--on-active={self.module.params['revert_after_s']}",
            "--timer-property=AccuracySec=100ms",
            # A revert that is killed, as by the OOM killer, begins again.
            "--property=Restart=on-abnormal",
            "/usr/bin/python3",
            self.module.params["revert_program"],
            "timer",
            token,
            "--journal",
            str(self.journal),
        )
        if rc != 0:
            self.fail(f"the revert could not be armed, nothing was changed: {err} [fabric.revert_timer]")
        return token

    def disarm(self) -> None:
        """Stop every timer of ours; they would find nothing to do."""
        self.run("systemctl", "stop", f"{TIMER}-*.timer")

    def apply(self, backend: str, netdevs: list[str]) -> str | None:
        """Have the backend take the files, in a unit of its own: it outlives a session, a revert can end it."""
        self.run("systemctl", "stop", f"{APPLY_UNIT}.service")
        for argv in live.apply_commands(backend, netdevs):
            rc, out, err = self.run(
                "systemd-run", "--quiet", "--wait", "--collect", "--pipe", f"--unit={APPLY_UNIT}", *argv
            )
            if rc != 0:
                return f"`{' '.join(argv)}` failed: {err or out}"
        return None

    def still_open(self, token: str) -> bool:
        entry = journals.load(self.journal)
        return entry is not None and entry["state"] == "open" and entry["token"] == token

    def gone_ports(self) -> dict[str, list[str]]:
        """Ports that only our files as they are now configure, with their addresses: no rails any more."""
        found: dict[str, list[str]] = {}
        if self.path.exists():
            import yaml

            with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
                found.update(dropped(yaml.safe_load(self.path.read_text(encoding="utf-8")), self.rails))
        kept = {rail.netdev for rail in self.rails}
        for path in self.networkd.glob(f"{NETWORKD_PREFIX}*.network"):
            netdev = path.name.removeprefix(NETWORKD_PREFIX).removesuffix(".network")
            if netdev not in kept:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                found[netdev] = [line.removeprefix("Address=") for line in lines if line.startswith("Address=")]
        return found

    def take_back(self, gone: dict[str, list[str]]) -> None:
        """Remove our addresses from ports that are no rails any more: networkd leaves them there."""
        links = self.links()
        for netdev, addresses in gone.items():
            for address in set(addresses) & set(links[netdev].addresses if netdev in links else ()):
                rc, _, err = self.run("ip", "addr", "del", address, "dev", netdev)
                if rc != 0:
                    self.fail(f"{address} could not be removed from {netdev}: {err} [fabric.not_effective]")

    def fail_if_reverted(self, token: str) -> None:
        if not self.still_open(token):
            self.fail("the node has reverted by itself before the change was confirmed [fabric.reverted_meanwhile]")

    def as_wanted(self) -> bool:
        wanted, links = self.inspect()
        return not changed_files(wanted) and not not_effective(self.rails, links)

    def ping(self) -> list[str]:
        """Rails over which an unfragmented ping of the full MTU does not pass, all tried at once, several times."""
        size = str(self.mtu - 28)
        waiting = {r["name"]: (r["netdev"], r["peer"]) for r in self.module.params["rails"]}
        until = time.monotonic() + min(10.0, self.module.params["settle_timeout_s"])
        while True:
            running = {
                name: subprocess.Popen(
                    ["ping", "-M", "do", "-c", "2", "-i", "0.2", "-W", "1", "-s", size, "-I", netdev, peer],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                for name, (netdev, peer) in waiting.items()
            }
            waiting = {name: waiting[name] for name, process in running.items() if process.wait() != 0}
            if not waiting or time.monotonic() > until:
                return list(waiting)
            time.sleep(0.5)


def changed_files(wanted: Wanted) -> list[str]:
    """Files that are not as wanted, in content or mode."""
    found = []
    for path, (content, mode) in wanted.items():
        now = journals.snapshot(Path(path))
        is_now = None if now is None else (now["sha256"], now["mode"])
        if is_now != (None if content is None else (journals.digest(content), oct(mode))):
            found.append(path)
    return found


def _says_nothing(name: str, content: str) -> bool:
    """Whether netplan can read nothing in the file: half written, or empty."""
    if not name.endswith(".yaml"):
        return not content.strip()
    import yaml

    try:
        return yaml.safe_load(content.encode("utf-8", "surrogateescape").decode("utf-8", "replace")) is None
    except yaml.YAMLError:
        return True


def _texts(folders: list[str], pattern: str) -> dict[str, str]:
    found = {}
    for folder in folders:
        for path in sorted(Path(folder).glob(pattern)):
            if path.is_file():
                found[str(path)] = path.read_text(encoding="utf-8", errors="replace")
    return found


def _link(raw: dict[str, Any]) -> Link:
    name = raw["ifname"]
    try:
        carrier: bool | None = Path("/sys/class/net", name, "carrier").read_text(encoding="ascii").strip() == "1"
    except OSError:
        carrier = None
    return Link(
        netdev=name,
        mac=raw.get("address"),
        mtu=int(raw["mtu"]),
        carrier=carrier,
        master=raw.get("master"),
        addresses=tuple(f"{a['local']}/{a['prefixlen']}" for a in raw.get("addr_info", [])),
    )
