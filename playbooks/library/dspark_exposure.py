#!/usr/bin/python
"""Ansible module: the packet filter that closes a node to strangers, with a revert that runs by itself."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils import dspark_exposure_node as node
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: dspark_exposure
short_description: Puts the table inet dspark_exposure in force, persistently, or takes it away
description:
  - V(inspected) fails where the rules would lock this very session out, or our file was edited; changes nothing.
  - V(present) journals, arms a revert that runs by itself, writes the file and loads it in one step.
  - V(confirmed) calls the revert off; it fails when the node has reverted meanwhile.
  - V(reverted) puts back what an unconfirmed change did. V(absent) takes table, file and unit away.
options:
  state:
    description: What to do.
    type: str
    choices: [inspected, present, confirmed, reverted, absent]
    required: true
  rules:
    description: The rules as nft reads them.
    type: str
    default: ""
  ports:
    description: The open ports that the rules were made of, to tell whether this session is among them.
    type: list
    elements: dict
    default: []
  rails:
    description: The rails that the rules were made of.
    type: list
    elements: dict
    default: []
  allow_lockout:
    description: Consent to rules that do not let this session's address in.
    type: bool
    default: false
  path:
    description: Our file of rules.
    type: path
    default: /etc/dspark/exposure.nft
  journal:
    description: The journal of the last change.
    type: path
    default: /var/lib/dspark/journal/exposure.json
  revert_after_s:
    description: After this time without V(confirmed) the node reverts by itself.
    type: int
    default: 45
author: dspark-ops
"""

EXAMPLES = r"""
- name: Call the revert off
  dspark_exposure:
    state: confirmed
"""

RETURN = r"""
session:
  description: Address of the control host and port of this node, as this session has them; absent where not known.
  type: dict
  returned: with inspected
"""


