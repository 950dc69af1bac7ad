"""dspark_exposure and its node program with the real nft in a namespace; only systemd is the test's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.exposure.policy import policy_of
from dspark_ops.exposure.render import render
from dspark_ops.paths import data_dir
from tests.unit.exposure.conftest import site
from tests.unit.roles.conftest import PLAYBOOKS, load

RULES = render(policy_of(site(), "head", [22]))
OTHER = render(policy_of(site(allow=["tcp/9100"]), "head", [22]))
_SYSTEMCTL = """#!/bin/sh
state={folder}/enabled
echo "systemctl $*" >> {folder}/calls
case "$1" in
  is-enabled) test -e $state ;;
  enable) touch $state ${{2:+$state.$2}} ;;
  disable) rm -f $state ${{2:+$state.$2}} ;;
  is-active) case "$*" in *dspark-exposure.service) test -e $state.--now || exit 3 ;; *) exit 3 ;; esac ;;
esac
"""
Steps = Callable[..., list[Any]]


@pytest.fixture
def steps(nft: None, tmp_path: Path) -> Steps:
    """Run steps in a network namespace of their own; the answers."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (
        ("systemctl", _SYSTEMCTL.format(folder=tmp_path)),
        ("systemd-run", f'#!/bin/sh\necho "systemd-run $*" >> {tmp_path}/calls\n'),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    paths = {"path": str(tmp_path / "exposure.nft"), "journal": str(tmp_path / "journal" / "exposure.json")}

    def run(*wanted: tuple[str, dict[str, Any]]) -> list[Any]:
        driver = Path(__file__).with_name("module_driver.py")
        argv = [sys.executable, str(driver), str(PLAYBOOKS), json.dumps(wanted), json.dumps(paths)]
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        environment.pop("SSH_CONNECTION", None)
        done = subprocess.run(
            ["unshare", "--net", *argv], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        answers: list[Any] = json.loads(done.stdout)
        return answers

    return run


def calls(tmp_path: Path) -> str:
    path = tmp_path / "calls"
    return path.read_text() if path.exists() else ""


def test_check_mode_foretells_and_leaves_no_trace(steps: Steps, tmp_path: Path) -> None:
    answer, live = steps(("present", {"rules": RULES, "check": True}), ("live", {}))
    assert answer["changed"]
    assert answer["diff"]["after"] == RULES
    assert live is None
    assert not (tmp_path / "exposure.nft").exists()
    assert not (tmp_path / "journal").exists()
    assert "systemd-run" not in calls(tmp_path)


def test_the_revert_is_armed_before_the_rules_and_a_second_run_changes_nothing(steps: Steps, tmp_path: Path) -> None:
    first, _, second, third, live, entry = steps(
        ("present", {"rules": RULES}),
        ("confirmed", {"rules": RULES}),
        ("present", {"rules": RULES}),
        ("present", {"rules": RULES, "check": True}),
        ("live", {}),
        ("entry", {}),
    )
    assert first["changed"]
    assert not second["changed"]
    assert not third["changed"]
    assert "tcp dport 8443" in live
    assert entry["state"] == "confirmed"
    assert (tmp_path / "exposure.nft").read_text() == RULES
    assert (tmp_path / "enabled.--now").exists(), "what restarts nftables restarts only a unit that is active"
    order = [line.split()[0:2] for line in calls(tmp_path).splitlines() if "run" in line or "enable " in line]
    assert [words[0] for words in order] == ["systemd-run", "systemctl"], "armed, then enabled"
    assert "--on-active=45 " in calls(tmp_path)


def test_what_is_not_confirmed_goes_back_to_what_was_there(steps: Steps, tmp_path: Path) -> None:
    """From nothing to nothing; and from one policy back to it."""
    _, reverted, live = steps(("present", {"rules": RULES}), ("revert", {}), ("live", {}))
    assert reverted == {"changed": True, "errors": [], "message": "as it was before"}
    assert live is None
    assert not (tmp_path / "exposure.nft").exists()
    assert not (tmp_path / "enabled").exists()
    *_, before, _, _, after, late = steps(
        ("present", {"rules": RULES}),
        ("confirmed", {"rules": RULES}),
        ("live", {}),
        ("present", {"rules": OTHER}),
        ("revert", {}),
        ("live", {}),
        ("confirmed", {"rules": OTHER}),
    )
    assert before == after
    assert "[exposure.reverted_meanwhile]" in late["msg"]
    assert (tmp_path / "exposure.nft").read_text() == RULES


def test_a_run_that_died_leaves_the_way_back_to_the_first_state(steps: Steps) -> None:
    """The second run begins over an open change: what a revert leads to is still what was there before both."""
    *_, live, entry = steps(
        ("present", {"rules": RULES}), ("present", {"rules": OTHER}), ("revert", {}), ("live", {}), ("entry", {})
    )
    assert live is None
    assert entry["state"] == "reverted"


def test_only_the_timer_that_the_journal_names_reverts(steps: Steps) -> None:
    _, said, live = steps(("present", {"rules": RULES}), ("revert", {"token": "another"}), ("live", {}))
    assert said["changed"] is False
    assert live is not None


def test_a_boot_before_the_confirmation_counts_as_no_and_one_after_it_loads(steps: Steps, tmp_path: Path) -> None:
    """`systemctl is-active` says no for the timer, as after a boot."""
    _, loaded, live = steps(("present", {"rules": RULES}), ("load", {}), ("live", {}))
    assert loaded["message"] == "no rules of ours"
    assert live is None
    assert "disable --now" not in calls(tmp_path), "the unit would stop itself before the revert is written down"
    *_, loaded, live = steps(
        ("present", {"rules": RULES}), ("confirmed", {"rules": RULES}), ("flush", {}), ("load", {}), ("live", {})
    )
    assert loaded["message"] == "the rules are in force"
    assert "tcp dport 8443" in live
    assert (tmp_path / "enabled").exists()


def test_rules_that_somebody_flushed_or_changed_are_put_in_force_again(steps: Steps) -> None:
    *_, check, again, live = steps(
        ("present", {"rules": RULES}),
        ("confirmed", {"rules": RULES}),
        ("flush", {}),
        ("present", {"rules": RULES, "check": True}),
        ("present", {"rules": RULES}),
        ("live", {}),
    )
    assert check["changed"]
    assert again["changed"]
    assert live is not None


def test_a_file_that_somebody_edited_is_refused(steps: Steps, tmp_path: Path) -> None:
    *_, refused, _ = steps(
        ("present", {"rules": RULES}),
        ("confirmed", {"rules": RULES}),
        ("edit", {"text": RULES + "# mine\n"}),
        ("present", {"rules": OTHER}),
        ("live", {}),
    )
    assert "[exposure.edited]" in refused["msg"]
    assert (tmp_path / "exposure.nft").read_text().endswith("# mine\n")


def test_rules_that_the_kernel_refuses_change_nothing(steps: Steps, tmp_path: Path) -> None:
    bad = RULES.replace("tcp dport 8443", "tcp dport nonsense")
    refused, live = steps(("present", {"rules": bad}), ("live", {}))
    assert "[exposure.rules_invalid]" in refused["msg"]
    assert live is None
    assert not (tmp_path / "exposure.nft").exists()


def test_removed_is_as_if_it_had_never_been(steps: Steps, tmp_path: Path) -> None:
    *_, check, removed, again, live, entry = steps(
        ("present", {"rules": RULES}),
        ("confirmed", {"rules": RULES}),
        ("absent", {"check": True}),
        ("absent", {}),
        ("absent", {}),
        ("live", {}),
        ("entry", {}),
    )
    assert check["changed"]
    assert removed["changed"]
    assert not again["changed"]
    assert live is None
    assert entry is None
    assert not (tmp_path / "exposure.nft").exists()
    assert not list(tmp_path.glob("enabled*")), "the unit is stopped too: a oneshot would stay active without a file"


module = load(PLAYBOOKS / "library" / "dspark_exposure.py", "library_dspark_exposure")
PORTS = [{"rule": "ssh", "protocol": "tcp", "port": 22, "sources": ["10.0.0.0/8", "fd00::/8"]}]
RAILS = [{"netdev": "a", "address": "10.77.0.1", "peer": "10.77.0.2"}]


@pytest.mark.parametrize(
    ("session", "id_of_refusal"),
    [
        (("10.1.2.3", 22), None),
        (("::ffff:10.1.2.3", 22), None),
        (("fd00::5", 22), None),
        (("10.77.0.2", 2222), None),
        (None, None),
        (("192.168.1.5", 22), "[exposure.management_source]"),
        (("2001:db8::1", 22), "[exposure.management_source]"),
        (("10.1.2.3", 2222), "[exposure.ssh_port]"),
    ],
)
def test_a_session_that_would_be_shut_out_is_seen(session: Any, id_of_refusal: str | None) -> None:
    said = module.locked_out(session, PORTS, RAILS)
    assert (said is None) if id_of_refusal is None else (id_of_refusal in said)


def test_a_rule_for_all_sources_lets_every_session_in() -> None:
    assert module.locked_out(("192.0.2.1", 22), [{**PORTS[0], "sources": []}], RAILS) is None


def test_the_unit_comes_before_the_network_and_docker_and_follows_nftables() -> None:
    text = (data_dir("templates") / "dspark-exposure.service.j2").read_text()
    assert "Before=network-pre.target docker.service" in text
    assert "PartOf=nftables.service" in text
    assert "ReloadPropagatedFrom=nftables.service" in text
