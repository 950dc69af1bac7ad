"""`image build` as a CI uses it: one command builds and looks inside, also for the other architecture."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.images.produce import local_docker
from tests.release.conftest import EnginePython

pytestmark = [pytest.mark.release, pytest.mark.timeout(900)]


def _build(*words: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "dspark_ops", "image", "build", *words, "--json"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=900,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def _status(document: dict[str, Any]) -> dict[str, str]:
    return {finding["id"]: finding["status"] for finding in document["verification"]["findings"]}


def test_the_rehearsals_image_is_built_and_proves_itself(engine_python: EnginePython) -> None:
    code, document, said = _build("rehearsal")
    assert code == 0, said
    assert _status(document) == dict.fromkeys(
        ("image.present", "image.base", "image.stages", "image.files", "image.engine", "image.plugin"), "ok"
    )
    code, again, said = _build("rehearsal", "--no-verify")
    assert code == 0, said
    assert not again["built"]
    assert again["image"] == document["image"]


@pytest.mark.soak
@pytest.mark.skipif(platform.machine() != "x86_64", reason="an aarch64 machine builds this without emulation")
def test_the_aarch64_image_is_built_under_emulation_up_to_the_look_inside(
    engine_python: EnginePython, tmp_path: Path
) -> None:
    """Release, stages and files of the real aarch64 wheel, checked by the image's own aarch64 Python."""
    archive = tmp_path / "image.tar"
    code, document, said = _build("current", "--overlay", "--output", str(archive), "--install-prerequisites")
    assert code == 0, said
    record = document["image"]
    assert (record["platform"], record["contents"], record["vllm"]) == ("linux/arm64", "overlay", "0.32.0")
    # An overlay holds no dependencies: it is a warning that it cannot serve, and the engine is not asked.
    assert _status(document) == {
        "image.present": "ok",
        "image.base": "warn",
        "image.stages": "ok",
        "image.files": "ok",
    }
    docker = local_docker(None)
    machine = docker.run("run", "--rm", "--network=none", "--entrypoint=uname", record["image_id"], "-m", timeout_s=120)
    assert machine.strip() == "aarch64"
    # The second of the two commands that docs/ci-image-builds.md gives to other projects.
    words = ("image", "verify", "current", "--archive", str(archive), "--json")
    seen = subprocess.run(
        [sys.executable, "-m", "dspark_ops", *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert seen.returncode == 0, seen.stdout + seen.stderr
    assert {f["id"]: f["status"] for f in json.loads(seen.stdout)["findings"]} == _status(document)
