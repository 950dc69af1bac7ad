"""The image as its inputs make it, and nothing of the hour: one date, plain owners, a configuration of our own writing.

An Engine stamps what it builds with the time, in every directory entry and in the configuration, so the same inputs
give another digest each time. Here a `docker save` archive is written anew: files newer than one fixed date get that
date, owners have numbers only, and of the configuration stays what a container is started with. What is left to differ
between two builds is the content of files.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from dspark_ops.errors import NoVerdictError

#: 2023-11-14T22:13:20Z. Older files keep their own date.
EPOCH = 1_700_000_000
EPOCH_TEXT = "2023-11-14T22:13:20Z"
_CHUNK = 1 << 20
#: What a container is started with; anything else in a configuration tells of the build.
_STARTED_WITH = ("Env", "Entrypoint", "Cmd", "WorkingDir", "User", "ExposedPorts", "Volumes", "StopSignal")
_XATTR = "SCHILY.xattr."


@dataclass(frozen=True)
class NormalImage:
    """One image of the new archive. layers: diff_ids, lowest first; layer_bytes: their sizes in that order."""

    reference: str
    image_id: str
    layers: tuple[str, ...]
    layer_bytes: tuple[int, ...]


@dataclass(frozen=True)
class _Layer:
    diff_id: str
    blob: Path

    @property
    def name(self) -> str:
        return f"{self.diff_id.removeprefix('sha256:')}.tar"


Labels = Callable[[str, Mapping[str, bytes]], Mapping[str, str]]


def normalise_archive(
    source: Path,
    target: Path,
    *,
    labels: Labels,
    history: tuple[str, ...],
    capture: frozenset[str] = frozenset(),
    rename: Callable[[str], str] = str,
) -> tuple[NormalImage, ...]:
    """Write the images of the `docker save` archive `source` to `target`, which appears complete or not at all.

    labels: asked per reference, with the content of the files in `capture` (paths without a leading slash, the highest
    layer of the archive's first image that has one); what it answers are all labels of that image. history: what made
    each layer, lowest first. rename: the reference that an image shall bear from now on.

    Raises:
        NoVerdictError: the archive is not what `docker save` writes.
    """
    scratch = target.with_name(f".{target.name}.layers")
    partial = target.with_name(f".{target.name}.partial")
    scratch.mkdir()
    try:
        with tarfile.open(source, "r:") as archive:
            entries = _read_json(archive, "manifest.json")
            captured: dict[str, bytes] = {}
            done: dict[str, _Layer] = {}
            images, files = [], {}
            for entry in entries:
                layers = []
                for path in entry["Layers"]:
                    member = _resolve(archive, path)
                    if member.name not in done:
                        content = archive.extractfile(member)
                        if content is None:
                            raise ValueError(f"{path} is not a file")
                        done[member.name] = _rewrite(content, scratch, capture, captured)
                    layers.append(done[member.name])
                old = _read_json(archive, entry["Config"])
                for reference in entry["RepoTags"] or ():
                    config = _config(old, layers, labels(reference, captured), history)
                    digest = hashlib.sha256(config).hexdigest()
                    files[f"{digest}.json"] = config
                    sizes = tuple(layer.blob.stat().st_size for layer in layers)
                    diff_ids = tuple(layer.diff_id for layer in layers)
                    images.append(NormalImage(rename(reference), f"sha256:{digest}", diff_ids, sizes))
        _write_archive(partial, images, files, {layer.diff_id: layer for layer in done.values()})
        partial.replace(target)
    except (tarfile.TarError, KeyError, TypeError, ValueError) as trouble:
        raise NoVerdictError(f"{source} is not an archive as `docker save` writes it: {trouble!r}") from trouble
    finally:
        partial.unlink(missing_ok=True)
        for blob in scratch.iterdir():
            blob.unlink()
        scratch.rmdir()
    return tuple(images)


def normalise_layer(source: Path, target: Path) -> str:
    """Write the tar `source` anew as a layer of ours: its diff_id, which is the layer's in every image on it.

    Raises:
        NoVerdictError: the source is no tar.
    """
    scratch = target.with_name(f".{target.name}.layers")
    scratch.mkdir()
    try:
        with source.open("rb") as content:
            layer = _rewrite(content, scratch, frozenset(), {})
        layer.blob.replace(target)
    except tarfile.TarError as trouble:
        raise NoVerdictError(f"{source} is not a tar: {trouble}") from trouble
    finally:
        for blob in scratch.iterdir():
            blob.unlink()
        scratch.rmdir()
    return layer.diff_id


def image_of_layer(layer: Path, diff_id: str, target: Path, *, reference: str, architecture: str, label: str) -> None:
    """An archive of one image that is one layer. `docker import` gives every image the Engine's own architecture."""
    name, _, value = label.partition("=")
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": EPOCH_TEXT,
        "config": {"Labels": {name: value}},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": EPOCH_TEXT, "created_by": "dspark-ops image build: root"}],
    }
    raw = json.dumps(config, separators=(",", ":"), sort_keys=True).encode()
    image = NormalImage(reference, f"sha256:{hashlib.sha256(raw).hexdigest()}", (diff_id,), (layer.stat().st_size,))
    files = {f"{image.image_id.removeprefix('sha256:')}.json": raw}
    _write_archive(target, [image], files, {diff_id: _Layer(diff_id, layer)})


