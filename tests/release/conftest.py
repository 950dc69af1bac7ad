"""Release tests: a release's own Python tree, run by the engine image's Python (torch on a CPU), with no network."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest

from dspark_ops.config.load import load_profile
from dspark_ops.images.build import ensure_image
from dspark_ops.images.docker_cli import find_docker_cli
from dspark_ops.images.produce import image_cache, load_built
from dspark_ops.lab.engine_host import ensure_docker
from dspark_ops.paths import state_dir


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

    The rehearsal's image is built and loaded where that was not done yet: only its torch and Python are wanted.
    """
    host = ensure_docker(state_dir() / "lab")
    docker = find_docker_cli(f"unix://{host.socket}")
    image = ensure_image(load_profile("rehearsal"), lambda: docker, image_cache(), progress=print)
    load_built(docker, image, print)
    base = [docker.program, "--host", f"unix://{host.socket}", "run", "--rm", "--interactive", "--network", "none"]

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
        command += ["--name", name, image.image_id, "python3", "-", *args]
        try:
            return subprocess.run(
                command, input=script_text, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            # Ending the docker program leaves the container at work.
            subprocess.run([*base[:3], "rm", "--force", name], capture_output=True, check=False)
            raise

    return run
