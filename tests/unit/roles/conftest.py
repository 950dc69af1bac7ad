"""Our modules outside Ansible: loaded from the playbooks, called with arguments, programs replaced on PATH."""

from __future__ import annotations

import importlib.util
import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest

from dspark_ops.paths import data_dir

PLAYBOOKS = data_dir("playbooks")


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# What Ansible does when it packs a module: ours are found as ansible.module_utils.NAME.
ansible.module_utils.__path__.append(str(PLAYBOOKS / "module_utils"))


Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a module of the library; its JSON answer."""
    from ansible.module_utils.testing import patch_module_args

    def run(name: str, *, check: bool = False, patch: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
        module = load(PLAYBOOKS / "library" / f"{name}.py", f"library_{name}")
        for key, value in (patch or {}).items():
            assert hasattr(module, key)
            setattr(module, key, value)
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return run


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program of the test's in front of PATH: Python without site-packages, or what its first line says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(name: str, text: str) -> None:
        path = folder / name
        path.write_text(text if text.startswith("#!") else f"#!{sys.executable} -IS\nimport json, os, sys\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write
