"""What is kept of a wheel, and that it is the wheel's: without a network. tests/release fetches real ones."""

from __future__ import annotations

import zipfile
from pathlib import Path
from unittest import mock

import pytest

from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.images import release_tree as module
from dspark_ops.images.changes.record import new_record
from dspark_ops.images.release_tree import release_tree, unpack_tree
from tests.unit.images.changes.made_trees import DIST_INFO, RECORD

FILES = {
    "base/__init__.py": b"x = 1\n",
    "base/kernel.abi3.so": b"\x7fELF",
    "base/configs/one.json": b"{}",
    "base/cubin.bin": b"0",
    f"{DIST_INFO}/METADATA": b"Metadata-Version: 2.1\nName: base-pkg\nVersion: 1.2.3\n",
}


def make_wheel(place: Path, packed: dict[str, bytes], listed: dict[str, bytes] = FILES) -> Path:
    wheel = place / "base_pkg-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**packed, RECORD: new_record(RECORD, listed)}.items():
            archive.writestr(path, content)
    return wheel


def names(tree: Path) -> set[str]:
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}


def test_python_text_and_metadata_are_kept(tmp_path: Path) -> None:
    unpack_tree(make_wheel(tmp_path, FILES), tmp_path / "tree")
    assert names(tmp_path / "tree") == {"base/__init__.py", "base/configs/one.json", f"{DIST_INFO}/METADATA", RECORD}


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        ({**FILES, "base/__init__.py": b"x = 2\n"}, "base/__init__.py: sha256"),
        ({**FILES, "base/unlisted.py": b"\n"}, "base/unlisted.py: sha256 .* expected no such file"),
    ],
)
def test_a_file_that_record_does_not_know_so_is_refused(tmp_path: Path, packed: dict[str, bytes], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        unpack_tree(make_wheel(tmp_path, packed), tmp_path / "tree")


def test_a_tree_is_there_complete_or_not_at_all_and_is_fetched_once(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    bad = make_wheel(made, {**FILES, "base/__init__.py": b"damaged\n"})
    with mock.patch.object(module, "_download", return_value=bad), pytest.raises(RefusedError):
        release_tree("base-pkg", "1.2.3", tmp_path)
    # A listed .py file that the wheel lacks.
    short = make_wheel(made, {p: c for p, c in FILES.items() if p != "base/__init__.py"})
    with mock.patch.object(module, "_download", return_value=short), pytest.raises(RefusedError):
        release_tree("base-pkg", "1.2.3", tmp_path)
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [".base-pkg-1.2.3-aarch64.lock"]
    good = make_wheel(made, FILES)
    with mock.patch.object(module, "_download", return_value=good) as download:
        tree = release_tree("base-pkg", "1.2.3", tmp_path)
        assert release_tree("base-pkg", "1.2.3", tmp_path) == tree
    assert download.call_count == 1
    assert "base/__init__.py" in names(tree)


def test_pips_own_words_are_told(tmp_path: Path) -> None:
    with (
        mock.patch.object(module, "pip_command", return_value=["sh", "-c", "echo no such wheel; exit 1"]),
        pytest.raises(NoVerdictError, match="no such wheel"),
    ):
        release_tree("base-pkg", "1.2.3", tmp_path)
