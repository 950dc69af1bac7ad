"""A run that dies between any two steps leaves a tree that the next run makes whole."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.images.changes import ForeignError, apply, inspect, journal, revert
from tests.unit.images.changes.made_trees import Case, cases, change_set, install, snapshot

BEFORE = {"base/a.py": b"a\n", "base/b.py": b"b\n"}
AFTER = {"base/a.py": b"aa\n", "base/b.py": b"bb\n", "base/new/c.py": b"c\n"}
STACK = (change_set("only", BEFORE, AFTER),)
#: Everything through which the journal touches the disk.
STEPS = [
    (os, "fsync"),
    (os, "fchmod"),
    (os, "open"),
    (os, "fdopen"),
    (Path, "replace"),
    (Path, "unlink"),
    (Path, "mkdir"),
    (Path, "rmdir"),
]


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the engine's runs."""


@contextmanager
def dying(at: int, how: Callable[[], BaseException]) -> Iterator[list[int]]:
    """Raise at the `at`-th step that touches the disk, and at every later one: the dead do nothing."""
    count = [0]
    with contextmanager_stack() as patch:
        for owner, name in STEPS:
            patch(owner, name, at, how, count)
        yield count


@contextmanager
def contextmanager_stack() -> Iterator[Callable[..., None]]:
    patches: list[mock._patch] = []  # type: ignore[type-arg]

    def start(owner: object, name: str, at: int, how: Callable[[], BaseException], count: list[int]) -> None:
        real = getattr(owner, name)

        def counted(*args: object, **named: object) -> object:
            count[0] += 1
            if count[0] >= at:
                raise how()
            return real(*args, **named)

        patch = mock.patch.object(owner, name, counted)
        patch.start()
        patches.append(patch)

    try:
        yield start
    finally:
        for patch in patches:
            patch.stop()


def steps_of(case: Case) -> int:
    with tempfile.TemporaryDirectory() as place:
        install(Path(place), case.levels[0])
        with dying(10**9, Killed) as count:
            apply(Path(place), case.stack)
        return count[0]


@settings(max_examples=80, deadline=None)
@given(cases(), st.data())
def test_killed_anywhere_the_next_run_makes_it_whole(case: Case, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, steps_of(case)))
    again = data.draw(st.integers(1, 30))
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as other:
        root, whole = Path(place), Path(other)
        for tree in (root, whole):
            install(tree, case.levels[0])
        pristine = snapshot(root)
        with pytest.raises(Killed), dying(at, Killed):
            apply(root, case.stack)
        try:
            # The run that puts back may die as well.
            with dying(again, Killed):
                apply(root, case.stack)
        except Killed:
            pass
        apply(root, case.stack)
        apply(whole, case.stack)
        assert snapshot(root) == snapshot(whole)
        revert(root, case.stack)
        assert snapshot(root) == pristine


@pytest.mark.parametrize("step", ["_stage", "_put"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_an_error_puts_everything_back_at_once(step: str, number: int, tmp_path: Path) -> None:
    install(tmp_path, BEFORE)
    pristine = snapshot(tmp_path)
    real, calls = getattr(journal, step), [0]

    def failing(*args: object) -> None:
        calls[0] += 1
        if calls[0] == number:
            raise OSError(28, "No space left on device")
        real(*args)

    with mock.patch.object(journal, step, failing), pytest.raises(OSError, match="No space left"):
        apply(tmp_path, STACK)
    assert snapshot(tmp_path) == pristine


def test_an_interrupted_tree_says_so_and_is_not_touched_by_looking(tmp_path: Path) -> None:
    install(tmp_path, BEFORE)
    with pytest.raises(Killed), mock.patch.object(journal, "_finish", side_effect=Killed):
        apply(tmp_path, STACK)
    before = snapshot(tmp_path)
    state = inspect(tmp_path, STACK)
    assert (state.kind, state.level) == ("interrupted", None)
    assert snapshot(tmp_path) == before
    assert set(apply(tmp_path, STACK).recovered) == {"base/a.py", "base/b.py", "base/new/c.py", *_record(before)}


def test_a_file_edited_after_the_interruption_is_not_overwritten(tmp_path: Path) -> None:
    install(tmp_path, BEFORE)
    with pytest.raises(Killed), mock.patch.object(journal, "_finish", side_effect=Killed):
        apply(tmp_path, STACK)
    (tmp_path / "base/b.py").write_bytes(b"somebody's own\n")
    before = snapshot(tmp_path)
    with pytest.raises(ForeignError, match=r"base/b\.py"):
        apply(tmp_path, STACK)
    assert snapshot(tmp_path) == before


def test_a_real_sigkill(tmp_path: Path) -> None:
    root, exported = tmp_path / "site", tmp_path / "set"
    install(root, BEFORE)
    STACK[0].write(exported)
    script = (
        "import os, signal, sys\n"
        "from dspark_ops.images.changes import journal, __main__\n"
        "real, seen = journal._put, []\n"
        "def put(*args):\n"
        "    seen.append(1)\n"
        "    if len(seen) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(*args)\n"
        "journal._put = put\n"
        "__main__.main(sys.argv[1:])\n"
    )
    arguments = ["apply", "--root", str(root), "--stack", str(exported)]
    killed = subprocess.run([sys.executable, "-c", script, *arguments], check=False)
    assert killed.returncode == -9
    assert inspect(root, STACK).kind == "interrupted"
    apply(root, STACK)
    assert {p: c for p, c in snapshot(root).items() if not p.endswith("RECORD")} == AFTER


def _record(tree: dict[str, bytes]) -> set[str]:
    return {path for path in tree if path.endswith("dist-info/RECORD")}
