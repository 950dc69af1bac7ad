"""`python3 -m changes`, copied away from this package as the image build does it, on the interpreter alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dspark_ops.images.changes as engine
from tests.unit.images.changes.made_trees import change_set, install, snapshot

BEFORE = {"base/a.py": b"a\n", "base/_version.py": b"x = 1\n"}
AFTER = {**BEFORE, "base/a.py": b"aa\n", "base/n.py": b"n\n"}


class Command:
    def __init__(self, place: Path) -> None:
        self.place, self.root = place, place / "site"
        source = Path(engine.__file__).parent
        shutil.copytree(source, place / "home/changes", ignore=shutil.ignore_patterns("__pycache__"))
        install(self.root, BEFORE)
        change_set("first", BEFORE, AFTER).write(place / "first")

    def line(self, verb: str, *more: str) -> list[str]:
        command = [sys.executable, "-I", "-S", "-B", "-c", "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); "]
        command[-1] += "runpy.run_module('changes', run_name='__main__')"
        arguments = [str(self.place / "home"), verb, "--root", str(self.root), "--stack", str(self.place / "first")]
        return [*command, *arguments, "--json", *more]

    def __call__(self, verb: str, *more: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(self.line(verb, *more), capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_apply_inspect_verify_revert(command: Command) -> None:
    pristine = snapshot(command.root)
    code, seen = command("apply")
    assert (code, seen["level"], seen["applied"]) == (0, 1, ["first"])
    assert seen["release"] == {"distribution": "base-pkg", "version": "1.2.3", "commit": None}
    assert seen["changed"] == ["base/a.py", "base/n.py", "base_pkg-1.2.3.dist-info/RECORD"]
    assert [entry["path"] for entry in seen["files"]] == ["base/a.py", "base/n.py"]
    assert command("apply")[1]["changed"] == []
    assert command("inspect")[1]["state"] == "level"
    assert command("verify")[0] == 0
    code, seen = command("revert")
    assert (code, seen["state"]) == (0, "pristine")
    assert snapshot(command.root) == pristine


@pytest.mark.parametrize("verb", ["apply", "revert", "inspect", "verify"])
def test_a_foreign_file_is_named_and_ends_with_4(command: Command, verb: str) -> None:
    (command.root / "base/a.py").write_bytes(b"foreign\n")
    code, seen = command(verb)
    assert code == 4
    assert "base/a.py" in {entry["path"] for entry in seen["foreign"]}


def test_verify_sees_what_no_stage_touches(command: Command) -> None:
    command("apply")
    (command.root / "base/_version.py").write_bytes(b"x = 2\n")
    assert command("inspect")[0] == 0
    code, seen = command("verify")
    assert (code, [entry["path"] for entry in seen["foreign"]]) == (4, ["base/_version.py"])


def test_a_malformed_set_ends_with_2_and_an_unwritable_tree_with_1(command: Command) -> None:
    assert command("inspect", "--stack", str(command.place))[0] == 2
    (command.root / ".dspark-changes.journal").write_text("no journal")
    assert command("apply")[0] == 1


def test_runs_at_the_same_time_take_turns(command: Command) -> None:
    both = [subprocess.Popen(command.line("apply"), stdout=subprocess.PIPE, text=True) for _ in range(3)]
    seen = [json.loads(process.communicate(timeout=30)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0, 0]
    assert sorted(len(one["changed"]) for one in seen) == [0, 0, 3]
    assert {path: c for path, c in snapshot(command.root).items() if not path.endswith("RECORD")} == AFTER