def _read_json(archive: tarfile.TarFile, name: str) -> Any:
    content = archive.extractfile(_resolve(archive, name))
    if content is None:
        raise ValueError(f"{name} is not a file")
    return json.load(content)


def _resolve(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    """A file of the archive; older Engines write a layer that two images share as a link to the first one's."""
    member = archive.getmember(name)
    for _ in range(4):
        if member.isreg():
            return member
        if member.issym():
            parts: list[str] = []
            for part in [*member.name.split("/")[:-1], *member.linkname.split("/")]:
                if part == "..":
                    parts.pop()
                elif part not in ("", "."):
                    parts.append(part)
            member = archive.getmember("/".join(parts))
        elif member.islnk():
            member = archive.getmember(member.linkname)
    raise ValueError(f"{name} leads nowhere")


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._length = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self._length += len(data)
        return self._out.write(data)

    def tell(self) -> int:
        return self._length


def _rewrite(content: IO[bytes], scratch: Path, capture: frozenset[str], captured: dict[str, bytes]) -> _Layer:
    fresh = scratch / "next"
    with fresh.open("wb", buffering=_CHUNK) as out:
        hashed = _Hashed(out)
        with (
            tarfile.open(fileobj=content, mode="r|", bufsize=_CHUNK) as old,
            tarfile.open(fileobj=cast("IO[bytes]", hashed), mode="w", format=tarfile.PAX_FORMAT) as new,
        ):
            for entry in old:
                _plain(entry)
                body = old.extractfile(entry) if entry.isreg() else None
                if body is not None and entry.name in capture:
                    captured[entry.name] = body.read()
                    new.addfile(entry, io.BytesIO(captured[entry.name]))
                else:
                    new.addfile(entry, body)
    diff_id = f"sha256:{hashed.digest.hexdigest()}"
    return _Layer(diff_id, fresh.rename(scratch / f"{hashed.digest.hexdigest()}.tar"))


def _plain(entry: tarfile.TarInfo) -> None:
    entry.mtime = min(int(entry.mtime), EPOCH)
    entry.uname = entry.gname = ""
    entry.pax_headers = {k: v for k, v in sorted(entry.pax_headers.items()) if k.startswith(_XATTR)}


def _config(old: Mapping[str, Any], layers: list[_Layer], labels: Mapping[str, str], history: tuple[str, ...]) -> bytes:
    started_with = {name: old["config"][name] for name in _STARTED_WITH if old["config"].get(name)}
    config = {
        "architecture": old["architecture"],
        **({"variant": old["variant"]} if old.get("variant") else {}),
        "os": old["os"],
        "created": EPOCH_TEXT,
        "config": {**started_with, "Labels": dict(sorted(labels.items()))},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [
            {"created": EPOCH_TEXT, "created_by": f"dspark-ops image build: {what}"}
            for what in _padded(history, len(layers))
        ],
    }
    return json.dumps(config, separators=(",", ":"), sort_keys=True).encode()


def _padded(history: tuple[str, ...], count: int) -> tuple[str, ...]:
    if count > len(history):
        raise ValueError(f"{count} layers, of which only {len(history)} are accounted for")
    return history[:count]


def _write_archive(
    target: Path, images: list[NormalImage], files: Mapping[str, bytes], layers: Mapping[str, _Layer]
) -> None:
    manifest = [
        {
            "Config": f"{image.image_id.removeprefix('sha256:')}.json",
            "RepoTags": [image.reference],
            "Layers": [layers[diff_id].name for diff_id in image.layers],
        }
        # `docker save` tells images in any order.
        for image in sorted(images, key=lambda image: (len(image.layers), image.reference))
    ]
    small = {**files, "manifest.json": json.dumps(manifest, separators=(",", ":")).encode()}
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as out:
        for name, content in sorted(small.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), EPOCH, 0o644
            out.addfile(entry, io.BytesIO(content))
        for layer in sorted(layers.values(), key=lambda layer: layer.name):
            entry = tarfile.TarInfo(layer.name)
            entry.size, entry.mtime, entry.mode = layer.blob.stat().st_size, EPOCH, 0o644
            with layer.blob.open("rb") as body:
                out.addfile(entry, body)
