"""The engine image of the rehearsal pair: vLLM's CPU build and tiny models on a Debian root, kept as a tar."""

from __future__ import annotations

import fcntl
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.images import image_build
from dspark_ops.images.wheels import install_wheels
from dspark_ops.paths import data_dir

if TYPE_CHECKING:
    import docker

REPOSITORY = "dspark-engine-rehearsal"
#: Everything the build takes from images/rehearsal; each is part of the key.
INPUTS = (
    "Dockerfile",
    "chains.py",
    "chat_template.jinja",
    "finish.py",
    "make_models.py",
    "requirements-torch.lock",
    "requirements.lock",
)
SUITE = "bookworm"
#: binutils: strip, and what Python asks to find a shared library by name. libnuma1: vLLM's kernels load it.
ROOT_PACKAGES = ("binutils", "ca-certificates", "libgomp1", "libnuma1", "libstdc++6", "python3")
#: Unpacked, but of no use where vLLM serves text: torch's tests, headers and tools, tokenizers and names of countries.
PRUNED = (
    "bin",
    "share",
    "mistral_common/data",
    "pycountry/locales",
    "torch/include",
    "torch/test",
    "torch/bin/protoc*",
    "torch/bin/test_*",
)
#: Part of the key: raise it when the build changes in a way that no input shows.
_RECIPE_VERSION = 1
_KEPT_BUILDS = 2
#: Measured with cache and Engine on one file system: 7 GiB at the peak, 1.4 GiB when done.
_NEEDED_GIB = 8


@dataclass(frozen=True)
class EngineImage:
    """An image as `docker load` takes it; `size_bytes` is the archive's."""

    reference: str
    image_id: str
    archive: Path
    size_bytes: int
    key: str


def ensure_engine_image(
    client_factory: Callable[[], docker.DockerClient], cache: Path, *, progress: Callable[[str], None]
) -> EngineImage:
    """The engine image for this installation's inputs; built when the cache lacks it.

    The warm path reads one small file and calls no Docker. A build takes root (mmdebstrap), pip and a Docker Engine on
    this machine; what an interrupted one finished is used by the next. Builds of one cache exclude each other.
    """
    if platform.machine() != "x86_64":
        raise ConfigError(
            f"the rehearsal's engine is an x86_64 build and this machine is {platform.machine()}",
            hint="run the rehearsal pair on an x86_64 machine, or the lab without the engine (--no-engine)",
        )
    found = cached_engine_image(cache)
    if found is not None:
        return found
    inputs = read_inputs(data_dir("images") / "rehearsal")
    key = engine_key(inputs)
    engines = cache / "engine"
    _require_space(engines)
    engines.mkdir(parents=True, exist_ok=True)
    with _only_one_build(engines / ".lock", progress):
        found = _cached(engines / key, key)
        if found is None:
            found = _build(client_factory, engines, inputs, key, progress)
        _drop_old_builds(engines, key)
    return found


def cached_engine_image(cache: Path) -> EngineImage | None:
    """The finished image of this installation's inputs in the cache; None when it is not built. Never builds."""
    key = engine_key(read_inputs(data_dir("images") / "rehearsal"))
    return _cached(cache / "engine" / key, key)


def read_inputs(source: Path) -> dict[str, bytes]:
    """The files that make the image, read once: the key and the build speak of the same bytes."""
    return {name: (source / name).read_bytes() for name in INPUTS}


def engine_key(inputs: Mapping[str, bytes]) -> str:
    """Twelve hex digits that change with any input of the image."""
    recipe = (_RECIPE_VERSION, SUITE, ROOT_PACKAGES, PRUNED)
    return sha256(repr((recipe, sorted(inputs.items()))).encode()).hexdigest()[:12]


def _cached(directory: Path, key: str) -> EngineImage | None:
    """The finished build in `directory`; None when it is absent, unreadable, or not what its metadata says."""
    archive = directory / "image.tar"
    try:
        about = json.loads((directory / "image.json").read_text(encoding="utf-8"))
        image = EngineImage(
            reference=_text(about["reference"]),
            image_id=_text(about["image_id"]),
            archive=archive,
            size_bytes=archive.stat().st_size,
            key=_text(about["key"]),
        )
        whole = about["size_bytes"] == image.size_bytes and image.key == key
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return image if whole and image.image_id.startswith("sha256:") else None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, not {type(value).__name__}")
    return value


