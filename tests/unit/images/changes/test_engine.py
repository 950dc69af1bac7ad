"""Apply, revert and inspect: levels told by hash alone, all or nothing, no write where nothing changes."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.images.changes import ChangeSet, FileChange, ForeignError, apply, inspect, revert, verify_release
from dspark_ops.images.changes.model import sha256_hex
from dspark_ops.images.changes.record import parse_record
from tests.unit.images.changes.made_trees import (
    BROUGHT,
    RECORD,
    Case,
    cases,
    change_set,
    install,
    snapshot,
    times,
)

BEFORE = {"base/a.py": b"one\ntwo\nthree\n", "base/b.py": b"b\n", "base/c.py": b"c\n"}
FIRST = {**BEFORE, "base/a.py": b"one\n2\nthree\n", "base/new/n.py": b"n\n"}
SECOND = {**FIRST, "base/a.py": b"one\n2\n3\n", "base/b.py": b"bb\n"}
STACK = (change_set("first", BEFORE, FIRST), change_set("second", FIRST, SECOND))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    install(tmp_path, BEFORE)
    return tmp_path


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_every_level_is_reached_told_and_left_to_the_byte(case: Case, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        install(root, case.levels[0])
        seen = {0: snapshot(root)}
        level = 0
        for target in data.draw(st.lists(st.integers(0, len(case.stack)), min_size=1, max_size=5)):
            if target > level:
                apply(root, case.stack, upto=target)
            else:
                revert(root, case.stack, downto=target)
            level = target
            state = inspect(root, case.stack)
            assert (state.level, state.foreign) == (level, ())
            now = snapshot(root)
            assert {p: c for p, c in now.items() if not p.endswith("/RECORD")} == case.levels[level]
            assert seen.setdefault(level, now) == now
            still = times(root)
            assert apply(root, case.stack, upto=level).changed == ()
            assert revert(root, case.stack, downto=level).changed == ()
            assert times(root) == still
            # What RECORD says is what lies there, at every level and for both distributions.
            listed = {}
            for record in root.glob("*.dist-info/RECORD"):
                listed.update(parse_record(record.read_bytes()))
            files = {path: content for path, content in now.items() if not path.endswith("/RECORD")}
            assert {p: v for p, v in listed.items() if v[0]} == {p: (sha256_hex(c), len(c)) for p, c in files.items()}
            assert verify_release(root, "base-pkg", "1.2.3", stack=case.stack, every_file=True).foreign == ()


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_one_byte_in_one_touched_file_is_foreign_and_nothing_is_written(case: Case, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        install(root, case.levels[0])
        level = data.draw(st.integers(0, len(case.stack)))
        apply(root, case.stack, upto=level)
        present = sorted(path for path in case.touched if (root / path).exists())
        path = data.draw(st.sampled_from(present))
        content = (root / path).read_bytes()
        at = data.draw(st.integers(0, len(content)))
        edited = content[:at] + b"#" + content[at:]
        if data.draw(st.booleans()) and content:
            at = min(at, len(content) - 1)
            edited = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        (root / path).write_bytes(edited)
        before, still = snapshot(root), times(root)
        state = inspect(root, case.stack)
        assert state.kind == "foreign"
        assert path in {foreign.path for foreign in state.foreign}
        for move in (lambda: apply(root, case.stack), lambda: revert(root, case.stack)):
            with pytest.raises(ForeignError) as refused:
                move()
            assert path in str(refused.value)
        assert (snapshot(root), times(root)) == (before, still)


def test_a_mixture_of_two_levels_is_foreign(root: Path) -> None:
    apply(root, STACK)
    (root / "base/new/n.py").unlink()
    [foreign] = inspect(root, STACK).foreign
    assert (foreign.path, foreign.observed, foreign.expected) == ("base/new/n.py", None, (sha256_hex(b"n\n"),))


def test_a_step_touches_only_what_it_changes(root: Path) -> None:
    before = times(root)
    assert apply(root, STACK, upto=1).changed == ("base/a.py", "base/new/n.py", RECORD)
    after = times(root)
    assert {path for path in before if before[path] == after[path]} >= {
        str(root / "base/b.py"),
        str(root / "base/c.py"),
    }


def test_a_missing_file_is_foreign(root: Path) -> None:
    (root / "base/a.py").unlink()
    assert ("base/a.py", None) in {(f.path, f.observed) for f in inspect(root, STACK).foreign}


def test_a_file_in_the_place_of_an_added_one_is_foreign(root: Path) -> None:
    (root / "base/new").mkdir()
    (root / "base/new/n.py").write_bytes(b"somebody's\n")
    with pytest.raises(ForeignError, match=r"base/new/n\.py"):
        apply(root, STACK)


def test_a_record_that_disagrees_is_foreign(root: Path) -> None:
    record = root / RECORD
    record.write_bytes(record.read_bytes().replace(b"base/b.py,sha256=", b"base/b.py,sha256=A"))
    [foreign] = inspect(root, STACK).foreign
    assert foreign.path == f"{RECORD} (line of base/b.py)"


def test_another_version_is_foreign_though_the_files_match(tmp_path: Path) -> None:
    install(tmp_path, BEFORE)
    (tmp_path / "base_pkg-1.2.3.dist-info").rename(tmp_path / "base_pkg-1.2.4.dist-info")
    [foreign] = inspect(tmp_path, STACK).foreign
    assert (foreign.path, foreign.observed) == ("base_pkg-1.2.4.dist-info", "base-pkg 1.2.4")


@pytest.mark.parametrize("linked", ["base/a.py", "base"])
def test_a_symbolic_link_is_never_followed(root: Path, tmp_path_factory: pytest.TempPathFactory, linked: str) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "target"
    (root / linked).rename(elsewhere)
    (root / linked).symlink_to(elsewhere)
    with pytest.raises(ForeignError, match="symbolic link"):
        apply(root, STACK)
    there = elsewhere / "a.py" if elsewhere.is_dir() else elsewhere
    assert there.read_bytes() == BEFORE["base/a.py"]


def test_modes_are_kept_and_compiled_files_of_changed_modules_go(root: Path) -> None:
    (root / "base/a.py").chmod(0o640)
    cache = root / "base/__pycache__"
    cache.mkdir()
    for name in ("a.cpython-311.pyc", "a.cpython-312.opt-1.pyc", "c.cpython-311.pyc", "ab.cpython-311.pyc"):
        (cache / name).write_bytes(b"compiled")
    apply(root, STACK)
    assert (root / "base/a.py").stat().st_mode & 0o7777 == 0o640
    assert {path.name for path in cache.iterdir()} == {"c.cpython-311.pyc", "ab.cpython-311.pyc"}


def test_a_hard_link_of_an_installers_cache_is_not_written_through(root: Path, tmp_path: Path) -> None:
    cached = tmp_path / "cached.py"
    os.link(root / "base/a.py", cached)
    apply(root, STACK)
    assert cached.read_bytes() == BEFORE["base/a.py"]


def test_what_the_stack_brings_is_a_distribution_that_python_finds(tmp_path: Path) -> None:
    brought = {
        f"{BROUGHT}/METADATA": b"Metadata-Version: 2.1\nName: extra-pkg\nVersion: 1.0.0\n",
        f"{BROUGHT}/entry_points.txt": b"[some.group]\nextra = extra_pkg:register\n",
        "extra_pkg/__init__.py": b"def register():\n    return 584\n",
    }
    from dspark_ops.images.changes import with_record

    later = {**BEFORE, **brought, "extra_pkg/more.py": b"X = 1\n"}
    sets = [change_set("a", BEFORE, {**BEFORE, **brought}), change_set("b", {**BEFORE, **brought}, later)]
    stack = with_record(sets)
    install(tmp_path, BEFORE)
    pristine = snapshot(tmp_path)
    # Each set on its own, as an image's layers are made.
    apply(tmp_path, stack[:1])
    apply(tmp_path, stack)
    found = importlib.metadata.Distribution.discover(path=[str(tmp_path)], name="extra-pkg")
    [distribution] = list(found)
    assert distribution.version == "1.0.0"
    assert sorted(map(str, distribution.files or [])) == sorted([*brought, "extra_pkg/more.py", f"{BROUGHT}/RECORD"])
    script = "import importlib.metadata as m; [e] = m.entry_points(group='some.group'); print(e.load()())"
    done = subprocess.run(
        [sys.executable, "-S", "-B", "-c", script], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "584", done.stderr
    assert (tmp_path / RECORD).read_bytes() == pristine[RECORD]
    revert(tmp_path, stack)
    assert snapshot(tmp_path) == pristine


def test_a_patch_that_makes_something_else_is_caught_before_anything_is_written(root: Path) -> None:
    good = STACK[0].files[0]
    lying = ChangeSet("first", "base-pkg", "1.2.3", (FileChange(good.path, good.before, "0" * 64, good.patch),))
    still = times(root)
    with pytest.raises(Exception, match=r"base/a\.py: the patch makes"):
        apply(root, [lying])
    assert times(root) == still
