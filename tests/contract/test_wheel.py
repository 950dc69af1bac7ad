"""What `pipx install` gives: the wheel carries its data, and the tool runs from it away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dspark_ops", *words],
        cwd=site,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    "path",
    [
        "playbooks/deploy.yml",
        "playbooks/bootstrap.yml",
        "playbooks/roles/fabric/tasks/apply.yml",
        "playbooks/library/dspark_container.py",
        "templates/sysctl_dspark.conf.j2",
        "checks/fabric.yml",
        "images/profiles/rehearsal.yml",
        "images/rehearsal/requirements.lock",
        "images/node/Dockerfile",
        "images/node-vm/customise.sh",
        "playbooks/fabric.yml",
        "inventories/example/site.yml",
    ],
)
def test_the_wheel_carries_its_data(unpacked: Path, path: str) -> None:
    assert (unpacked / "dspark_ops" / "data" / path).is_file()


def test_the_tool_finds_its_data_in_the_wheel(unpacked: Path) -> None:
    example = unpacked / "dspark_ops" / "data" / "inventories" / "example" / "site.yml"
    done = run(unpacked, "validate", "--site", str(example))
    assert done.returncode == 0, done.stderr
    listed = run(unpacked, "doctor", "--list-checks")
    assert listed.returncode == 0, listed.stderr
    assert "fabric.mtu" in listed.stdout
    where = subprocess.run(
        [sys.executable, "-c", "import dspark_ops; print(dspark_ops.__file__)"],
        cwd=unpacked,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert where.stdout.startswith(str(unpacked)), "the test ran the checkout, not the wheel"
