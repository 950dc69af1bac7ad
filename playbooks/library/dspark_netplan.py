#!/usr/bin/python
"""Ansible module: the rails' netplan file, as one transaction with a journal and a revert that runs by itself."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils import dspark_fabric_journal as journals
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dspark_netplan_rules import (
    Link,
    Ownership,
    Rail,
    addresses_of,
    dropped,
    effective_files,
    live_conflicts,
    not_effective,
    ownership,
)

DOCUMENTATION = r"""
module: dspark_netplan
short_description: Puts static addresses and the MTU on the rails, persistently, or takes it back
description:
  - V(inspected) says which rails are ours and which another file already gives as wanted, and fails on a conflict.
  - V(present) journals, arms a revert that runs by itself, writes the file, applies it and waits until it is effective.
  - V(confirmed) calls the revert off and settles the journal.
  - V(reverted) puts back the file and the links of an open journal entry.
options:
  state:
    description: What to do.
    type: str
    choices: [inspected, present, confirmed, reverted]
    required: true
  rails:
    description: Rails of this node, each with name, netdev and address.
    type: list
    elements: dict
    default: []
  mtu:
    description: MTU of every rail.
    type: int
    default: 9000
  content:
    description: The text of our netplan file; empty when no rail is ours, then the file is removed.
    type: str
    default: ''
  path:
    description: Our netplan file.
    type: path
    default: /etc/netplan/60-dspark-fabric.yaml
  journal:
    description: The journal entry of the rails.
    type: path
    default: /var/lib/dspark/journal/fabric.json
  revert_program:
    description: The program that reverts, installed by the role.
    type: path
    default: /usr/local/lib/dspark-ops/fabric_revert.py
  revert_after_s:
    description: After this time without V(confirmed) the node reverts by itself.
    type: int
    default: 180
  settle_timeout_s:
    description: How long to wait until addresses and MTU are effective.
    type: int
    default: 45
author: dspark-ops
"""

EXAMPLES = r"""
- name: Read who owns the rails
  dspark_netplan:
    state: inspected
    rails: "{{ fabric_rails }}"
"""

RETURN = r"""
own_rails:
  description: Rails that our file must hold.
  type: list
  elements: dict
  returned: with inspected
adopted:
  description: Netdev to the foreign file that already gives exactly what is wanted.
  type: dict
  returned: with inspected
