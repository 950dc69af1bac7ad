"""The base image's key stands for everything that makes it; the image itself appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dspark_ops.errors import NoVerdictError
from dspark_ops.lab import debian_root
from dspark_ops.lab.vm import base_image
from dspark_ops.lab.vm.layout import VmPaths
from dspark_ops.paths import data_dir

BASELINE = data_dir("playbooks") / "roles/host_baseline/defaults/main.yml"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VmPaths:
    monkeypatch.setenv("DSPARK_LAB_DEBIAN_MIRROR", "http://mirror.invalid/debian")
    return VmPaths(state=tmp_path / "state", cache=tmp_path / "cache")


def test_the_key_is_steady_and_follows_archives_packages_files_and_trust(
    lab: VmPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [base_image.base_image(lab).key, base_image.base_image(lab).key]
    assert keys[0] == keys[1]
    with monkeypatch.context() as changed:
        changed.setenv("DSPARK_LAB_DEBIAN_MIRROR", "http://other.invalid/debian")
        keys.append(base_image.base_image(lab).key)
    with monkeypatch.context() as changed:
        changed.setattr(base_image, "VM_PACKAGES", (*base_image.VM_PACKAGES, "hello"))
        keys.append(base_image.base_image(lab).key)
    with monkeypatch.context() as changed:
        changed.setattr(base_image, "name_files", lambda: {"etc/systemd/network/10-x.link": "[Link]\n"})
        keys.append(base_image.base_image(lab).key)
    with monkeypatch.context() as changed:
        changed.setattr(base_image, "machine_certificates", lambda: {"machine-1.crt": "PEM"})
        keys.append(base_image.base_image(lab).key)
    with monkeypatch.context() as changed:
        changed.setattr(base_image, "_EARLY_FILES", {})
        keys.append(base_image.base_image(lab).key)
    assert len(set(keys)) == len(keys) - 1


def test_a_bootstrap_finds_every_package_of_the_baseline() -> None:
    import yaml

    wanted = yaml.safe_load(BASELINE.read_text(encoding="utf-8"))["host_baseline_packages"]
    assert set(wanted) <= set(base_image.VM_PACKAGES)


def test_a_failed_build_leaves_no_image_behind(lab: VmPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = lab.cache / "root.tar"
    tar.parent.mkdir(parents=True)
    tar.write_text("no tar at all")
    monkeypatch.setattr(base_image, "_ensure_root", lambda *_: tar)
    with pytest.raises(NoVerdictError, match="tar ended with"):
        base_image.ensure_base_image(lab, progress=lambda _: None)
    assert not base_image.base_image(lab).directory.exists()


def test_a_finished_image_is_used_as_it_is(lab: VmPaths) -> None:
    image = base_image.base_image(lab)
    image.directory.mkdir(parents=True)
    assert base_image.ensure_base_image(lab, progress=lambda _: None) == (image, False)


def test_early_files_are_in_the_root_before_the_packages_are_set_up(tmp_path: Path) -> None:
    (tmp_path / "early").mkdir()
    command = debian_root._mmdebstrap(Path("/t.tar"), ("hello",), suite="bookworm", work=tmp_path)
    assert any(word.startswith("--essential-hook=") for word in command)
    (tmp_path / "early").rmdir()
    command = debian_root._mmdebstrap(Path("/t.tar"), ("hello",), suite="bookworm", work=tmp_path)
    assert not any(word.startswith("--essential-hook=") for word in command)


def test_early_files_are_part_of_the_roots_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPARK_LAB_DEBIAN_MIRROR", "http://mirror.invalid/debian")
    plain = debian_root.debian_root_key(("hello",))
    assert debian_root.debian_root_key(("hello",), early_files={}) == plain
    assert debian_root.debian_root_key(("hello",), early_files={"etc/x": "1"}) != plain


def test_a_kernel_says_its_release_and_a_broken_one_nothing(tmp_path: Path) -> None:
    image = base_image.BaseImage("k", tmp_path)
    assert base_image.kernel_release(image) is None
    header = bytearray(os.urandom(0x200)) + bytearray(0x600)
    header[0x20E:0x210] = (0x300).to_bytes(2, "little")
    header[0x500:0x520] = b"6.1.0-56-amd64 (debian) #1 SMP\0\0"
    image.kernel.write_bytes(bytes(header))
    assert base_image.kernel_release(image) == "6.1.0-56-amd64"
