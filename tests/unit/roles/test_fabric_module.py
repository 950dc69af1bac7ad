"""dspark_fabric: the transaction on a node whose programs are the test's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import PLAYBOOKS, Call, load
from tests.unit.roles.fake_node import MANAGEMENT, RAILS, ROUTES, FakeNode

rules = load(PLAYBOOKS / "module_utils" / "dspark_netplan_rules.py", "netplan_rules")
FOREIGN = "network: {version: 2, ethernets: {lo: {addresses: [10.77.0.1/24], mtu: 9000}}}\n"


@pytest.fixture
def make(tmp_path: Path, call: Call, on_path: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FAKE_NODE", str(tmp_path))
    # On a node the module is root.
    monkeypatch.setattr(os, "chown", lambda *_: None)

    def made(backend: str = "netplan") -> FakeNode:
        return FakeNode(tmp_path, call, on_path, backend=backend)

    return made


@pytest.fixture
def node(make: Callable[[], FakeNode]) -> FakeNode:
    return make()


def confirmed(node: FakeNode, **more: Any) -> None:
    assert node.do("present", **more)["changed"]
    assert node.do("confirmed", **more)["settled"]


def test_check_mode_foretells_and_leaves_no_trace(node: FakeNode) -> None:
    answer = node.do("present", check=True)
    assert answer["changed"]
    assert "addresses: [10.77.0.1/24]" in answer["diff"][0]["after"]
    assert not node.target.exists()
    assert not node.journal.exists()
    assert not node.program.exists()
    assert node.changing_calls() == []


def test_the_revert_is_armed_before_anything_is_applied_and_the_second_run_changes_nothing(node: FakeNode) -> None:
    assert node.do("present")["changed"]
    steps = [" ".join(c.split()[:2]) for c in node.calls("systemd-run", "netplan") if "--wait" not in c]
    assert steps == ["netplan generate", "systemd-run --quiet", "netplan apply"]
    assert node.target.stat().st_mode & 0o777 == 0o600
    assert (node.entry()["state"], node.addresses("lo")) == ("open", ["10.77.0.1/24"])
    timer = next(c for c in node.calls("systemd-run") if "--on-active" in c)
    assert "--on-active=45 " in timer
    assert f" timer {node.entry()['token']} " in timer
    assert node.do("confirmed")["settled"]
    assert node.entry()["state"] == "confirmed"
    assert "systemctl stop dspark-fabric-revert-*.timer" in node.calls()
    again = node.do("present")
    assert again["changed"] is False
    assert node.changing_calls() == []


def test_the_revert_at_boot_is_enabled_before_the_first_change(node: FakeNode) -> None:
    node.do("present")
    calls = node.calls()
    enable = next(i for i, c in enumerate(calls) if c.startswith("systemctl enable"))
    assert "dspark-fabric-boot.service" in calls[enable]
    assert "dspark-fabric-boot-verify.service" in calls[enable]
    assert enable < calls.index("netplan apply")
    assert (node.home / "agent" / "dspark_fabric_live.py").exists()


def test_a_program_of_the_revert_that_is_old_is_put_right_and_is_a_change(node: FakeNode) -> None:
    confirmed(node)
    node.program.write_text("old")
    assert node.do("present", check=True)["changed"]
    assert node.do("present")["dspark_summary"]["what"] == "rails: the programs of the revert"
    assert node.do("present")["changed"] is False


def test_what_an_earlier_run_left_unconfirmed_can_still_revert_by_itself(node: FakeNode) -> None:
    """The earlier run wrote the file and died; this one finds it as wanted, but nobody has verified it yet."""
    node.do("present")
    first = node.entry()["token"]
    assert node.do("present", check=True)["changed"] is False
    assert node.entry()["token"] == first
    assert node.do("present")["changed"] is False
    assert node.entry()["token"] != first
    # The first run's timer has no say any more, the second one's has.
    assert node.timer_fires(first)["changed"] is False
    assert node.target.exists()
    assert node.timer_fires()["changed"] is True
    assert not node.target.exists()


def test_a_confirmation_after_the_revert_fails_and_says_so(node: FakeNode) -> None:
    node.do("present")
    node.timer_fires()
    for state in ("proven", "confirmed"):
        answer = node.do(state)
        assert answer["failed"]
        assert "put itself back" in answer["msg"]
        assert answer["msg"].endswith("[fabric.reverted_meanwhile]")
    assert node.entry()["state"] == "reverted"
    # As much for a run that takes back a change; an old one's revert does not matter to a run without a change.
    confirmed(node)
    assert node.do("confirmed")["settled"] is False


def test_a_revert_after_the_confirmation_finds_nothing(node: FakeNode) -> None:
    node.do("present")
    token = node.entry()["token"]
    node.do("confirmed")
    assert node.timer_fires(token)["changed"] is False
    assert node.revert("boot")["changed"] is False
    assert node.target.exists()


def test_a_run_that_is_too_slow_to_confirm_is_told_before_either_node_confirms(node: FakeNode) -> None:
    node.do("present", revert_after_s=2)
    assert node.do("proven")["msg"].endswith("about to put itself back [fabric.reverted_meanwhile]")


def test_the_timer_puts_back_what_the_change_took_from_the_management_port(node: FakeNode) -> None:
    node.netplan("harms")
    node.do("present")
    assert (node.addresses("mgmt"), node.live()["routes"]) == ([], [])
    node.netplan("applies")
    assert node.timer_fires()["errors"] == []
    live = node.live()
    assert live["links"]["mgmt"] == {"mtu": MANAGEMENT[0], "up": True, "addresses": MANAGEMENT[1]}
    assert live["links"]["lo"] == {"mtu": 65536, "up": True, "addresses": []}
    assert live["routes"] == ROUTES
    assert not node.target.exists()
    told = node.entry()["reverted"]
    assert (told["why"], told["differences"], told["live_checked"]) == ("timer", [], True)
    assert told["digests"][0]["found"] == node.entry()["files"][0]["after"]["sha256"]
    assert told["digests"][0]["now"] is None


def test_a_manager_that_fails_does_not_keep_the_management_from_coming_back(node: FakeNode) -> None:
    node.netplan("harms")
    node.do("present")
    node.netplan("fails")
    assert node.timer_fires()["errors"] == []
    assert node.addresses("mgmt") == MANAGEMENT[1]
    assert node.live()["routes"] == ROUTES
    assert (node.entry()["state"], len(node.entry()["reverted"]["program_errors"])) == ("reverted", 1)


def test_a_manager_that_hangs_does_not_keep_the_management_from_coming_back(node: FakeNode) -> None:
    node.netplan("harms")
    node.do("present")
    text = node.program.read_text()
    assert "LAST_PATIENCE_S = 40.0" in text
    node.program.write_text(text.replace("PATIENCE_S = 8.0", "PATIENCE_S = 0.3").replace("= 40.0", "= 1.0"))
    node.netplan("hangs")
    began = time.monotonic()
    assert node.timer_fires()["errors"] == []
    assert time.monotonic() - began < 10
    assert (node.addresses("mgmt"), node.live()["routes"]) == (MANAGEMENT[1], ROUTES)
    assert "did not end and was killed" in node.entry()["reverted"]["program_errors"][0]


def test_what_cannot_be_put_back_is_said(node: FakeNode, on_path: Callable[[str, str], None]) -> None:
    node.netplan("harms")
    node.do("present")
    text = (node.home / "bin" / "ip").read_text()
    (node.home / "bin" / "ip").write_text(text.replace('"addr", "replace"', '"addr", "never"'))
    answer = node.timer_fires()
    assert "mgmt lacks 192.168.9.7/24" in answer["errors"]
    assert node.entry()["state"] == "revert-incomplete"
    assert "mgmt lacks 192.168.9.7/24" in node.entry()["reverted"]["differences"]


def test_at_boot_the_files_are_back_and_netplan_makes_its_own_anew(node: FakeNode) -> None:
    node.do("present")
    node.has(lo=(65536, []), mgmt=MANAGEMENT)  # a boot
    (node.home / "calls").write_text("")
    assert node.revert("boot")["errors"] == []
    assert not node.target.exists()
    assert node.calls("netplan") == ["netplan generate"]
    assert (node.entry()["state"], node.entry()["reverted"]["live_checked"]) == ("reverted", False)
    assert node.revert("boot-verify")["errors"] == []
    assert node.entry()["reverted"] | {"why": "boot", "live_checked": True} == node.entry()["reverted"]
    assert node.revert("boot-verify")["changed"] is False


def test_a_live_value_that_somebody_changed_is_put_right_though_the_file_is_the_same(node: FakeNode) -> None:
    confirmed(node)
    node.has(lo=(1500, ["10.77.0.1/24"]), mgmt=MANAGEMENT)
    answer = node.do("present")
    assert answer["changed"]
    assert "MTU 1500 instead of 9000" in answer["dspark_summary"]["what"]
    node.timer_fires()
    assert node.live()["links"]["lo"]["mtu"] == 1500
    assert node.target.exists()


def test_a_port_that_is_no_rail_any_more_loses_our_address(node: FakeNode) -> None:
    node.has(lo=(65536, []), mgmt=MANAGEMENT)
    confirmed(node)
    moved = node.target.read_text().replace("    lo:", "    gone0:").replace("10.77.0.1", "10.77.9.1")
    node.target.write_text(moved + node.target.read_text().split("ethernets:\n")[1])
    node.has(lo=(9000, ["10.77.0.1/24"]), gone0=(9000, ["10.77.9.1/24"]), mgmt=MANAGEMENT)
    # As if an earlier version of us had written it.
    entry = node.entry()
    entry["files"][0]["written"].append(rules_digest(node.target))
    node.journal.write_text(__import__("json").dumps(entry))
    assert node.do("present")["changed"]
    assert (node.addresses("gone0"), node.addresses("lo")) == ([], ["10.77.0.1/24"])
    node.timer_fires()
    assert node.addresses("gone0") == ["10.77.9.1/24"]


def rules_digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_netplan_refuses_is_never_written(node: FakeNode) -> None:
    node.netplan("refuses")
    answer = node.do("present")
    assert answer["msg"].endswith("[fabric.netplan_invalid]")
    assert not node.target.exists()
    assert not node.journal.exists()


def test_what_does_not_become_effective_fails_and_can_be_reverted(node: FakeNode) -> None:
    node.netplan("idle")
    answer = node.do("present")
    assert "lacks 10.77.0.1/24" in answer["msg"]
    assert answer["msg"].endswith("[fabric.not_effective]")
    assert node.do("reverted", check=True)["changed"]
    assert node.target.exists()
    assert node.do("reverted")["changed"]
    assert not node.target.exists()
    assert (node.entry()["state"], node.entry()["reverted"]["why"]) == ("reverted", "operator")
    assert node.do("reverted")["changed"] is False


def test_without_a_revert_that_is_armed_nothing_is_written(node: FakeNode) -> None:
    (node.home / "no-timer").write_text("")
    answer = node.do("present")
    assert answer["msg"].endswith("no systemd today [fabric.revert_timer]")
    assert not node.target.exists()
    assert "netplan apply" not in node.calls()


def test_an_apply_that_fails_leaves_a_journal_to_revert_from(node: FakeNode) -> None:
    node.netplan("fails")
    answer = node.do("present")
    assert "dbus is gone" in answer["msg"]
    assert answer["msg"].endswith("[fabric.netplan_apply]")
    assert node.entry()["state"] == "open"
    assert node.do("reverted")["changed"]
    assert not node.target.exists()


def test_an_edited_file_is_refused_and_one_that_is_not_readable_is_replaced(node: FakeNode) -> None:
    confirmed(node)
    edited = node.target.read_text().replace("9000", "9001")
    node.target.write_text(edited)
    for state in ("inspected", "present"):
        assert node.do(state)["msg"].endswith("[fabric.edited]")
    assert node.target.read_text() == edited
    node.target.write_text("network: {ethernets: {lo: {addr")
    assert node.do("present")["changed"]
    assert "10.77.0.1/24" in node.target.read_text()


def test_a_revert_leaves_alone_what_was_edited_meanwhile_and_is_incomplete(node: FakeNode) -> None:
    node.do("present")
    edited = node.target.read_text() + "# mine\n"
    node.target.write_text(edited)
    answer = node.do("reverted")
    assert "was edited" in answer["msg"]
    assert node.target.read_text() == edited
    assert node.entry()["state"] == "revert-incomplete"


def test_a_conflict_names_the_file_and_touches_nothing(node: FakeNode) -> None:
    foreign = node.etc / "50-cloud-init.yaml"
    foreign.write_text("network: {ethernets: {lo: {dhcp4: true}}}")
    for state in ("inspected", "present"):
        answer = node.do(state)
        assert str(foreign) in answer["msg"]
        assert answer["msg"].endswith("[fabric.foreign_netplan]")
    assert not node.target.exists()
    foreign.write_text("network: {ethernets: [")
    assert str(foreign) in node.do("present")["msg"]


def test_another_file_that_gives_what_is_wanted_is_adopted_and_ours_goes(node: FakeNode) -> None:
    confirmed(node)
    foreign = node.etc / "50-rails.yaml"
    foreign.write_text(FOREIGN)
    assert node.do("inspected")["adopted"] == {"lo": str(foreign)}
    confirmed(node)
    assert not node.target.exists()
    assert foreign.read_text() == FOREIGN
    assert node.do("present")["changed"] is False


def test_a_networkmanager_profile_on_a_rail_fights_with_netplan(node: FakeNode) -> None:
    profile = node.home / "profiles" / "rail.nmconnection"
    text = "[connection]\nid=rail\ntype=ethernet\ninterface-name=lo\n[ipv4]\nmethod=auto\n"
    profile.write_text(text)
    answer = node.do("present")
    assert str(profile) in answer["msg"]
    assert "method auto" in answer["msg"]
    assert "[fabric.foreign_profile]" in answer["msg"]
    (node.etc / "50-rails.yaml").write_text(FOREIGN)
    good = text.replace("auto", "manual\naddress1=10.77.0.1/24") + "[ipv6]\nmethod=disabled\n[ethernet]\nmtu=9000\n"
    profile.write_text(good)
    assert "a rail has one owner" in node.do("present")["msg"]


def test_a_rail_is_never_the_port_of_the_control_hosts_session(node: FakeNode) -> None:
    rails = [{**RAILS[0], "netdev": "mgmt"}]
    answer = node.do("present", rails=rails)
    assert "mgmt (rail p0a) carries this session of the control host 192.168.9.1" in answer["msg"]
    assert "[fabric.management_port]" in answer["msg"]
    assert not node.target.exists()
    # With consent this guard is lifted; what is left is that the fake port has no carrier file.
    assert "management" not in node.do("present", rails=rails, allow_management=True).get("msg", "")


@pytest.mark.parametrize("address", ["192.168.9.100/25", "192.168.0.1/16", "192.168.9.6/29"])
def test_a_rail_never_takes_the_network_of_the_control_host(node: FakeNode, address: str) -> None:
    answer = node.do("present", rails=[{**RAILS[0], "address": address}])
    assert "[fabric.management_subnet]" in answer["msg"]
    assert not node.target.exists()
    assert node.do("present", rails=[{**RAILS[0], "address": address}], allow_management=True)["changed"]


def test_a_file_that_others_may_read_is_put_right(node: FakeNode) -> None:
    """Netplan complains about anything but 0600."""
    confirmed(node)
    node.target.chmod(0o644)
    assert node.do("present")["changed"]
    assert node.target.stat().st_mode & 0o777 == 0o600
    assert node.do("reverted")["changed"]
    assert node.target.stat().st_mode & 0o777 == 0o644


def test_a_running_rank_is_not_disturbed_without_consent(node: FakeNode, on_path: Callable[[str, str], None]) -> None:
    on_path("docker", "print('3f2a')")
    for state in ("inspected", "present"):
        assert node.do(state)["msg"].endswith("[fabric.engine_running]")
    assert not node.target.exists()
    confirmed(node, allow_disruption=True)
    # Nothing to change, nothing to disturb.
    assert node.do("inspected")["changed"] is False


def test_without_netplan_networkd_gets_a_file_per_rail(make: Callable[[str], FakeNode]) -> None:
    node = make("networkd")
    assert node.do("present")["changed"]
    ours = node.networkd / "09-dspark-fabric-lo.network"
    assert "Address=10.77.0.1/24" in ours.read_text()
    assert ours.stat().st_mode & 0o777 == 0o644
    assert node.calls("networkctl") == ["networkctl reload", "networkctl reconfigure lo"]
    node.timer_fires()
    assert not ours.exists()
    assert node.live()["links"]["lo"] == {"mtu": 65536, "up": True, "addresses": []}
    confirmed(node)
    assert node.do("present")["changed"] is False
    assert node.do("restored")["changed"]
    assert not ours.exists()


def test_networkmanager_alone_is_told_what_to_run_or_adopted(make: Callable[[str], FakeNode]) -> None:
    node = make("networkmanager")
    answer = node.do("present")
    assert "nmcli connection add type ethernet con-name dspark-p0a ifname lo" in answer["msg"]
    assert "[fabric.networkmanager]" in answer["msg"]
    profile = node.home / "profiles" / "rail.nmconnection"
    profile.write_text(
        "[connection]\nid=rail\ntype=ethernet\ninterface-name=lo\n[ethernet]\nmtu=9000\n"
        "[ipv4]\nmethod=manual\naddress1=10.77.0.1/24\nnever-default=true\n[ipv6]\nmethod=disabled\n"
    )
    assert "nmcli device connect lo" in node.do("present")["msg"]
    node.has(lo=(9000, ["10.77.0.1/24"]), mgmt=MANAGEMENT)
    answer = node.do("present")
    assert answer["adopted"] == {"lo": f"the NetworkManager profile 'rail' ({profile})"}
    assert not node.target.exists()


def test_restore_takes_back_the_last_confirmed_change_and_is_confirmed_itself(node: FakeNode) -> None:
    assert node.do("restored")["changed"] is False
    node.has(lo=(1500, ["10.9.9.9/32"]), mgmt=MANAGEMENT)
    # An address that was there by hand is refused; without it the change is made.
    node.has(lo=(1500, []), mgmt=MANAGEMENT)
    confirmed(node)
    assert node.do("restorable")["changed"] is False
    foretold = node.do("restored", check=True)
    assert foretold["changed"]
    assert node.target.exists()
    assert node.do("restored")["changed"]
    assert not node.target.exists()
    assert node.live()["links"]["lo"] == {"mtu": 1500, "up": True, "addresses": []}
    # Not confirmed: it reverts to our change.
    node.timer_fires()
    assert "10.77.0.1/24" in node.target.read_text()
    assert node.live()["links"]["lo"]["addresses"] == ["10.77.0.1/24"]
    assert node.do("confirmed", jumbo=False)["msg"].endswith("[fabric.reverted_meanwhile]")
    assert node.do("restored")["changed"]
    assert node.do("confirmed", jumbo=False)["settled"]
    assert node.do("restored")["changed"] is False
    assert node.do("restored", check=True)["changed"] is False


def test_a_second_restore_goes_one_change_further_back(node: FakeNode) -> None:
    confirmed(node)
    first = node.target.read_bytes()
    later = [{**RAILS[0], "address": "10.78.0.1/24"}]
    confirmed(node, rails=later)
    assert node.do("restored")["changed"]
    node.do("confirmed", jumbo=False)
    assert node.target.read_bytes() == first
    assert node.addresses("lo") == ["10.77.0.1/24"]
    assert node.do("restored")["changed"]
    node.do("confirmed", jumbo=False)
    assert not node.target.exists()
    assert node.do("restored")["changed"] is False


def test_restore_refuses_a_file_that_was_edited_since_and_names_both_digests(node: FakeNode) -> None:
    confirmed(node)
    ours = rules_digest(node.target)
    node.target.write_text(node.target.read_text() + "# mine\n")
    for state in ("restorable", "restored"):
        answer = node.do(state)
        assert answer["msg"].endswith("nothing was changed [fabric.edited]")
        assert str(node.target) in answer["msg"]
        assert ours[:12] in answer["msg"]
        assert rules_digest(node.target)[:12] in answer["msg"]
    assert node.target.read_text().endswith("# mine\n")


def test_restore_does_not_take_the_address_that_carries_the_session(node: FakeNode) -> None:
    """An operator who came over a rail would saw off the branch."""
    confirmed(node)
    (node.home / "control-port").write_text("lo")
    assert "[fabric.management_port]" in node.do("restorable")["msg"]
    assert "[fabric.management_port]" in node.do("restored")["msg"]
    assert node.target.exists()
    assert node.do("restored", allow_management=True)["changed"]


def test_a_restore_that_died_is_finished_by_the_next_one(node: FakeNode) -> None:
    confirmed(node)
    node.do("restored")
    assert node.do("restored")["changed"]
    assert node.do("confirmed", jumbo=False)["settled"]
    assert node.do("restored")["changed"] is False


def test_a_change_on_top_of_an_unconfirmed_restore_begins_from_our_last_state(node: FakeNode) -> None:
    confirmed(node)
    node.do("restored")
    assert not node.target.exists()
    confirmed(node)
    assert node.target.exists()
    assert node.entry()["kind"] == "apply"


def test_restore_refuses_while_a_change_is_unconfirmed(node: FakeNode) -> None:
    node.do("present")
    assert node.do("restored")["msg"].endswith("[fabric.unconfirmed]")
    assert node.target.exists()


class PowerCutError(BaseException):
    """The node dies here. Not an Exception: nothing in the module may catch it."""


@pytest.mark.parametrize("steps", range(5))
def test_wherever_the_power_is_cut_the_boot_brings_the_exact_bytes_back(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Cut before the old entry is archived, the new one begun, the file written, and after; then the boot's revert."""
    import ansible.module_utils.dspark_fabric_journal as journals

    confirmed(node)
    before = (node.target.read_bytes(), node.target.stat().st_mode)
    left = [steps]

    def guarded(original: Any) -> Any:
        def step(*words: Any, **more: Any) -> Any:
            if left[0] == 0:
                raise PowerCutError
            left[0] -= 1
            return original(*words, **more)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(journals, "write_durably", guarded(journals.write_durably))
        patch.setattr(journals, "remove_durably", guarded(journals.remove_durably))
        patch.setattr("ansible.module_utils.dspark_fabric_node.Node.validate", lambda *_: None)
        patch.setattr("ansible.module_utils.dspark_fabric_node.Node.apply", guarded(lambda *_: None))
        with pytest.raises(PowerCutError):
            node.do("present", rails=[{**RAILS[0], "address": "10.78.0.1/24"}])
    if steps == 4:
        assert b"10.78.0.1" in node.target.read_bytes()
    assert node.revert("boot")["errors"] == []
    assert (node.target.read_bytes(), node.target.stat().st_mode) == before
    # The next run finishes what was wanted.
    confirmed(node, rails=[{**RAILS[0], "address": "10.78.0.1/24"}])
