#!/usr/bin/python
"""Ansible module: the rails' configuration, as one transaction with a journal and a revert that runs by itself."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils import dspark_fabric_journal as journals
from ansible.module_utils import dspark_fabric_live as live
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dspark_fabric_control import control_address, route_netdev
from ansible.module_utils.dspark_fabric_node import Node, Wanted, changed_files
from ansible.module_utils.dspark_netplan_rules import not_effective

DOCUMENTATION = r"""
module: dspark_fabric
short_description: Puts static addresses and the MTU on the rails, persistently, or takes it back
description:
  - V(inspected) fails on a conflict or a guard, and says which rails are ours and which another file gives as wanted.
  - V(present) journals, arms a revert that runs by itself, writes the files, applies them and waits for the effect.
  - V(proven) sends unfragmented pings of the full MTU over every rail.
  - V(confirmed) calls the revert off and settles the journal; it fails when the node has reverted meanwhile.
  - V(reverted) puts back what an open journal entry changed.
  - V(restorable) says whether V(restored) would refuse; V(restored) takes back the last confirmed change.
options:
  state:
    description: What to do.
    type: str
    choices: [inspected, present, proven, confirmed, reverted, restorable, restored]
    required: true
  rails:
    description: Rails of this node, each with name, netdev, address and peer.
    type: list
    elements: dict
    default: []
  mtu:
    description: MTU of every rail.
    type: int
    default: 9000
  agent:
    description: Programs and units of the revert, each with path, mode and content; installed before the first change.
    type: list
    elements: dict
    default: []
  allow_management:
    description: Consent to a rail that carries the control host's own session.
    type: bool
    default: false
  allow_disruption:
    description: Consent to a change while a rank of ours runs.
    type: bool
    default: false
  jumbo:
    description: Whether the confirmation is about rails that carry pings; false after V(restored).
    type: bool
    default: true
  path:
    description: Our netplan file.
    type: path
    default: /etc/netplan/60-dspark-fabric.yaml
  networkd_folder:
    description: Where our networkd files are, on a node without netplan.
    type: path
    default: /etc/systemd/network
  journal:
    description: The journal's current entry.
    type: path
    default: /var/lib/dspark/journal/fabric.json
  revert_program:
    description: The program that reverts, one of O(agent).
    type: path
    default: /usr/local/lib/dspark-ops/fabric_revert.py
  revert_after_s:
    description: After this time without V(confirmed) the node reverts by itself.
    type: int
    default: 45
  settle_timeout_s:
    description: How long to wait until the change is effective, or the pings pass.
    type: int
    default: 20
author: dspark-ops
"""

EXAMPLES = r"""
- name: Read who owns the rails
  dspark_fabric:
    state: inspected
    rails: "{{ fabric_rails }}"
"""

RETURN = r"""
adopted:
  description: Netdev to the foreign file that already gives exactly what is wanted.
  type: dict
  returned: with inspected and present
