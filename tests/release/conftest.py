"""Release tests: a release's own Python tree, run by the engine image's Python (torch on a CPU), with no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest

from dspark_ops.config.load import load_profile
from dspark_ops.images.build import cached_image, finished_builds
from dspark_ops.images.produce import image_cache
from dspark_ops.lab.engine_host import DockerHost, ensure_docker
from dspark_ops.paths import state_dir

#: Names another engine image of this machine's Docker Engine for these tests.
IMAGE_VARIABLE = "DSPARK_RELEASE_TEST_IMAGE"


class EnginePython(Protocol):
    """Runs a script text in a container; the trees come first on its PYTHONPATH, in the order given."""

    def __call__(
        self,
        tree_dirs: Sequence[Path],
        script_text: str,
        *args: str,
        timeout_s: float = 300,
        environment: dict[str, str] | None = None,
        readable: Sequence[Path] = (),
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session")
def engine_python() -> EnginePython:
    """`engine_python([tree, ...], script, *args)`; `readable` paths are mounted where they lie, read-only.

    Skips where this machine has no Docker Engine, no docker program or no engine image: it builds none.
    """
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("the docker program is not installed")
    host = ensure_docker(state_dir() / "lab")
    image = _loaded_image(docker, host)
    base = [docker, "--host", f"unix://{host.socket}", "run", "--rm", "--interactive", "--network", "none"]

    def run(
        tree_dirs: Sequence[Path],
        script_text: str,
        *args: str,
        timeout_s: float = 300,
        environment: dict[str, str] | None = None,
        readable: Sequence[Path] = (),
    ) -> subprocess.CompletedProcess[str]:
        mounts = [(tree.resolve(), f"/trees/{number}") for number, tree in enumerate(tree_dirs)]
        path = ":".join(where for _, where in mounts)
        mounts += [(place.resolve(), str(place.resolve())) for place in readable]
        command = list(base)
        for source, target in mounts:
            command += ["--volume", f"{source}:{target}:ro"]
        variables = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
        command += [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
        name = f"dspark-release-test-{os.getpid()}-{time.monotonic_ns()}"
        command += ["--name", name, image, "python3", "-", *args]
        try:
            return subprocess.run(
                command, input=script_text, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            # Ending the docker program leaves the container at work.
            subprocess.run([*base[:3], "rm", "--force", name], capture_output=True, check=False)
            raise

    return run


def _loaded_image(docker: str, host: DockerHost) -> str:
    """The reference of an engine image in the Engine; loaded from the lab's cache when it is not there."""
    reference, archive = _engine_image()
    program = [docker, "--host", f"unix://{host.socket}"]
    present = subprocess.run([*program, "image", "inspect", reference], capture_output=True, check=False)
    if present.returncode == 0:
        return reference
    if archive is None:
        pytest.skip(f"the Docker Engine has no image {reference}")
    loaded = subprocess.run([*program, "load", "--input", str(archive)], capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, f"docker load {archive}: {loaded.stderr}"
    return reference


def _engine_image() -> tuple[str, Path | None]:
    """The image named by the environment, this checkout's, or the newest finished one: only its torch is wanted."""
    named = os.environ.get(IMAGE_VARIABLE)
    if named:
        return named, None
    image = cached_image(load_profile("rehearsal"), image_cache())
    full = [built for built in finished_builds(image_cache()) if built.record.profile == "rehearsal"]
    found = image or next((built for built in full if built.record.contents == "full"), None)
    if found is None:
        pytest.skip("no engine image in the cache: `dspark-ops lab up` builds one")
    return found.reference, found.archive