def session() -> tuple[str, int] | None:
    """The control host as this node sees it, and the port that it came to: from the SSH session above us."""
    pid = os.getpid()
    for _ in range(32):
        found = session_in(pid)
        if found is not None:
            return found
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            pid = int(stat.rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None
        if pid <= 1:
            return None
    return None


def session_in(pid: int) -> tuple[str, int] | None:
    """SSH_CONNECTION of one process: client address, client port, own address, own port."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    for variable in environment:
        if variable.startswith(b"SSH_CONNECTION="):
            words = variable.removeprefix(b"SSH_CONNECTION=").decode("ascii", "replace").split()
            try:
                return str(ipaddress.ip_address(words[0].partition("%")[0])), int(words[3])
            except (ValueError, IndexError):
                return None
    return None


def locked_out(seen: tuple[str, int] | None, ports: list[dict[str, Any]], rails: list[dict[str, Any]]) -> str | None:
    """Why the rules would not let this session in again; None when they would, or when it is not known. Pure."""
    if seen is None:
        return None
    address, port = ipaddress.ip_address(seen[0]), seen[1]
    if address.is_loopback or seen[0] in {rail["peer"] for rail in rails}:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    sources = [item["sources"] for item in ports if item["protocol"] == "tcp" and int(item["port"]) == port]
    if not sources:
        return f"this session came to port {port}, which the rules close [exposure.ssh_port]"
    for listed in sources:
        if not listed or any(address in ipaddress.ip_network(text) for text in listed):
            return None
    allowed = ", ".join(text for listed in sources for text in listed)
    return (
        f"this session comes from {address}, which is in none of exposure.management_sources ({allowed}) "
        f"[exposure.management_source]"
    )


def edited(rules_path: Path, journal: Path, wanted: str) -> bool:
    """Whether our file is neither what we wrote last nor what is wanted."""
    now, entry = node.read(rules_path), node.entry_of(journal)
    if now is None or now == wanted:
        return False
    if entry is None:
        return True
    ours = (entry["before"]["file"],) if entry["state"].startswith("revert") else (entry["wrote"],)
    return now not in ours


class Change:
    """What one run of the module looks at."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.rules: str = module.params["rules"]
        self.path = Path(module.params["path"])
        self.journal = Path(module.params["journal"])

    def fail(self, text: str) -> None:
        self.module.fail_json(msg=text)

    def inspect(self) -> None:
        problem = locked_out(session(), self.module.params["ports"], self.module.params["rails"])
        if problem and not self.module.params["allow_lockout"]:
            self.fail(f"{problem}; nothing was changed")
        if edited(self.path, self.journal, self.rules):
            self.fail(
                f"{self.path} was edited since we wrote it; nothing was changed. Say what you added in the site's "
                f"exposure.allow, then remove the file [exposure.edited]"
            )

    def missing(self) -> list[str]:
        """What is not yet as wanted, in words. Without nft nothing can be."""
        found = []
        if node.read(self.path) != self.rules:
            found.append(str(self.path))
        try:
            if node.live() != node.normal(self.rules):
                found.append(f"table {node.FAMILY} {node.TABLE}")
        except node.NftError as error:
            if "No such file or directory" not in str(error) or not self.module.check_mode:
                self.fail(f"{error} [exposure.rules_invalid]")
            found.append(f"table {node.FAMILY} {node.TABLE}")
        if not (node.enabled() and node.active()):
            found.append(f"{node.UNIT} at boot")
        return found

    def told(self, missing: list[str], after: str) -> dict[str, Any]:
        diff = {
            "before_header": str(self.path),
            "after_header": str(self.path),
            "before": node.read(self.path) or "",
            "after": after,
        }
        return {"diff": diff, "dspark_summary": {"what": f"packet filter: {', '.join(missing)}"}}


def inspected(change: Change) -> None:
    change.inspect()
    seen = session()
    told = {} if seen is None else {"session": {"address": seen[0], "port": seen[1]}}
    change.module.exit_json(changed=False, **told)


def present(change: Change) -> None:
    module = change.module
    change.inspect()
    missing = change.missing()
    entry = node.entry_of(change.journal)
    unsettled = entry is not None and entry["state"] == "open"
    if not missing and not unsettled:
        module.exit_json(changed=False)
    told = change.told(missing or ["a change that was not confirmed"], change.rules)
    if module.check_mode:
        module.exit_json(changed=True, **told)
    node.begin(
        change.rules,
        revert_after_s=module.params["revert_after_s"],
        rules_path=change.path,
        journal=change.journal,
    )
    left = change.missing()
    if left:
        change.fail(f"not in force after they were loaded: {', '.join(left)} [exposure.not_effective]")
    module.exit_json(changed=True, **told)


def confirmed(change: Change) -> None:
    if change.module.check_mode:
        change.module.exit_json(changed=False)
    with node.locked(change.journal):
        entry = node.entry_of(change.journal)
        if entry is not None and entry["state"] == "open":
            entry["state"] = "confirmed"
            node.write(change.journal, json.dumps(entry))
    node.disarm()
    if entry is not None and entry["state"].startswith("revert") and node.read(change.path) != change.rules:
        change.fail(
            f"too late: this node has put itself back ({entry['reverted']['why']}), the change does not hold "
            f"[exposure.reverted_meanwhile]"
        )
    change.module.exit_json(changed=False)


def reverted(change: Change) -> None:
    entry = node.entry_of(change.journal)
    if entry is None or entry["state"] != "open":
        change.module.exit_json(changed=False, msg="nothing to revert")
    if change.module.check_mode:
        change.module.exit_json(changed=True)
    answer = node.revert("operator", None, rules_path=change.path, journal=change.journal)
    node.disarm()
    if answer["errors"]:
        change.fail(f"the revert is not complete: {'; '.join(answer['errors'])} [exposure.revert]")
    change.module.exit_json(
        changed=answer["changed"], dspark_summary={"what": f"packet filter reverted: {answer['message']}"}
    )


def absent(change: Change) -> None:
    present_now = []
    try:
        if node.live() is not None:
            present_now.append(f"table {node.FAMILY} {node.TABLE}")
    except node.NftError as error:
        # Without nft there is no table of ours; anything else is no answer.
        if not re.search(r"^nft: .*No such file", str(error)):
            change.fail(f"{error} [exposure.unreadable]")
    if node.read(change.path) is not None:
        present_now.append(str(change.path))
    if node.enabled() or node.active():
        present_now.append(f"{node.UNIT} at boot")
    if node.entry_of(change.journal) is not None:
        present_now.append(str(change.journal))
    if not present_now:
        change.module.exit_json(changed=False)
    told = change.told(present_now, "")
    told["dspark_summary"]["what"] = f"packet filter removed: {', '.join(present_now)}"
    if change.module.check_mode:
        change.module.exit_json(changed=True, **told)
    node.disarm()
    with node.locked(change.journal):
        node.enable(False)
        node.write(change.path, None)
        if f"table {node.FAMILY} {node.TABLE}" in present_now:
            node.put(None)
        node.write(change.journal, None)
    change.module.exit_json(changed=True, **told)


STATES = {
    "inspected": inspected,
    "present": present,
    "confirmed": confirmed,
    "reverted": reverted,
    "absent": absent,
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(STATES), "required": True},
            "rules": {"type": "str", "default": ""},
            "ports": {"type": "list", "elements": "dict", "default": []},
            "rails": {"type": "list", "elements": "dict", "default": []},
            "allow_lockout": {"type": "bool", "default": False},
            "path": {"type": "path", "default": str(node.RULES)},
            "journal": {"type": "path", "default": str(node.JOURNAL)},
            "revert_after_s": {"type": "int", "default": 45},
        },
        supports_check_mode=True,
    )
    change = Change(module)
    try:
        STATES[module.params["state"]](change)
    except node.NftError as error:
        module.fail_json(msg=f"{error} [exposure.nft]")


if __name__ == "__main__":
    main()
