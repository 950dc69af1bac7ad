"""What `image build` does around the build: which Engine, what the machine lacks, loading, looking, writing out."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dspark_ops.config.load import load_profile
from dspark_ops.config.models import Profile, Role
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.images.build import cached_image, ensure_image
from dspark_ops.images.builds import BuiltImage
from dspark_ops.images.docker_cli import DockerCli, find_docker_cli
from dspark_ops.images.inputs import Contents
from dspark_ops.images.verify import verify_local
from dspark_ops.paths import cache_dir
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress


@dataclass(frozen=True)
class BuildRequest:
    """What was asked for. on: a node of the site, whose Engine builds. engine: another one, as DOCKER_HOST has it."""

    profile: str
    contents: Contents = "full"
    output: Path | None = None
    on: str | None = None
    site: Path | None = None
    engine: str | None = None
    verify: bool = True
    install_prerequisites: bool = False


@dataclass(frozen=True)
class Produced:
    """The image, whether it had to be built, and what was seen inside it (None: not looked)."""

    image: BuiltImage
    built: bool
    loaded: bool
    verification: Report | None
    output: Path | None

    @property
    def exit_code(self) -> int:
        return self.verification.exit_code if self.verification is not None else int(ExitCode.OK)


def image_cache() -> Path:
    """Where finished builds are kept."""
    return cache_dir() / "images"


def produce(request: BuildRequest, *, progress: Progress) -> Produced:
    """Build (or find) the image, load it into the Engine, look into it, write it out.

    Raises:
        ConfigError: the request does not fit this machine.
        RefusedError: the base is not the release that the profile names.
        NoVerdictError: no Engine, or a step failed.
    """
    profile = load_profile(request.profile)
    if request.install_prerequisites:
        _install(profile, progress)
    with _engine(request) as docker:
        built = cached_image(profile, image_cache(), request.contents) is None
        image = ensure_image(profile, lambda: docker, image_cache(), progress=progress, contents=request.contents)
        loaded = False
        verification = None
        if request.verify or request.on is not None:
            loaded = load_built(docker, image, progress)
        if request.verify:
            verification = verify_local(profile, image.reference, docker, progress)
    if request.output is not None:
        _write_out(image, request.output, progress)
    return Produced(image, built, loaded, verification, request.output)


def load_built(docker: DockerCli, image: BuiltImage, progress: Progress) -> bool:
    """Load the archive where the Engine lacks the image or its name; whether it had to.

    Raises:
        NoVerdictError: the Engine did not take it, or took something else.
    """
    found = docker.image(image.reference)
    if found is not None and found.get("Id") == image.image_id:
        return False
    progress(f"image: loading {image.reference} ({image.archive.stat().st_size >> 20} MiB)")
    docker.run("load", "--quiet", "--input", str(image.archive), timeout_s=3600)
    found = docker.image(image.reference)
    if found is None or found.get("Id") != image.image_id:
        raise NoVerdictError(
            f"the Engine loaded {image.reference} as {found.get('Id') if found else 'nothing'}, expected "
            f"{image.image_id}",
            hint="an Engine with the containerd image store gives other ids; the overlay2 store is expected",
        )
    return True


def load_archive(docker: DockerCli, archive: Path | None, progress: Progress) -> str:
    """Load a `docker save` file; the name of its topmost image.

    Raises:
        ConfigError: there is no such file, or it is another kind of file.
    """
    if archive is None or not archive.is_file():
        raise ConfigError(f"the image archive {archive} does not exist", hint="`dspark-ops image build … --output`")
    reference = topmost_image(archive)
    progress(f"image: loading {archive.name} ({archive.stat().st_size >> 20} MiB)")
    docker.run("load", "--quiet", "--input", str(archive), timeout_s=3600)
    return reference


def topmost_image(archive: Path) -> str:
    """The name of the archive's image with the most layers: the last stage. `docker load` tells them in any order.

    Raises:
        ConfigError: the file is no `docker save` archive, or no image in it has a name.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            content = tar.extractfile("manifest.json")
            entries = json.load(content) if content is not None else []
        named = [(len(entry["Layers"]), entry["RepoTags"][-1]) for entry in entries if entry["RepoTags"]]
    except (tarfile.TarError, KeyError, TypeError, ValueError) as trouble:
        raise ConfigError(f"{archive} is not an archive as `docker save` writes it: {trouble!r}") from trouble
    if not named:
        raise ConfigError(f"{archive} holds no image with a name", hint="`docker save NAME:TAG`, with the name")
    return str(max(named)[1])


def local_docker(host: str | None) -> DockerCli:
    """The docker client and the Engine: the one named, DOCKER_HOST's, the lab's own, or the machine's."""
    if host is None and "DOCKER_HOST" not in os.environ:
        from dspark_ops.lab.engine_host import find_docker
        from dspark_ops.lab.layout import lab_paths

        found = find_docker(lab_paths().state)
        host = f"unix://{found.socket}" if found is not None else None
    return find_docker_cli(host)


@contextmanager
def _engine(request: BuildRequest) -> Iterator[DockerCli]:
    if request.on is None:
        yield local_docker(request.engine)
        return
    if request.engine is not None:
        raise ConfigError("--on and --engine both name an Engine", hint="give one of them")
    if request.on not in ("head", "worker"):
        raise ConfigError(f"--on {request.on}: expected head or worker")
    from dspark_ops.config.load import load_site
    from dspark_ops.images.node_engine import node_docker

    if request.site is None:
        raise ConfigError("--on needs a site: it names the node")
    role: Role = "head" if request.on == "head" else "worker"
    with node_docker(load_site(request.site).site, role) as docker:
        yield docker


def _install(profile: Profile, progress: Progress) -> None:
    from dspark_ops.images.emulation import ensure_emulation
    from dspark_ops.lab.prerequisites import FOR_ROOTS, ensure_all

    ensure_all(FOR_ROOTS, install=True, verb="dspark-ops image build", progress=progress)
    ensure_emulation(profile.architecture, install_prerequisites=True, progress=progress)


def _write_out(image: BuiltImage, output: Path, progress: Progress) -> None:
    progress(f"image: writing {output}")
    partial = output.with_name(f".{output.name}.partial")
    try:
        shutil.copyfile(image.archive, partial)
        partial.replace(output)
    except OSError as trouble:
        partial.unlink(missing_ok=True)
        raise NoVerdictError(f"{output} could not be written: {trouble}") from trouble