"""

_MIN_LEFT_S = 3.0


def inspected(node: Node) -> None:
    wanted, links = node.inspect()
    node.refuse_edited_files(wanted)
    missing = not_effective(node.rails, links)
    if changed_files(wanted) or missing:
        node.refuse_running_rank()
    node.module.exit_json(changed=False, adopted=node.adopted, not_effective=missing)


def present(node: Node) -> None:
    module = node.module
    wanted, links = node.inspect()
    node.refuse_edited_files(wanted)
    differing, missing, agent = changed_files(wanted), not_effective(node.rails, links), node.agent_changes()
    if not differing and not missing:
        _nothing_to_do(node, agent)
    node.refuse_running_rank()
    told = _told(wanted, differing, missing, agent)
    if module.check_mode:
        module.exit_json(changed=True, adopted=node.adopted, **told)
    node.validate(wanted)
    node.install_agent(agent)
    _finish_a_restore(node)
    gone = node.gone_ports()
    netdevs = [*(rail.netdev for rail in node.rails if rail.netdev not in node.adopted), *gone]
    # An adopted rail that is not effective is applied too, so it may be put back too.
    netdevs = netdevs if not missing else sorted({*netdevs, *(rail.netdev for rail in node.rails)})
    given = {rail.netdev: [rail.address] for rail in node.rails if rail.netdev in netdevs}
    token = _begin(node, wanted, kind="apply", backend=node.backend, netdevs=netdevs, given=given)
    error = node.apply(node.backend, netdevs)
    node.fail_if_reverted(token)
    if error:
        node.fail(f"{error} [fabric.netplan_apply]", diff=told["diff"])
    node.take_back(gone)
    missing = _wait(node, token, lambda: not_effective(node.rails, node.links()))
    node.fail_if_reverted(token)
    if missing:
        node.fail(f"not effective after the new files were applied: {'; '.join(missing)} [fabric.not_effective]")
    module.exit_json(changed=True, adopted=node.adopted, **told)


def _nothing_to_do(node: Node, agent: list[dict[str, Any]]) -> None:
    if node.module.check_mode:
        node.module.exit_json(changed=bool(agent), adopted=node.adopted, **(_told({}, [], [], agent) if agent else {}))
    node.install_agent(agent)
    entry = journals.load(node.journal)
    if entry is not None and entry["state"] == "open":
        # An earlier run wrote it and died before it was confirmed: until this one confirms, it may still revert.
        token = node.arm()
        with journals.locked(node.journal):
            entry = journals.load(node.journal)
            if entry is not None and entry["state"] == "open":
                journals.arm(entry, token, node.module.params["revert_after_s"])
                journals.store(node.journal, entry)
        node.fail_if_reverted(token)
    node.module.exit_json(changed=bool(agent), adopted=node.adopted, **(_told({}, [], [], agent) if agent else {}))


def _finish_a_restore(node: Node) -> None:
    """A restore that nobody confirmed is put back before something new begins on top of it."""
    entry = journals.load(node.journal)
    if entry is not None and entry["state"] == "open" and entry["kind"] == "restore":
        _revert(node)


def _begin(node: Node, wanted: Wanted, **told: Any) -> str:
    """Arm, journal and write, in this order and under the lock: the revert never comes between two of our writes."""
    with journals.locked(node.journal):
        # Not what was seen earlier: the revert of a run before may have put files back meanwhile.
        differing = {path: wanted[path] for path in changed_files(wanted)}
        now = node.live_state()
        token = node.arm()
        seconds = node.module.params["revert_after_s"]
        journals.begin(node.journal, files=differing, live=now, token=token, revert_after_s=seconds, **told)
        for path, (content, mode) in differing.items():
            if content is None:
                journals.remove_durably(Path(path))
            else:
                journals.write_durably(Path(path), content, mode)
    return token


def _wait(node: Node, token: str, missing: Any) -> list[str]:
    until = time.monotonic() + node.module.params["settle_timeout_s"]
    while True:
        found: list[str] = missing()
        if not found or time.monotonic() > until or not node.still_open(token):
            return found
        time.sleep(0.3)


def proven(node: Node) -> None:
    if node.module.check_mode or not node.module.params["jumbo"]:
        node.module.exit_json(changed=False)
    _fail_if_too_late(node)
    lost = node.ping()
    _fail_if_too_late(node)
    if lost:
        node.fail(
            f"a ping of {node.mtu - 28} bytes that must not be fragmented does not pass over {', '.join(lost)} "
            f"[fabric.jumbo]"
        )
    node.module.exit_json(changed=False)


def _fail_if_too_late(node: Node) -> None:
    """A node that has reverted, or will before the other one has answered, ends it for both."""
    entry = journals.load(node.journal)
    if entry is not None and entry["state"] == "open" and journals.seconds_left(entry) < _MIN_LEFT_S:
        node.fail("too late: the node is about to put itself back [fabric.reverted_meanwhile]")
    if entry is not None and entry["state"].startswith("revert") and not node.as_wanted():
        _fail_reverted(node, entry)


def confirmed(node: Node) -> None:
    if node.module.check_mode:
        node.module.exit_json(changed=False)
    with journals.locked(node.journal):
        settled = journals.settle(node.journal)
        entry = journals.load(node.journal)
    node.disarm()
    if entry is not None and entry["state"].startswith("revert"):
        # An old revert does not matter to a run that found everything as wanted.
        ours = entry["kind"] == "restore" if not node.module.params["jumbo"] else not node.as_wanted()
        if ours:
            _fail_reverted(node, entry)
    node.module.exit_json(changed=False, settled=settled)


def _fail_reverted(node: Node, entry: dict[str, Any]) -> None:
    told = entry["reverted"]
    left = f"; left: {'; '.join(told['differences'])}" if told["differences"] else ""
    node.fail(
        f"too late: this node has put itself back at {told['at']} ({told['why']}), the change does not hold{left} "
        f"[fabric.reverted_meanwhile]"
    )


def reverted(node: Node) -> None:
    entry = journals.load(node.journal)
    if entry is None or entry["state"] != "open":
        node.module.exit_json(changed=False, msg="nothing to revert")
    if node.module.check_mode:
        node.module.exit_json(changed=True)
    answer = _revert(node)
    node.module.exit_json(
        changed=answer["changed"],
        msg=answer["message"],
        dspark_summary={"what": f"rails reverted: {answer['message']}"},
    )


def _revert(node: Node) -> dict[str, Any]:
    """Have the program put it back; the timer stays armed until it has."""
    argv = ["/usr/bin/python3", node.module.params["revert_program"], "operator", "--journal", str(node.journal)]
    rc, out, err = node.run(*argv)
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError:
        node.fail(f"the revert program ended with {rc}: {err or out} [fabric.revert]")
        return {}
    node.disarm()
    if answer["errors"]:
        node.fail(f"the revert is not complete: {'; '.join(answer['errors'])} [fabric.revert]")
    return answer


def restored(node: Node) -> None:
    """Take back the last confirmed change: its files, and the addresses and the MTU of its ports."""
    module = node.module
    current, entry = journals.load(node.journal), journals.undoable(node.journal)
    only_look = module.params["state"] == "restorable"
    begun = current is not None and current["state"] == "open" and current["kind"] == "restore"
    if current is not None and current["state"] == "open" and not begun:
        node.fail(
            "a change that was not confirmed is still open; it reverts within a minute, or run `dspark-ops fabric "
            "apply` to finish it; nothing was changed [fabric.unconfirmed]"
        )
    if entry is None:
        _nothing_to_restore(node)
        return
    edited = [] if begun else journals.edited_since(entry)
    if edited:
        node.fail(f"{'; '.join(edited)}; nothing was changed [fabric.edited]")
    _refuse_management(node, entry)
    before = {r["path"]: r["before"] for r in entry["files"]}
    wanted: Wanted = {
        path: (None, 0o600) if was is None else (was["content"].encode("utf-8", "surrogateescape"), int(was["mode"], 8))
        for path, was in before.items()
    }
    was = {"links": {n: v for n, v in entry["live"]["links"].items() if n in entry["netdevs"]}, "routes": []}
    put = ({**was, "services": []}, entry["given"], entry["netdevs"])
    missing = live.differences(*put, node.live_state())
    differing = changed_files(wanted)
    if not differing and not missing and not begun:
        _nothing_to_restore(node)
    node.refuse_running_rank()
    told = _told(wanted, differing, missing, [])
    told["dspark_summary"]["what"] = f"taken back: {told['dspark_summary']['what']}"
    if only_look or module.check_mode:
        module.exit_json(changed=not only_look, **({} if only_look else told))
    node.install_agent(node.agent_changes())
    shared = {"backend": entry["backend"], "netdevs": entry["netdevs"]}
    token = _begin(node, wanted, kind="restore", undoes=entry["id"], given={}, **shared)
    error = node.apply(**shared)
    node.fail_if_reverted(token)
    if error:
        node.fail(f"{error} [fabric.netplan_apply]")

    def left() -> list[str]:
        live.put_back(*put)
        return live.differences(*put, node.live_state())

    missing = _wait(node, token, left)
    node.fail_if_reverted(token)
    if missing:
        node.fail(f"not effective after the old files were applied: {'; '.join(missing)} [fabric.not_effective]")
    module.exit_json(changed=True, **told)


def _nothing_to_restore(node: Node) -> None:
    entry = journals.load(node.journal)
    reverted_before = entry is not None and entry["state"].startswith("revert")
    if node.module.params["state"] == "restored" and not node.module.check_mode and reverted_before:
        with journals.locked(node.journal):
            # So that the confirmation does not take an old revert for one of this run.
            journals.archive(node.journal)
    node.module.exit_json(changed=False, msg="nothing of ours to take back")


def _refuse_management(node: Node, entry: dict[str, Any]) -> None:
    control = control_address()
    netdev = route_netdev(control) if control else None
    if netdev in entry["netdevs"] and not node.module.params["allow_management"]:
        node.fail(
            f"the control host's session comes over {netdev}, which the restore would take its address from; nothing "
            f"was changed [fabric.management_port]"
        )


STATES = {
    "inspected": inspected,
    "present": present,
    "proven": proven,
    "confirmed": confirmed,
    "reverted": reverted,
    "restorable": restored,
    "restored": restored,
}


def _told(wanted: Wanted, differing: list[str], missing: list[str], agent: list[dict[str, Any]]) -> dict[str, Any]:
    """The change as diff and as one line."""
    diff, summary = [], {}
    for path in differing:
        now, content = journals.snapshot(Path(path)), wanted[path][0]
        diff.append(
            {
                "before_header": path,
                "after_header": path,
                "before": now["content"].encode("utf-8", "surrogateescape").decode("utf-8", "replace") if now else "",
                "after": "" if content is None else content.decode("utf-8", "replace"),
            }
        )
        summary = {
            "before": f"sha256:{now['sha256'][:12]}" if now else None,
            "after": None if content is None else f"sha256:{journals.digest(content)[:12]}",
        }
    for item in agent:
        now = journals.snapshot(Path(item["path"]))
        before = f"sha256:{now['sha256']}\n" if now else ""
        after = f"sha256:{journals.digest(item['content'].encode())}\n"
        diff.append({"before_header": item["path"], "after_header": item["path"], "before": before, "after": after})
    if differing:
        what = f"rails: {', '.join(differing[:2])}{f' and {len(differing) - 2} more' if differing[2:] else ''}"
    elif missing:
        what = f"rails: apply what is configured ({'; '.join(missing)})"
    else:
        what = "rails: the programs of the revert"
    return {"diff": diff, "dspark_summary": {"what": what, **summary}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(STATES), "required": True},
            "rails": {"type": "list", "elements": "dict", "default": []},
            "mtu": {"type": "int", "default": 9000},
            "agent": {"type": "list", "elements": "dict", "default": []},
            "allow_management": {"type": "bool", "default": False},
            "allow_disruption": {"type": "bool", "default": False},
            "jumbo": {"type": "bool", "default": True},
            "path": {"type": "path", "default": "/etc/netplan/60-dspark-fabric.yaml"},
            "networkd_folder": {"type": "path", "default": "/etc/systemd/network"},
            "journal": {"type": "path", "default": "/var/lib/dspark/journal/fabric.json"},
            "revert_program": {"type": "path", "default": "/usr/local/lib/dspark-ops/fabric_revert.py"},
            "revert_after_s": {"type": "int", "default": 45},
            "settle_timeout_s": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    STATES[module.params["state"]](Node(module))


if __name__ == "__main__":
    main()
