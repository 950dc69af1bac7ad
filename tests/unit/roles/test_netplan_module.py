"""dspark_netplan: the transaction on a node whose `ip`, `netplan` and `systemctl` are programs of the test."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.roles.conftest import PLAYBOOKS, Call

# The loopback port has a carrier everywhere; what `ip` says of it comes from the test.
RAILS = [{"name": "p0a", "netdev": "lo", "address": "10.77.0.1/24"}]
OURS = "network: {version: 2, ethernets: {lo: {addresses: [10.77.0.1/24], mtu: 9000}}}\n"
BOTH = OURS.replace("lo:", "gone0: {addresses: [10.77.9.1/24], mtu: 9000}, lo:")

HEAD = """
home = os.environ["FAKE_NODE"] + "/"
open(home + "calls", "a").write(" ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
links = json.load(open(home + "links"))
def save():
    json.dump(links, open(home + "links", "w"))
"""
NOTED = """#!/bin/sh
echo "${0##*/} $*" >> "$FAKE_NODE/calls"
"""
IP = """
if sys.argv[1] == "-j":
    print(json.dumps([{"ifname": n, "mtu": l["mtu"], "address": "02:00:00:00:00:01", "addr_info": [
        {"local": a.split("/")[0], "prefixlen": int(a.split("/")[1])} for a in l["addresses"]]}
        for n, l in links.items() if n in sys.argv or sys.argv[-1] == "show"]))
elif sys.argv[1:3] == ["addr", "del"]:
    links[sys.argv[5]]["addresses"].remove(sys.argv[3])
    save()
elif sys.argv[1:3] == ["link", "set"]:
    links[sys.argv[4]]["mtu"] = int(sys.argv[6])
    save()
"""
# As networkd: gives a port what the file says, and leaves alone a port that no file names.
NETPLAN = (
    f"""
sys.path.append({str(Path(yaml.__file__).parents[1])!r})
"""
    """
mode = open(home + "netplan").read()
if sys.argv[1] == "generate":
    sys.exit("Error in network definition" if mode == "refuses" else 0)
target = home + "60-dspark-fabric.yaml"
if mode != "idle" and os.path.exists(target):
    import yaml
    for name, given in yaml.safe_load(open(target))["network"]["ethernets"].items():
        links[name] = {"mtu": given["mtu"], "addresses": given["addresses"]}
    save()
"""
)


class Node:
    """The node as a test sees it."""

    def __init__(self, home: Path, call: Call) -> None:
        self.home, self._call = home, call
        self.target, self.journal = home / "60-dspark-fabric.yaml", home / "journal" / "fabric.json"
        self.has(lo=(65536, []))
        self.netplan("applies")

    def has(self, **links: tuple[int, list[str]]) -> None:
        document = {name: {"mtu": mtu, "addresses": addresses} for name, (mtu, addresses) in links.items()}
        (self.home / "links").write_text(json.dumps(document))

    def netplan(self, mode: str) -> None:
        (self.home / "netplan").write_text(mode)

    def do(self, state: str, *, content: str = OURS, check: bool = False) -> dict[str, Any]:
        (self.home / "calls").write_text("")
        return self._call(
            "dspark_netplan",
            check=check,
            patch={"FOLDERS": (str(self.home / "etc"),)},
            state=state,
            rails=RAILS,
            mtu=9000,
            content=content,
            path=str(self.target),
            journal=str(self.journal),
            revert_program=str(PLAYBOOKS / "roles/fabric/files/fabric_revert.py"),
            settle_timeout_s=1,
        )

    def calls(self) -> list[str]:
        return (self.home / "calls").read_text().splitlines()

    def addresses(self, netdev: str) -> list[str]:
        found: list[str] = json.loads((self.home / "links").read_text())[netdev]["addresses"]
        return found

    def entry(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.journal.read_text())
        return found


@pytest.fixture
def node(tmp_path: Path, call: Call, on_path: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> Node:
    for name, text in (("ip", HEAD + IP), ("netplan", HEAD + NETPLAN), ("systemctl", NOTED), ("systemd-run", NOTED)):
        on_path(name, text)
    (tmp_path / "etc").mkdir()
    monkeypatch.setenv("FAKE_NODE", str(tmp_path))
    # On a node the module is root.
    monkeypatch.setattr(os, "chown", lambda *_: None)
    return Node(tmp_path, call)


def test_check_mode_foretells_and_leaves_no_trace(node: Node) -> None:
    answer = node.do("present", check=True)
    assert answer["changed"]
    assert answer["diff"]["after"] == OURS
    assert not node.target.exists()
    assert not node.journal.exists()
    assert [c for c in node.calls() if not c.startswith("ip -j")] == []


def test_the_revert_is_armed_before_anything_is_applied_and_the_second_run_changes_nothing(node: Node) -> None:
    assert node.do("present")["changed"]
    steps = [c.split()[0] + " " + c.split()[1] for c in node.calls() if c.startswith(("systemd-run", "netplan"))]
    assert steps == ["netplan generate", "systemd-run --quiet", "netplan apply"]
    assert node.target.read_text() == OURS
    assert node.target.stat().st_mode & 0o777 == 0o600
    assert node.entry()["state"] == "open"
    again = node.do("present")
    assert again["changed"] is False
    assert not [c for c in node.calls() if c.startswith("netplan")]
    # Not confirmed yet: whoever dies now must not leave it for good.
    assert [c for c in node.calls() if c.startswith("systemd-run")]
    assert node.do("confirmed")["changed"] is False
    assert "systemctl stop dspark-fabric-revert.timer" in node.calls()
    assert node.entry()["state"] == "confirmed"
    node.do("present")
    assert not [c for c in node.calls() if c.startswith("systemd-run")]


def test_a_live_value_that_somebody_changed_is_put_right_though_the_file_is_the_same(node: Node) -> None:
    node.do("present")
    node.do("confirmed")
    node.has(lo=(1500, ["10.77.0.1/24"]))
    answer = node.do("present")
    assert answer["changed"]
    assert "MTU 1500 instead of 9000" in answer["dspark_summary"]["what"]


def test_a_port_that_is_no_rail_any_more_loses_our_address(node: Node) -> None:
    node.has(lo=(65536, []), gone0=(1500, []))
    node.do("present", content=BOTH)
    node.do("confirmed")
    assert node.addresses("gone0") == ["10.77.9.1/24"]
    assert node.do("present")["changed"]
    assert node.addresses("gone0") == []
    assert node.addresses("lo") == ["10.77.0.1/24"]


def test_a_file_that_netplan_refuses_is_never_written(node: Node) -> None:
    node.netplan("refuses")
    answer = node.do("present")
    assert answer["failed"]
    assert answer["msg"].endswith("[fabric.netplan_invalid]")
    assert not node.target.exists()
    assert not node.journal.exists()


def test_what_does_not_become_effective_fails_and_can_be_reverted(node: Node) -> None:
    node.netplan("idle")
    answer = node.do("present")
    assert answer["failed"]
    assert "lacks 10.77.0.1/24" in answer["msg"]
    assert answer["msg"].endswith("[fabric.not_effective]")
    assert node.do("reverted")["changed"]
    assert not node.target.exists()
    assert node.entry()["state"] == "reverted"


def test_an_edited_file_is_refused_and_one_that_is_not_readable_is_replaced(node: Node) -> None:
    node.do("present")
    node.do("confirmed")
    edited = OURS.replace("9000", "9001")
    node.target.write_text(edited)
    answer = node.do("present")
    assert answer["msg"].endswith("[fabric.edited]")
    assert node.target.read_text() == edited
    node.target.write_text("network: {ethernets: {lo: {addr")
    assert node.do("present")["changed"]
    assert node.target.read_text() == OURS


def test_a_conflict_names_the_file_and_touches_nothing(node: Node) -> None:
    foreign = node.home / "etc" / "50-cloud-init.yaml"
    foreign.write_text("network: {ethernets: {lo: {dhcp4: true}}}")
    for state in ("inspected", "present"):
        answer = node.do(state)
        assert str(foreign) in answer["msg"]
        assert answer["msg"].endswith("nothing was changed [fabric.foreign_netplan]")
    assert not node.target.exists()


def test_without_an_open_entry_there_is_nothing_to_revert(node: Node) -> None:
    assert node.do("reverted")["changed"] is False
    node.do("present")
    node.do("confirmed")
    assert node.do("reverted")["changed"] is False
    assert node.target.read_text() == OURS


def test_what_an_earlier_run_left_unconfirmed_can_still_revert_by_itself(node: Node) -> None:
    """The earlier run wrote the file and died; this one finds it as wanted, but nobody has verified it yet."""
    node.do("present")
    assert node.do("present", check=True)["changed"] is False
    assert not [c for c in node.calls() if c.startswith("system")]
    assert node.do("present")["changed"] is False
    timer = [c for c in node.calls() if c.startswith("systemd-run")]
    assert len(timer) == 1
    assert "--on-active=180" in timer[0]
    assert timer[0].endswith(f"fabric_revert.py {node.journal}")
    node.do("confirmed")
    node.do("present")
    assert not [c for c in node.calls() if c.startswith("systemd-run")]


def test_without_a_revert_that_is_armed_nothing_is_written(node: Node, on_path: Callable[[str, str], None]) -> None:
    on_path("systemd-run", HEAD + "sys.exit('no systemd today')")
    answer = node.do("present")
    assert answer["msg"].endswith("no systemd today [fabric.revert_timer]")
    assert not node.target.exists()
    assert "netplan apply" not in node.calls()


def test_an_apply_that_fails_leaves_a_journal_to_revert_from(node: Node, on_path: Callable[[str, str], None]) -> None:
    on_path("netplan", HEAD + "sys.exit('dbus is gone' if sys.argv[1] == 'apply' else 0)")
    answer = node.do("present")
    assert answer["msg"].endswith("dbus is gone [fabric.netplan_apply]")
    assert node.entry()["state"] == "open"
    assert node.do("reverted", check=True)["changed"]
    assert node.target.exists()
    answer = node.do("reverted")
    assert "not complete" in answer["msg"]
    assert answer["msg"].endswith("[fabric.revert]")


def test_a_revert_leaves_alone_what_was_edited_meanwhile(node: Node) -> None:
    node.do("present")
    node.target.write_text(OURS + "# mine\n")
    answer = node.do("reverted")
    assert answer["failed"]
    assert "was edited" in answer["msg"]
    assert node.target.read_text() == OURS + "# mine\n"


def test_another_file_that_gives_what_is_wanted_is_adopted_and_ours_goes(node: Node) -> None:
    node.do("present")
    node.do("confirmed")
    foreign = node.home / "etc" / "50-rails.yaml"
    foreign.write_text(OURS)
    found = node.do("inspected")
    assert (found["changed"], found["own_rails"], found["adopted"]) == (False, [], {"lo": str(foreign)})
    assert node.do("present", content="")["changed"]
    assert not node.target.exists()
    assert foreign.read_text() == OURS
    node.do("confirmed")
    assert node.do("present", content="")["changed"] is False


def test_a_file_that_netplan_could_not_read_either_is_named(node: Node) -> None:
    foreign = node.home / "etc" / "50-half.yaml"
    foreign.write_text("network: {ethernets: [")
    answer = node.do("present")
    assert str(foreign) in answer["msg"]
    assert answer["msg"].endswith("[fabric.foreign_netplan]")
    assert not node.target.exists()


def test_a_file_that_others_may_read_is_put_right(node: Node) -> None:
    """Netplan complains about anything but 0600."""
    node.do("present")
    node.do("confirmed")
    node.target.chmod(0o644)
    assert node.do("present")["changed"]
    assert node.target.stat().st_mode & 0o777 == 0o600
    assert node.do("reverted")["changed"]
    assert (node.target.read_text(), node.target.stat().st_mode & 0o777) == (OURS, 0o644)
