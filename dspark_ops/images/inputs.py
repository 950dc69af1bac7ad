"""Everything an image is made from, read once: the cache key, the tags and the build speak of the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dspark_ops.config.models import Profile
from dspark_ops.images.stages import Stage, load_stages
from dspark_ops.lab.debian_root import debian_root_key
from dspark_ops.paths import data_dir

#: overlay: the release's Python and its stages, without machine code and dependencies. It proves the overlay where 8 GB
#: of CUDA wheels are not wanted (another architecture under emulation); it cannot serve.
Contents = Literal["full", "overlay"]
#: Part of every key: raise it when the way an image is made changes in a way that no input shows.
RECIPE_VERSION = 2
_CHANGES = Path(__file__).parent / "changes"
#: An overlay's root runs the checks and no more.
OVERLAY_PACKAGES = ("python3",)


@dataclass(frozen=True)
class BuildInputs:
    """The files of one build by their place in its context, the locks by name, the stages in order."""

    profile: Profile
    contents: Contents
    files: dict[str, bytes]
    locks: dict[str, bytes]
    torch_lock: bytes | None
    stages: tuple[Stage, ...]

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages of the root."""
        return self.profile.image.base.packages if self.contents == "full" else OVERLAY_PACKAGES

    @property
    def debian_architecture(self) -> Literal["amd64", "arm64"]:
        return "arm64" if self.profile.architecture == "aarch64" else "amd64"

    @property
    def platform(self) -> str:
        return f"linux/{self.debian_architecture}"

    def root_key(self) -> str:
        """Twelve hex digits of what is asked of mmdebstrap."""
        base = debian_root_key(self.packages, suite=self.profile.image.base.suite)
        return _digest([base, self.debian_architecture])[:12]

    def packages_key(self) -> str:
        """Twelve hex digits of what pip unpacks and what of it is kept."""
        image = self.profile.image
        parts = [str(RECIPE_VERSION), self.contents, image.release.distribution, self.profile.architecture]
        return _digest([*parts, *image.prune, *_named(self.locks), *_named({"torch": self.torch_lock or b""})])[:12]

    def lock_hash(self, root_digest: str) -> str:
        """Twelve hex digits of all that lies below the stages; root_digest: sha256 of the Debian root tar."""
        parts = [str(RECIPE_VERSION), root_digest, self.packages_key(), *_named(self.files)]
        return _digest([*parts, repr(self.profile.image.release)])[:12]

    def key(self) -> str:
        """Twelve hex digits that change with any input: under this key the finished build is kept."""
        stages = [stage.digest for stage in self.stages]
        return _digest([self.root_key(), self.lock_hash(""), self.profile.image.repository, *stages])[:12]


def read_inputs(profile: Profile, contents: Contents = "full", *, images: Path | None = None) -> BuildInputs:
    """The inputs of the profile's image in this installation (or below `images`).

    Raises:
        ConfigError: a stage is missing or malformed.
    """
    source = images or data_dir("images")
    files = {
        **_tree(source / profile.image.recipe, "recipe"),
        **_tree(source / "build", "build"),
        **_tree(source / "verify", "dspark/verify"),
        **_tree(_CHANGES, "dspark/changes"),
    }
    torch_lock = profile.image.torch_lock
    return BuildInputs(
        profile=profile,
        contents=contents,
        files=files,
        locks={name: (source / name).read_bytes() for name in profile.image.locks},
        torch_lock=(source / torch_lock).read_bytes() if torch_lock else None,
        stages=load_stages(profile.image.lane, directory=source / "stages"),
    )


def _tree(source: Path, prefix: str) -> dict[str, bytes]:
    """A directory's files; not what only people and maintainers read, nor what Python leaves behind."""
    return {
        f"{prefix}/{path.relative_to(source).as_posix()}": path.read_bytes()
        for path in sorted(source.rglob("*"))
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.suffix not in (".md", ".lock")
        and path.name != "lock.py"
    }


def _named(files: dict[str, bytes]) -> list[str]:
    return [f"{name}={hashlib.sha256(content).hexdigest()}" for name, content in sorted(files.items())]


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