"""

TIMER = "dspark-fabric-revert"
FOLDERS = ("/run/netplan", "/etc/netplan", "/lib/netplan", "/usr/lib/netplan")


class Node:
    """The module's call: its parameters, the files it works on and the programs it runs."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path = Path(module.params["path"])
        self.journal = Path(module.params["journal"])
        self.mtu: int = module.params["mtu"]
        self.rails = [Rail(r["name"], r["netdev"], r["address"], self.mtu) for r in module.params["rails"]]

    def fail(self, message: str, **more: Any) -> None:
        self.module.fail_json(msg=message, **more)

    def run(self, *argv: str) -> tuple[int, str, str]:
        rc, out, err = self.module.run_command(list(argv))
        return int(rc), str(out), str(err).strip()

    def links(self) -> dict[str, Link]:
        rc, out, err = self.run("ip", "-j", "addr", "show")
        if rc != 0:
            self.fail(f"`ip addr` failed: {err}")
        return {link["ifname"]: _link(link) for link in json.loads(out)}

    def documents(self) -> dict[str, Any]:
        """Every file netplan reads but ours, parsed."""
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

    def our_addresses(self) -> set[str]:
        """Addresses that our file gives, or gave according to the journal."""
        import yaml

        entry = journals.load(self.journal)
        texts = [self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""]
        given: set[str] = set()
        if entry is not None:
            texts.append(entry["before"]["content"] or "")
            given.update(entry["given"])
        for text in texts:
            try:
                given |= addresses_of(yaml.safe_load(text))
            except yaml.YAMLError:
                continue
        return given

    def inspect(self) -> tuple[Ownership, dict[str, Link]]:
        """Who owns the rails; fails the task on any conflict, naming the file."""
        links = self.links()
        found = ownership(self.rails, self.documents(), links)
        netdevs = {rail.netdev for rail in self.rails}
        others = {n: [a for a in link.addresses if ":" not in a] for n, link in links.items() if n not in netdevs}
        problems = [f"{text}; nothing was changed [fabric.foreign_netplan]" for text in found.conflicts]
        if not problems:
            problems = live_conflicts(self.rails, links, self.our_addresses(), others)
        if problems:
            self.fail("; ".join(problems))
        return found, links

    def refuse_an_edited_file(self, content: bytes | None) -> None:
        """A file at our path that we did not write is somebody's work, unless netplan can read nothing in it."""
        import yaml

        if not self.path.exists():
            return
        data = self.path.read_bytes()
        known = journals.known_digests(journals.load(self.journal))
        if data == content or journals.digest(data) in known:
            return
        try:
            if yaml.safe_load(data.decode("utf-8", "replace")) is None:
                return
        except yaml.YAMLError:
            return
        self.fail(
            f"{self.path} was edited since dspark-ops wrote it; nothing was changed. Move the edit to a file of its "
            f"own or remove the file, and run again [fabric.edited]"
        )

    def validate(self, content: bytes | None) -> None:
        """Let netplan read all files with ours among them, in a directory apart."""
        with tempfile.TemporaryDirectory(prefix="dspark-netplan-") as root:
            for folder in FOLDERS:
                source, copy = Path(folder), Path(root + folder)
                copy.mkdir(parents=True, exist_ok=True)
                for name in source.glob("*.yaml"):
                    shutil.copy2(name, copy / name.name)
            candidate = Path(root + str(self.path))
            candidate.unlink(missing_ok=True)
            if content is not None:
                candidate.parent.mkdir(parents=True, exist_ok=True)
                journals.write_atomically(candidate, content)
            rc, out, err = self.run("netplan", "generate", "--root-dir", root)
        if rc != 0:
            self.fail(f"netplan refuses the new file, nothing was changed: {err or out} [fabric.netplan_invalid]")

    def arm(self) -> None:
        """Have the node revert by itself, unless confirmed in time."""
        seconds = str(self.module.params["revert_after_s"])
        rc, _, err = self.run(
            "systemd-run",
            "--quiet",
            f"--unit={TIMER}",
            f"--on-active={seconds}",
            "--timer-property=AccuracySec=1s",
            "/usr/bin/python3",
            self.module.params["revert_program"],
            str(self.journal),
        )
        if rc != 0:
            self.fail(f"the revert could not be armed, nothing was changed: {err} [fabric.revert_timer]")

    def disarm(self) -> None:
        """Call the revert off; one that is under way is waited for."""
        self.run("systemctl", "stop", f"{TIMER}.timer")
        for _ in range(240):
            if self.run("systemctl", "is-active", f"{TIMER}.service")[1].strip() not in ("active", "activating"):
                break
            time.sleep(0.5)
        self.run("systemctl", "reset-failed", f"{TIMER}.service", f"{TIMER}.timer")

    def dropped(self) -> dict[str, list[str]]:
        """Ports that only our file as it is now configures, with their addresses."""
        import yaml

        try:
            return dropped(yaml.safe_load(self.path.read_text(encoding="utf-8")), self.rails)
        except (OSError, ValueError, yaml.YAMLError):
            return {}

    def take_back(self, gone: dict[str, list[str]]) -> None:
        """Remove our addresses from ports that are no rails any more: networkd leaves them there."""
        links = self.links()
        for netdev, addresses in gone.items():
            for address in set(addresses) & set(links[netdev].addresses if netdev in links else ()):
                rc, _, err = self.run("ip", "addr", "del", address, "dev", netdev)
                if rc != 0:
                    self.fail(f"{address} could not be removed from {netdev}: {err} [fabric.not_effective]")

    def wait_effective(self) -> list[str]:
        until = time.monotonic() + self.module.params["settle_timeout_s"]
        while True:
            missing = not_effective(self.rails, self.links())
            if not missing or time.monotonic() > until:
                return missing
            time.sleep(0.3)


def inspected(node: Node) -> None:
    found, links = node.inspect()
    own = [{"name": r.name, "netdev": r.netdev, "address": r.address} for r in node.rails if r.netdev in found.own]
    node.module.exit_json(
        changed=False, own_rails=own, adopted=found.adopted, not_effective=not_effective(node.rails, links)
    )


