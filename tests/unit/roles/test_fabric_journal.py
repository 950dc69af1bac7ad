"""The journal of a change: whatever moment the node dies at, the exact bytes come back, but for what was edited."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.roles.conftest import PLAYBOOKS, load

journals = load(PLAYBOOKS / "module_utils" / "dspark_fabric_journal.py", "fabric_journal")
LIVE = {"links": {}, "routes": [], "services": []}


class PowerCutError(Exception):
    """The node dies here."""


class Node:
    """Files and a journal, and a power that can be cut before any write reaches the disk."""

    def __init__(self, home: Path) -> None:
        self.home, self.journal = home, home / "journal" / "fabric.json"
        self.left: int | None = None

    def has(self, files: dict[str, tuple[bytes, int]]) -> None:
        for name, (content, mode) in files.items():
            path = self.home / name
            path.write_bytes(content)
            path.chmod(mode)

    def change(self, files: dict[str, bytes | None], **more: Any) -> None:
        """As the module does it: journal first, then file by file."""
        wanted = {str(self.home / name): (content, 0o600) for name, content in files.items()}
        told = {
            "token": "t",
            "kind": "apply",
            "backend": "netplan",
            "netdevs": ["lo"],
            "given": {"lo": ["10.77.0.1/24"]},
            **more,
        }
        with journals.locked(self.journal):
            journals.begin(self.journal, files=wanted, live=LIVE, revert_after_s=45, **told)
            for path, (content, mode) in wanted.items():
                if content is None:
                    journals.remove_durably(Path(path))
                else:
                    journals.write_durably(Path(path), content, mode)

    def revert(self) -> list[str]:
        """As the program does it, when there is something open."""
        with journals.locked(self.journal):
            entry = journals.load(self.journal)
            if entry is None or entry["state"] != "open":
                return []
            problems: list[str] = journals.restore_files(entry) + journals.file_differences(entry)
            entry["state"] = "revert-incomplete" if problems else "reverted"
            journals.store(self.journal, entry)
            return problems

    def settle(self) -> bool:
        with journals.locked(self.journal):
            settled: bool = journals.settle(self.journal)
            return settled

    def seen(self) -> dict[str, tuple[bytes, int]]:
        files = [path for path in self.home.iterdir() if path.is_file() and not path.name.startswith(".")]
        return {path.name: (path.read_bytes(), path.stat().st_mode & 0o777) for path in files}

    def state(self) -> str:
        entry = journals.load(self.journal)
        return "none" if entry is None else str(entry["state"])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


NAMES = st.sampled_from(["a.yaml", "b.yaml", "c.network"])
BYTES = st.binary(max_size=60)
MODES = st.sampled_from([0o600, 0o640, 0o644])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.dictionaries(NAMES, st.tuples(BYTES, MODES), max_size=3),
    changes=st.lists(st.dictionaries(NAMES, st.none() | BYTES, min_size=1, max_size=3), min_size=1, max_size=2),
    data=st.data(),
)
def test_for_every_crash_point_the_exact_bytes_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, tuple[bytes, int]],
    changes: list[dict[str, bytes | None]],
    data: st.DataObject,
) -> None:
    """A power cut before, after, or in the middle of any write (a half-written temporary is left), of a first run or of
    one that repeats a killed one; and a second cut in the revert that follows."""
    node = Node(tmp_path_factory.mktemp("node"))
    node.has(before)
    with pytest.MonkeyPatch.context() as patch:
        steps = data.draw(st.integers(0, 12), label="steps until the power is cut")
        _cut_power_after(patch, steps)
        with contextlib.suppress(PowerCutError):
            for files in changes:
                node.change(files)
    with pytest.MonkeyPatch.context() as patch:
        _cut_power_after(patch, data.draw(st.integers(0, 8), label="steps until the revert is cut"))
        with contextlib.suppress(PowerCutError):
            node.revert()
    assert node.revert() == []
    assert node.seen() == before
    assert node.state() in ("reverted", "none")


def _cut_power_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Let `steps` renames, removals and temporaries happen, then none: the state on disk that a power cut leaves."""
    left = [steps]

    def guarded(original: Any) -> Any:
        def step(*words: Any, **more: Any) -> Any:
            if left[0] == 0:
                raise PowerCutError
            left[0] -= 1
            return original(*words, **more)

        return step

    patch.setattr(Path, "replace", guarded(Path.replace))
    patch.setattr(Path, "unlink", guarded(Path.unlink))
    patch.setattr(journals.os, "fdopen", guarded(journals.os.fdopen))


