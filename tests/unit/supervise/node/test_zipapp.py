"""The packed program: the same bytes every time, and nothing in it but the standard library and our own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from dspark_ops.facts.rank import LABEL as RANK_LABEL
from dspark_ops.facts.rank import RANK_CONTAINER as RANK_NAME
from dspark_ops.paths import data_dir
from dspark_ops.supervise import zipapp
from dspark_ops.supervise.node import places

_IMPORT_ALL = """
import sys, sysconfig, zipfile, importlib
sys.path.insert(0, sys.argv[1])
names = [n[:-3].replace("/", ".") for n in zipfile.ZipFile(sys.argv[1]).namelist() if n.endswith(".py")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name.removesuffix(".__init__"))
import dspark_ops.supervise.node.__main__
stdlib = sysconfig.get_path("stdlib")
for name, module in sorted(sys.modules.items()):
    path = getattr(module, "__file__", None)
    if path and name != "__main__" and not path.startswith((stdlib, sysconfig.get_path("platstdlib"), sys.argv[1])):
        print(name, path)
    if path and ("site-packages" in path or "dist-packages" in path):
        print(name, path)
"""


def test_the_same_bytes_every_time() -> None:
    assert zipapp.build() == zipapp.build()
    assert zipapp.digest(zipapp.build()).startswith("sha256:")


def test_every_module_imports_with_the_standard_library_alone(tmp_path: Path) -> None:
    path = tmp_path / "supervise.pyz"
    path.write_bytes(zipapp.build())
    done = subprocess.run(
        [sys.executable, "-IS", "-c", _IMPORT_ALL, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_rank_end_answers_one_request_and_says_why_it_does_not(tmp_path: Path) -> None:
    path = tmp_path / "supervise.pyz"
    path.write_bytes(zipapp.build())

    def ask(text: str) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-IS", str(path), "rank"], input=text, capture_output=True, text=True, check=True
        )
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    said = ask('{"v": 1, "verb": "memory"}')
    assert said["ok"] is True
    assert said["result"]["mem_available_bytes"] > 1 << 20  # type: ignore[index]
    for text, expected in (
        ("", "is not JSON"),
        ("[]", "a list"),
        ('{"v": 1, "verb": "shell"}', "expected one of"),
        ('{"v": 2, "verb": "memory"}', "install it again"),
        ('{"v": 1, "verb": "memory", "more": 1}', "unknown fields: more"),
        ('{"v": 1, "verb": "stop", "site": 5}', "a number, expected a text"),
    ):
        said = ask(text)
        assert said["ok"] is False
        assert expected in str(said["error"])


def test_the_rules_are_those_of_the_ansible_module() -> None:
    with zipfile.ZipFile(io.BytesIO(zipapp.build())) as archive:
        rules = archive.read("dspark_container_rules.py").decode()
    assert rules == (data_dir("playbooks") / "module_utils/dspark_container_rules.py").read_text(encoding="utf-8")


def test_names_are_those_of_the_control_host() -> None:
    assert (places.RANK_CONTAINER, places.LABEL) == (RANK_NAME, RANK_LABEL)
