"""What takes minutes: the same image twice from nothing, and a build on a node. Run by `make soak`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dspark_ops.config.load import load_profile
from dspark_ops.images.build import ensure_image, read_inputs
from dspark_ops.images.builds import BuiltImage
from dspark_ops.images.docker_cli import DockerCli
from dspark_ops.images.produce import image_cache, local_docker
from tests.lab.operator_cli import Operator

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(1800)]


def _from_nothing(docker: DockerCli, cache: Path) -> BuiltImage:
    docker.run("builder", "prune", "--all", "--force", timeout_s=300)
    return ensure_image(load_profile("rehearsal"), lambda: docker, cache, progress=print)


def test_two_builds_without_any_cache_are_the_same_to_the_byte(operator: Operator, tmp_path: Path) -> None:
    """The Debian root, pip's packages, every layer and the archive, made twice."""
    assert operator.site.is_file()  # the lab's Engine runs
    docker = local_docker(None)
    first, second = (_from_nothing(docker, tmp_path / run) for run in ("one", "two"))
    assert first.record == second.record
    assert first.archive.read_bytes() == second.archive.read_bytes()


def test_a_node_builds_on_its_own_engine(operator: Operator) -> None:
    """`--on head`: the docker client over SSH with the site's configuration, sudo on the node."""
    words = ("image", "build", "rehearsal", "--overlay", "--on", "head", "--json", "--site", str(operator.site))
    done = subprocess.run(
        [sys.executable, "-m", "dspark_ops", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=1200,
        check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(operator.site.parent / "cache")},
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verification"]["exit_code"] == 0
    identity = operator.on(
        "head", "docker", "image", "inspect", "--format", "'{{.Id}}'", document["image"]["reference"]
    )
    assert identity.strip() == document["image"]["image_id"]
    assert read_inputs(load_profile("rehearsal"), "overlay").key() == document["image"]["key"]
    assert image_cache().is_dir()
