"""The aarch64 locks: every line one wheel that the image's Python can load, and the choice that pip makes."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from dspark_ops.images.wheels import platform_tags

_HERE = Path(__file__).resolve().parents[3] / "images" / "locks"
_DIGEST = "ab" * 32


def _load() -> ModuleType:
    # images/rehearsal has a lock.py too, and that one is importable by its name.
    spec = importlib.util.spec_from_file_location("locks_writer", _HERE / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


writer = _load()


def _document(*wheels: str, name: str = "torch", version: str = "2.13.0") -> dict[str, Any]:
    listed = [
        {"url": f"https://index.invalid/{wheel}", "hashes": {"sha256": f"{at:064x}"}} for at, wheel in enumerate(wheels)
    ]
    return {"packages": [{"name": name, "version": version, "wheels": listed}]}


@pytest.mark.parametrize("name", sorted(writer.WANTED))
def test_a_lock_pins_every_package_once_by_one_hash_and_names_no_index(name: str) -> None:
    text = (_HERE / f"{name}.lock").read_text(encoding="utf-8")
    pinned = writer.read_lock(text)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(pinned) == len(lines) > 150
    assert list(pinned) == sorted(pinned)
    assert all(name == canonicalize_name(name) for name in pinned)
    assert not re.search(r"https?:|://|\.org|\.com", text)


@pytest.mark.parametrize("name", sorted(writer.WANTED))
def test_a_lock_has_the_very_versions_that_it_was_asked_for(name: str) -> None:
    pinned = writer.read_lock((_HERE / f"{name}.lock").read_text(encoding="utf-8"))
    for wanted in writer.WANTED[name]:
        package, version = wanted.split("==")
        found, _ = pinned[package.split("[")[0]]
        assert found == version or found.startswith(f"{version}."), wanted
    # Compiled for CUDA, with everything that it loads at run time.
    assert {"torch", "triton", "nvidia-nccl-cu13", "nvidia-cublas", "xgrammar"} <= set(pinned)


def test_the_current_lock_brings_a_compiler_for_the_device() -> None:
    pinned = writer.read_lock((_HERE / "current-aarch64.lock").read_text(encoding="utf-8"))
    for package in ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime"):
        assert pinned[package][0].startswith("13.0."), package
    assert pinned["nvidia-cutlass-dsl"][0] == "4.8.0"  # b12x 1.5.1 takes no other


def test_the_preferred_wheel_is_the_newest_that_the_images_c_library_loads() -> None:
    document = _document(
        "torch-2.13.0-cp312-cp312-manylinux_2_28_aarch64.whl",
        "torch-2.13.0-cp311-cp311-manylinux_2_39_aarch64.whl",
        "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "torch-2.13.0-py3-none-any.whl",
        "torch-2.13.0-cp39-abi3-manylinux_2_34_aarch64.whl",
        "torch-2.13.0-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        "torch-2.13.0-1-cp311-cp311-manylinux_2_28_aarch64.whl",
        "torch-2.13.0-2-cp311-cp311-manylinux_2_28_aarch64.whl",
        "torch-2.13.0-cp311-cp311-manylinux_2_28_aarch64.whl",
    )
    order = []
    while document["packages"][0]["wheels"]:
        try:
            (pin,) = writer.chosen(document)
        except writer.LockError:
            break
        order.append(pin.wheel.removeprefix("torch-2.13.0-"))
        wheels = document["packages"][0]["wheels"]
        wheels[:] = [wheel for wheel in wheels if not wheel["url"].endswith(pin.wheel)]
    assert order == [
        "2-cp311-cp311-manylinux_2_28_aarch64.whl",
        "1-cp311-cp311-manylinux_2_28_aarch64.whl",
        "cp311-cp311-manylinux_2_28_aarch64.whl",
        "cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        "cp39-abi3-manylinux_2_34_aarch64.whl",
        "py3-none-any.whl",
    ]


def test_a_package_without_a_wheel_that_fits_is_named() -> None:
    with pytest.raises(writer.LockError, match=r"tilelang 0\.1\.12: no wheel for aarch64, 3\.11"):
        writer.chosen(_document("tilelang-0.1.12-cp38-abi3-win_amd64.whl", name="tilelang", version="0.1.12"))
    with pytest.raises(writer.LockError, match="no wheel"):
        writer.chosen({"packages": [{"name": "only-source", "version": "1", "sdist": {"name": "x.tar.gz"}}]})


@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9]+(-[a-z0-9]+){0,3}", fullmatch=True),
        st.tuples(st.from_regex(r"[0-9]+(\.[0-9]+){0,3}(\.post1|\+cpu)?", fullmatch=True), st.just(_DIGEST)),
        max_size=8,
    )
)
def test_what_is_written_is_read_again(pins: dict[str, tuple[str, str]]) -> None:
    written = [writer.Pin(name, version, "x.whl", sha256) for name, (version, sha256) in pins.items()]
    assert writer.read_lock(writer.rendered("seed-aarch64", written)) == pins


@pytest.mark.parametrize(
    "line", ["torch", "torch==2", "torch>=2 --hash=sha256:" + _DIGEST, f"a==1 --hash=md5:{_DIGEST}"]
)
def test_a_line_without_version_and_hash_is_refused(line: str) -> None:
    with pytest.raises(writer.LockError, match="line 2"):
        writer.read_lock(f"# head\n{line}\n")


def test_a_wheel_that_pip_would_not_take_is_named() -> None:
    ours = {"torch": ("2.13.0", _DIGEST), "vllm": ("0.32.0", _DIGEST)}
    writer.compare(ours, dict(ours))
    with pytest.raises(writer.LockError, match="vllm") as caught:
        writer.compare(ours, {**ours, "vllm": ("0.32.0", "cd" * 32)})
    assert "torch" not in str(caught.value)
    with pytest.raises(writer.LockError, match="extra"):
        writer.compare(ours, {**ours, "extra": ("1", _DIGEST)})


def test_an_unknown_lock_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        writer.main(["future-aarch64"])
    assert "current-aarch64 or seed-aarch64" in capsys.readouterr().err


def test_the_lock_is_resolved_for_the_platform_that_the_wheels_are_installed_for() -> None:
    assert writer.platforms() == platform_tags("aarch64")
