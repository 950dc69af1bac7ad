"""The look into an image: what was sealed, what a stage changed, and what somebody else did."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.paths import data_dir

_VERIFY = data_dir("images") / "verify"


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _record(lines: dict[str, bytes]) -> str:
    encoded = {p: base64.urlsafe_b64encode(hashlib.sha256(c).digest()).decode().rstrip("=") for p, c in lines.items()}
    return "".join(f"{path},sha256={digest},{len(lines[path])}\n" for path, digest in encoded.items())


class _Image:
    """A root in a directory: the programs find it because HOME of files_check is a copy's own directory."""

    def __init__(self, root: Path) -> None:
        self.home, self.site = root / "opt", root / "site"
        (self.home / "verify").mkdir(parents=True)
        for name in ("files_check.py", "seal.py"):
            text = (_VERIFY / name).read_text(encoding="utf-8").replace('"/opt/dspark"', repr(str(self.home)))
            (self.home / "verify" / name).write_text(text, encoding="utf-8")
        for name, content in {
            "vllm/a.py": b"a = 1\n",
            "vllm/b.py": b"b = 1\n",
            "vllm/__pycache__/b.cpython-311.pyc": b"old",
            "torch/t.py": b"t\n",
            "one.pth": b"",
            "vllm-1.dist-info/RECORD": _record({"vllm/a.py": b"a = 1\n", "vllm/b.py": b"b = 1\n"}).encode(),
        }.items():
            self.write(name, content)
        (self.site / "torch/link").symlink_to("t.py")
        self.run("seal.py", str(self.home / "manifest.json"), str(self.site), str(self.home / "verify"))

    def write(self, name: str, content: bytes) -> None:
        path = self.site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def stage(self, name: str, changed: dict[str, bytes]) -> None:
        """Apply a stage as the change engine leaves it: files, RECORD, and the document that says so."""
        folder = self.home / "stages" / name
        folder.mkdir(parents=True)
        files = [{"path": path, "before": None, "after": _sha(content)} for path, content in changed.items()]
        document = {"schema": "x", "name": f"stage-{name}", "distribution": "vllm", "version": "1", "files": files}
        (folder / "change_set.json").write_text(json.dumps(document), encoding="utf-8")
        for path, content in changed.items():
            self.write(path, content)
        pristine = {"vllm/a.py": b"a = 1\n", "vllm/b.py": b"b = 1\n"}
        self.write("vllm-1.dist-info/RECORD", _record(pristine | changed).encode())

    def run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-B", str(self.home / "verify" / program), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def look(self, *arguments: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.run("files_check.py", *arguments))
        return document

    def wrong(self, *arguments: str) -> tuple[list[str], list[str], list[str]]:
        seen = self.look(*arguments)
        differing = [str(item["path"]).removeprefix(f"{self.site}/") for item in seen["differing"]]
        missing, added = ([p.removeprefix(f"{self.site}/") for p in seen[key]] for key in ("missing", "added"))
        assert [seen[f"{key}_count"] for key in ("differing", "missing", "added")] == [
            len(differing),
            len(missing),
            len(added),
        ]
        return differing, missing, added


@pytest.fixture
def image(tmp_path: Path) -> _Image:
    return _Image(tmp_path)


def test_a_sealed_image_is_whole(image: _Image) -> None:
    seen = image.look()
    assert (seen["differing"], seen["missing"], seen["added"], seen["stages"]) == ([], [], [], [])
    assert seen["files"] == 9
    assert seen["manifest_sha256"] == _sha((image.home / "manifest.json").read_bytes())


@pytest.mark.parametrize("name", ["vllm/a.py", "torch/t.py", "vllm/__pycache__/b.cpython-311.pyc", "one.pth"])
def test_one_changed_byte_is_named(image: _Image, name: str) -> None:
    content = (image.site / name).read_bytes()
    image.write(name, bytes([content[0] ^ 1]) + content[1:] if content else b"import evil")
    assert image.wrong() == ([name], [], [])


def test_an_edited_program_of_the_check_itself_is_named(image: _Image) -> None:
    path = image.home / "verify/seal.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert image.wrong()[0] == [str(path)]


def test_missing_added_and_bent_files_are_named(image: _Image) -> None:
    (image.site / "vllm/a.py").unlink()
    image.write("sitecustomize.py", b"")
    (image.site / "torch/link").unlink()
    (image.site / "torch/link").symlink_to("../vllm/b.py")
    assert image.wrong() == (["torch/link"], ["vllm/a.py"], ["sitecustomize.py"])


def test_a_stages_own_changes_are_expected_and_no_others(image: _Image) -> None:
    image.stage("a", {"vllm/b.py": b"b = 2\n", "plugin/p.py": b"p\n"})
    # The stale compiled file of a changed module is gone, and its absence is no fault.
    (image.site / "vllm/__pycache__/b.cpython-311.pyc").unlink()
    assert image.wrong() == ([], [], [])
    assert [stage["name"] for stage in image.look()["stages"]] == ["stage-a"]
    image.write("plugin/p.py", b"q\n")
    image.write("vllm/b.py", b"b = 1\n")  # reverted on this node alone
    assert image.wrong() == (["plugin/p.py", "vllm/b.py"], [], [])


def test_a_record_that_says_something_else_is_named(image: _Image) -> None:
    image.stage("a", {"vllm/b.py": b"b = 2\n"})
    image.write("vllm-1.dist-info/RECORD", _record({"vllm/a.py": b"a = 1\n", "vllm/b.py": b"b = 9\n"}).encode())
    assert image.wrong()[0] == ["vllm-1.dist-info/RECORD (vllm/b.py)"]


def test_quick_hashes_the_engine_and_only_counts_the_rest(image: _Image) -> None:
    image.write("torch/t.py", b"u\n")
    image.write("vllm/a.py", b"a = 2\n")
    image.write("one.pth", b"import evil")
    assert image.wrong("--quick")[0] == ["one.pth", "vllm/a.py"]
    assert image.look("--quick")["not_hashed"] == 2
    (image.site / "torch/t.py").unlink()
    assert image.wrong("--quick")[1] == ["torch/t.py"]