def _build(
    client_factory: Callable[[], docker.DockerClient],
    engines: Path,
    inputs: Mapping[str, bytes],
    key: str,
    progress: Callable[[str], None],
) -> EngineImage:
    from dspark_ops.lab.debian_root import build_debian_root

    stage = engines / ".stage"
    root_key = sha256(repr((SUITE, ROOT_PACKAGES)).encode()).hexdigest()[:12]
    root = stage / f"root-{root_key}.tar"
    packages = stage / f"packages-{_packages_key(inputs)}.tar"
    _clear(stage, keep={root.name, packages.name})
    stage.mkdir(exist_ok=True)
    client = image_build.connect(client_factory)
    try:
        _require_space(Path(str(client.info().get("DockerRootDir", stage))))
        if not packages.exists():
            progress("engine: Python packages (pip: vLLM's CPU build and torch)")
            _make_packages(inputs, packages, log=stage / "pip.log")
        if not root.exists():
            progress("engine: Debian root")
            unproven = Path(tempfile.mkdtemp(prefix="root-", dir=stage)) / root.name
            build_debian_root(unproven, ROOT_PACKAGES, log=stage / "root.log", suite=SUITE)
            unproven.rename(root)
        progress("engine: image (strip, byte-compile, models)")
        reference = f"{REPOSITORY}:{key}"
        context = {name: content for name, content in inputs.items() if not name.endswith(".lock")}
        image_id = image_build.build_image(
            client,
            root=root,
            root_reference=f"dspark-engine-root:{root_key}",
            context=image_build.context_stream(context, packages),
            reference=reference,
            arguments={"LOCK": key},
            log=stage / "build.log",
        )
        progress("engine: archive")
        ready = stage / "ready"
        ready.mkdir()
        image_build.save_image(client, reference, ready / "image.tar")
        image_build.remove_traces(client, reference, f"dspark-engine-root:{root_key}")
    finally:
        client.close()
    final = engines / key
    size = (ready / "image.tar").stat().st_size
    image = EngineImage(reference, image_id, final / "image.tar", size, key)
    about = {name: value for name, value in asdict(image).items() if name != "archive"}
    (ready / "image.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    if final.exists():
        shutil.rmtree(final)
    ready.rename(final)
    shutil.rmtree(stage, ignore_errors=True)
    return image


def _packages_key(inputs: Mapping[str, bytes]) -> str:
    locks = sorted(item for item in inputs.items() if item[0].endswith(".lock"))
    return sha256(repr((_RECIPE_VERSION, PRUNED, locks)).encode()).hexdigest()[:12]


def _make_packages(inputs: Mapping[str, bytes], tar: Path, *, log: Path) -> None:
    # A name of its own: the pip of a killed run may still be at work on the last one's.
    work = Path(tempfile.mkdtemp(prefix="packages-", dir=tar.parent))
    site, locks = work / "site", work / "locks"
    locks.mkdir()
    for name in ("requirements.lock", "requirements-torch.lock"):
        (locks / name).write_bytes(inputs[name])
    install_wheels(locks / "requirements.lock", locks / "requirements-torch.lock", site, log=log)
    for pattern in PRUNED:
        for path in site.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    image_build.pack_tree(site, tar, prefix="site")
    shutil.rmtree(work)


def _clear(stage: Path, *, keep: set[str]) -> None:
    """Remove what an interrupted build left half-done, or a build of other inputs left at all."""
    for path in list(stage.iterdir()) if stage.is_dir() else []:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # a killed run's pip may still write there
        elif path.name not in keep:
            path.unlink()


def _require_space(place: Path) -> None:
    while not place.exists() and place != place.parent:
        place = place.parent
    free_gib = shutil.disk_usage(place).free / 2**30
    if free_gib < _NEEDED_GIB:
        raise ConfigError(
            f"building the engine image needs {_NEEDED_GIB} GiB and {place} has {free_gib:.1f} GiB free",
            hint="free some space, or set XDG_CACHE_HOME to a larger file system",
        )


def _drop_old_builds(engines: Path, key: str) -> None:
    """Keep this build and the newest other one."""
    others = [path for path in engines.iterdir() if path.is_dir() and not path.name.startswith(".")]
    others = sorted((p for p in others if p.name != key), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in others[_KEPT_BUILDS - 1 :]:
        shutil.rmtree(path)


@contextmanager
def _only_one_build(lock: Path, progress: Callable[[str], None]) -> Iterator[None]:
    with lock.open("w", encoding="ascii") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("engine: another build is under way; waiting for it")
            try:
                fcntl.flock(held, fcntl.LOCK_EX)
            except OSError as refused:
                raise NoVerdictError(f"could not wait for the other build: {refused}") from refused
        yield