def test_an_edited_file_is_left_alone_and_the_others_come_back(node: Node) -> None:
    node.has({"a.yaml": (b"old a", 0o640), "b.yaml": (b"old \xff b", 0o644)})
    node.change({"a.yaml": b"ours", "b.yaml": b"ours", "c.network": b"ours"})
    (node.home / "a.yaml").write_bytes(b"somebody's work")
    problems = node.revert()
    assert "a.yaml was edited" in problems[0]
    assert node.seen()["a.yaml"] == (b"somebody's work", 0o600)
    assert node.seen()["b.yaml"] == (b"old \xff b", 0o644)
    assert "c.network" not in node.seen()
    assert node.state() == "revert-incomplete"


def test_of_a_confirmation_and_a_revert_exactly_one_wins(node: Node) -> None:
    for _ in range(20):
        node.change({"a.yaml": b"ours"})
        won: list[str] = []
        gate = threading.Barrier(2)

        def confirm(gate: threading.Barrier = gate, won: list[str] = won) -> None:
            gate.wait()
            if node.settle():
                won.append("confirmed")

        def revert(gate: threading.Barrier = gate, won: list[str] = won) -> None:
            gate.wait()
            node.revert()
            if node.state() == "reverted":
                won.append("reverted")

        racers = [threading.Thread(target=confirm), threading.Thread(target=revert)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert won == [node.state()]
        assert ("a.yaml" in node.seen()) == (node.state() == "confirmed")
        journals.remove_durably(node.home / "a.yaml")
        journals.remove_durably(node.journal)


def test_a_confirmed_change_becomes_history_and_only_so_many_are_kept(node: Node) -> None:
    for number in range(journals.KEEP + 3):
        node.change({"a.yaml": f"ours {number}".encode()})
        assert node.settle()
        assert not node.settle()
        assert node.revert() == []
    entries = journals.history(node.journal)
    assert len(entries) == journals.KEEP + 1
    assert {entry["state"] for entry in entries} == {"confirmed"}
    assert node.journal.stat().st_mode & 0o777 == 0o600
    path = str(node.home / "a.yaml")
    assert journals.digest(b"ours 5") in journals.known_digests(node.journal, path)
    assert journals.known_digests(node.journal, "/another") == set()
    assert journals.given_by_us(node.journal) == {"10.77.0.1/24"}


def test_reverts_do_not_push_out_what_says_which_file_is_ours(node: Node) -> None:
    node.change({"a.yaml": b"ours"})
    node.settle()
    for number in range(journals.KEEP + 3):
        node.change({"a.yaml": f"never {number}".encode()})
        assert node.revert() == []
    assert journals.digest(b"ours") in journals.known_digests(node.journal, str(node.home / "a.yaml"))
    assert len(journals.history(node.journal)) == journals.KEEP + 2
    entry = journals.undoable(node.journal)
    assert journals.edited_since(entry) == []


def test_restores_go_back_one_confirmed_change_at_a_time(node: Node) -> None:
    ids = []
    for content in (b"one", b"two"):
        node.change({"a.yaml": content})
        node.settle()
        ids.append(journals.load(node.journal)["id"])
    assert journals.undoable(node.journal)["id"] == ids[1]
    node.change({"a.yaml": b"one"}, kind="restore", undoes=ids[1])
    # Not confirmed yet, so nothing is taken back yet.
    assert journals.undoable(node.journal)["id"] == ids[1]
    node.settle()
    assert journals.undoable(node.journal)["id"] == ids[0]
    node.change({"a.yaml": None}, kind="restore", undoes=ids[0])
    node.settle()
    assert journals.undoable(node.journal) is None


def test_a_journal_that_is_not_whole_is_no_journal(node: Node) -> None:
    node.journal.parent.mkdir()
    node.journal.write_text('{"schema": "dspark-ops/jour')
    assert journals.load(node.journal) is None
    assert journals.history(node.journal) == []
    assert node.revert() == []
