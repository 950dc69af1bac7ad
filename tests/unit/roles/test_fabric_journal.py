"""The journal of the rails and the program that reverts: bytes come back, or stay when somebody edited them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import PLAYBOOKS, load

journals = load(PLAYBOOKS / "module_utils" / "dspark_fabric_journal.py", "fabric_journal")
PROGRAM = PLAYBOOKS / "roles/fabric/files/fabric_revert.py"
MTU = int(Path("/sys/class/net/lo/mtu").read_text())
OURS, NEXT = b"ours\n", b"ours, later\n"


class Node:
    """A netplan file, a journal, and an `ip` and a `netplan` that only write down what they are asked."""

    def __init__(self, home: Path) -> None:
        self.target = home / "60-dspark-fabric.yaml"
        self.journal = home / "journal" / "fabric.json"
        self.journal.parent.mkdir()
        self.calls = home / "calls"
        self.calls.write_text("")

    def begin(self, content: bytes | None, was: tuple[str, ...] = ()) -> dict[str, Any]:
        links = {"lo": {"mtu": MTU, "addresses": list(was)}}
        found: dict[str, Any] = journals.begin(
            self.journal, self.target, content=content, links=links, given=["10.77.0.1/24"]
        )
        return found

    def write(self, content: bytes) -> None:
        journals.write_atomically(self.target, content)

    def revert(self) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, str(PROGRAM), str(self.journal)], capture_output=True, text=True, check=False
        )
        return done.returncode, json.loads(done.stdout)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def node(tmp_path: Path, on_path: Callable[[str, str], None]) -> Node:
    node = Node(tmp_path)
    record = f"open({str(node.calls)!r}, 'a').write(' '.join([os.path.basename(sys.argv[0])] + sys.argv[1:]) + '\\n')\n"
    live = [{"addr_info": [{"local": "10.77.0.1", "prefixlen": 24}, {"local": "fe80::1", "prefixlen": 64}]}]
    on_path("netplan", record)
    on_path("ip", f"if sys.argv[1] == '-j': print({json.dumps(live)!r}); sys.exit()\n{record}")
    return node


def test_where_there_was_no_file_there_is_none_again(node: Node) -> None:
    node.begin(OURS)
    node.write(OURS)
    code, answer = node.revert()
    assert (code, answer["changed"], answer["errors"]) == (0, True, [])
    assert not node.target.exists()
    # networkd leaves the address on a port that it no longer manages.
    assert node.called() == ["netplan apply", "ip addr del 10.77.0.1/24 dev lo"]
    assert node.revert()[1]["changed"] is False


def test_the_old_bytes_and_mode_come_back(node: Node) -> None:
    node.target.write_bytes(b"old \xff bytes\n")
    node.target.chmod(0o640)
    node.begin(OURS, was=("10.77.0.1/24", "10.9.0.1/24"))
    node.write(OURS)
    assert node.revert()[0] == 0
    assert node.target.read_bytes() == b"old \xff bytes\n"
    assert node.target.stat().st_mode & 0o777 == 0o640
    assert node.called() == ["netplan apply", "ip addr add 10.9.0.1/24 dev lo"]


def test_an_edited_file_is_left_alone(node: Node) -> None:
    node.begin(OURS)
    node.write(b"somebody's work\n")
    code, answer = node.revert()
    assert code == 4
    assert "was edited" in answer["errors"][0]
    assert node.target.read_bytes() == b"somebody's work\n"
    assert node.called() == []


def test_a_run_that_was_killed_and_repeated_reverts_to_what_was_there_first(node: Node) -> None:
    node.begin(OURS)
    node.write(OURS)
    node.begin(NEXT)
    node.write(NEXT)
    assert node.revert()[0] == 0
    assert not node.target.exists()


def test_killed_between_journal_and_file_there_is_nothing_to_put_back(node: Node) -> None:
    node.begin(OURS)
    assert node.revert()[0] == 0
    assert not node.target.exists()


def test_a_confirmed_change_is_not_reverted_and_becomes_history(node: Node) -> None:
    first = node.begin(OURS)
    node.write(OURS)
    assert journals.settle(node.journal)
    assert not journals.settle(node.journal)
    assert node.revert() == (0, {"changed": False, "errors": [], "message": "nothing to revert"})
    second = node.begin(NEXT)
    assert second["before"]["sha256"] == journals.digest(OURS)
    kept = node.journal.with_name(f"fabric-{first['id']}.json")
    assert json.loads(kept.read_text())["state"] == "confirmed"
    assert node.journal.stat().st_mode & 0o777 == 0o600


def test_a_failing_netplan_is_told_and_the_entry_stays_open(node: Node, on_path: Callable[[str, str], None]) -> None:
    on_path("netplan", "sys.exit('no netplan today')")
    node.begin(OURS)
    node.write(OURS)
    code, answer = node.revert()
    assert code == 1
    assert "no netplan today" in answer["errors"][0]
    entry = journals.load(node.journal)
    assert entry is not None
    assert entry["state"] == "open"


def test_a_journal_that_is_not_whole_is_no_journal(node: Node) -> None:
    node.journal.write_text('{"schema": "dspark-ops/jour')
    assert journals.load(node.journal) is None
    assert journals.known_digests(None) == set()