def present(node: Node) -> None:
    module = node.module
    text: str = module.params["content"]
    content = text.encode() if text else None
    _, links = node.inspect()
    node.refuse_an_edited_file(content)
    if not module.check_mode:
        node.disarm()
    before = node.path.read_bytes() if node.path.exists() else None
    same = before == content and (before is None or node.path.stat().st_mode & 0o7777 == 0o600)
    missing = not_effective(node.rails, links)
    diff = {
        "before_header": str(node.path),
        "after_header": str(node.path),
        "before": "" if before is None else before.decode("utf-8", "replace"),
        "after": text,
    }
    what = f"rails: {node.path}" if not same else f"rails: apply {node.path} ({'; '.join(missing)})"
    summary = {
        "what": what,
        "before": None if before is None else f"sha256:{journals.digest(before)[:12]}",
        "after": None if content is None else f"sha256:{journals.digest(content)[:12]}",
    }
    if same and not missing:
        entry = journals.load(node.journal)
        if entry is not None and entry["state"] == "open" and not module.check_mode:
            # An earlier run wrote it and died before it was confirmed: until this one confirms, it may still revert.
            node.arm()
        module.exit_json(changed=False)
    if module.check_mode:
        module.exit_json(changed=True, diff=diff, dspark_summary=summary)
    node.validate(content)
    gone = node.dropped()
    _write(node, content, links, gone)
    rc, out, err = node.run("netplan", "apply")
    if rc != 0:
        node.fail(f"`netplan apply` failed: {err or out} [fabric.netplan_apply]", diff=diff)
    node.take_back(gone)
    missing = node.wait_effective()
    if missing:
        seconds = module.params["settle_timeout_s"]
        node.fail(f"not effective {seconds} s after `netplan apply`: {'; '.join(missing)} [fabric.not_effective]")
    module.exit_json(changed=True, diff=diff, dspark_summary=summary)


def _write(node: Node, content: bytes | None, links: dict[str, Link], gone: dict[str, list[str]]) -> None:
    netdevs = [*(rail.netdev for rail in node.rails), *gone]
    was = {n: {"mtu": links[n].mtu, "addresses": list(links[n].addresses)} for n in netdevs if n in links}
    node.journal.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    given = [rail.address for rail in node.rails]
    journals.begin(node.journal, node.path, content=content, links=was, given=given)
    node.arm()
    node.path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        node.path.unlink(missing_ok=True)
    else:
        journals.write_atomically(node.path, content)


def confirmed(node: Node) -> None:
    if node.module.check_mode:
        node.module.exit_json(changed=False)
    node.disarm()
    node.module.exit_json(changed=False, settled=journals.settle(node.journal))


def reverted(node: Node) -> None:
    entry = journals.load(node.journal)
    if entry is None or entry["state"] != "open":
        node.module.exit_json(changed=False, msg="nothing to revert")
    if node.module.check_mode:
        node.module.exit_json(changed=True)
    node.disarm()
    rc, out, err = node.run("/usr/bin/python3", node.module.params["revert_program"], str(node.journal))
    try:
        answer = json.loads(out)
    except ValueError:
        node.fail(f"the revert program ended with {rc}: {err or out} [fabric.revert]")
        return
    if answer["errors"]:
        node.fail(f"the revert is not complete: {'; '.join(answer['errors'])} [fabric.revert]")
    node.module.exit_json(
        changed=answer["changed"],
        msg=answer["message"],
        dspark_summary={"what": f"rails reverted: {answer['message']}"},
    )


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


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["inspected", "present", "confirmed", "reverted"],
                "required": True,
            },
            "rails": {"type": "list", "elements": "dict", "default": []},
            "mtu": {"type": "int", "default": 9000},
            "content": {"type": "str", "default": ""},
            "path": {"type": "path", "default": "/etc/netplan/60-dspark-fabric.yaml"},
            "journal": {"type": "path", "default": "/var/lib/dspark/journal/fabric.json"},
            "revert_program": {"type": "path", "default": "/usr/local/lib/dspark-ops/fabric_revert.py"},
            "revert_after_s": {"type": "int", "default": 180},
            "settle_timeout_s": {"type": "int", "default": 45},
        },
        supports_check_mode=True,
    )
    node = Node(module)
    {"inspected": inspected, "present": present, "confirmed": confirmed, "reverted": reverted}[module.params["state"]](
        node
    )


if __name__ == "__main__":
    main()
