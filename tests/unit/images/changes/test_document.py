"""The JSON document: strict, with one clear error, and no path that leaves the tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from dspark_ops.images.changes import DOCUMENT, ChangeSet, DocumentError, FileChange, inspect, load_change_set
from dspark_ops.images.changes.model import check_path, check_stack, sha256_hex
from tests.unit.images.changes.made_trees import Case, cases, change_set

BEFORE = {"base/a.py": b"a\n"}
AFTER = {"base/a.py": b"aa\n", "base/new.py": b"n\n"}
CHANGES = change_set("first", BEFORE, AFTER)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    CHANGES.write(tmp_path)
    return tmp_path


def edit(directory: Path, **changed: Any) -> None:
    document = json.loads((directory / DOCUMENT).read_text())
    entry = changed.pop("entry", {})
    document.update(changed)
    document["files"][0].update(entry)
    (directory / DOCUMENT).write_text(json.dumps(document))


@settings(max_examples=30, deadline=None)
@given(cases())
def test_written_and_read_it_is_the_same(tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    for changes in case.stack:
        place = tmp_path_factory.mktemp("set")
        changes.write(place)
        assert load_change_set(place) == changes


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"schema": "dspark-ops/changes/v2"}, "schema is 'dspark-ops/changes/v2', expected 'dspark-ops/changes/v1'"),
        ({"name": ""}, "name is '', expected a name"),
        ({"extra": 1}, "unknown extra"),
        ({"files": [], "entry": None}, "files is empty"),
        ({"entry": {"mode": 493}}, "unknown mode"),
        ({"entry": {"after": "ABC"}}, "after is 'ABC', expected a sha256"),
        ({"entry": {"before": None}}, "must have a hash before and a patch"),
        ({"entry": {"path": "../outside.py"}}, "not a plain relative path"),
        ({"entry": {"patch": "../../etc/passwd"}}, "not a plain relative path"),
        ({"entry": {"patch": "absent.patch"}}, "patch cannot be read"),
        ({"entry": {"path": "base/other.py"}}, "does not begin with --- a/base/other.py"),
    ],
)
def test_each_fault_has_one_clear_error(directory: Path, changed: dict[str, Any], said: str) -> None:
    if changed.get("entry", 0) is None:
        (directory / DOCUMENT).write_text(
            json.dumps({**json.loads((directory / DOCUMENT).read_text()), "files": changed["files"]})
        )
    else:
        edit(directory, **changed)
    with pytest.raises(DocumentError) as refused:
        load_change_set(directory)
    assert said in str(refused.value)


def test_a_content_that_is_not_its_hash_is_refused(directory: Path) -> None:
    (directory / "files/base/new.py").write_bytes(b"something else\n")
    with pytest.raises(DocumentError, match=r"content of base/new\.py does not have the hash"):
        load_change_set(directory)


def test_no_document_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read as a change set"):
        load_change_set(tmp_path)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "a//b", "a/./b", "a/../b", "..", "a\\b", "a\nb", "a\0b", "a/", 3])
def test_a_path_has_one_spelling_below_the_root(path: object) -> None:
    with pytest.raises(DocumentError):
        check_path(path)


def test_sets_that_do_not_fit_on_each_other_are_refused() -> None:
    other = change_set("second", {"base/a.py": b"not what first leaves\n"}, {"base/a.py": b"x\n"})
    with pytest.raises(DocumentError, match=r"second: base/a\.py is edited from .* but the set below leaves"):
        check_stack([CHANGES, other])
    with pytest.raises(DocumentError, match=r"again: base/new\.py is edited from no file"):
        check_stack(
            [CHANGES, change_set("again", AFTER, AFTER | {"x": b""}), change_set("again", {}, {"base/new.py": b""})]
        )
    elsewhere = ChangeSet("second", "base-pkg", "9", CHANGES.files)
    with pytest.raises(DocumentError, match="is for base-pkg 9"):
        check_stack([CHANGES, elsewhere])


def test_a_file_cannot_be_a_directory_as_well() -> None:
    inside = FileChange("base/new.py/x", None, sha256_hex(b""), content=b"")
    with pytest.raises(DocumentError, match="is a file and the directory of"):
        check_stack([CHANGES, ChangeSet("second", "base-pkg", "1.2.3", (inside,))])


def test_levels_that_look_the_same_are_refused(tmp_path: Path) -> None:
    back = change_set("back", {"base/a.py": b"aa\n"}, {"base/a.py": b"a\n"})
    there = change_set("there", {"base/a.py": b"a\n"}, {"base/a.py": b"aa\n"})
    with pytest.raises(DocumentError, match="cannot be told apart"):
        inspect(tmp_path, [there, back])
