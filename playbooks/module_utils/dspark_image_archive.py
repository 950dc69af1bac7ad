"""`docker save` archives on a node: picking single layers out of one, and writing one with only some of its layers.

Both forms are read: `<id>/layer.tar` with `<image id>.json` (Engines up to 24) and `blobs/sha256/<digest>` (since 25).
A layer is known by its diff_id alone, the sha256 of its uncompressed tar: names inside an archive are not trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

CONFIG = "config"
_CHUNK = 4 << 20
_LEGACY_LAYER = re.compile(r"([0-9a-f]{64})/layer\.tar")
_LEGACY_JSON = re.compile(r"([0-9a-f]{64})/json")
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_HEX = re.compile(r"[0-9a-f]{64}")


class ArchiveError(Exception):
    """The archive does not hold what it should; the message says what."""


def hexadecimal(digest: str) -> str:
    """`sha256:<64 digits>` without its prefix."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or not _HEX.fullmatch(value):
        raise ArchiveError(f"expected sha256: and 64 hexadecimal digits, got {digest!r}")
    return value


def file_digest(path: Path) -> str:
    """The sha256 of a file, hexadecimal."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def pick(
    stream: IO[bytes], image: str, layers: Iterable[str], folder: Path, chain: Sequence[str] = ()
) -> dict[str, int]:
    """Put the configuration of `image` and the wanted layers of a streamed archive into `folder`; sizes by name.

    image, layers and chain (all layers of the image, lowest first) are hexadecimal digests; chain only saves the
    hashing of layers that nobody wants. Every file is complete under its name or not there. Reading ends as soon
    as all is found: the caller ends the writer of the stream.

    Raises:
        ArchiveError: something wanted is not in the archive, or the stream ended early.
    """
    wanted, found, unwanted = set(layers), dict[str, int](), set[str]()
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20) as archive:
            for member in archive:
                if not member.isfile():
                    continue
                name = member.name.removeprefix("./")
                if name in (f"{image}.json", f"blobs/sha256/{image}"):
                    _take(_opened(archive, member), folder, {image: CONFIG}, found)
                elif given := _LEGACY_JSON.fullmatch(name):
                    layer = _layer_of(given[1], _opened(archive, member).read(_CHUNK), chain)
                    if layer is not None and layer not in wanted:
                        unwanted.add(given[1])
                elif _may_hold(name, wanted - found.keys(), unwanted):
                    _take(_opened(archive, member), folder, {digest: digest for digest in wanted}, found)
                if found.keys() >= wanted | {CONFIG}:
                    return found
    except (tarfile.TarError, EOFError) as error:
        raise ArchiveError(f"the archive cannot be read: {error}") from error
    missing = sorted((wanted | {CONFIG}) - found.keys())
    raise ArchiveError(f"the archive does not hold {', '.join(missing)} of image {image}")


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = archive.extractfile(member)
    if source is None:
        raise ArchiveError(f"{member.name} is no file")
    return source


def _may_hold(name: str, wanted: Collection[str], unwanted: Collection[str]) -> bool:
    """A blob says in its name which layer it is; the older form does not, so that it is hashed unless it was found."""
    if blob := _BLOB.fullmatch(name):
        return blob[1] in wanted
    layer = _LEGACY_LAYER.fullmatch(name)
    return bool(wanted) and layer is not None and layer[1] not in unwanted


def _layer_of(identity: str, document: bytes, chain: Sequence[str]) -> str | None:
    """Which layer of the chain a directory of the older form holds; None when that cannot be told before its content.

    Its name is the sha256 of its own `json` with the layer's chain id in place of the name (moby, image/v1/imagev1.go).
    """
    try:
        known = {key: value for key, value in json.loads(document).items() if key not in ("id", "os")}
    except (ValueError, AttributeError):
        return None
    chain_id = ""
    for layer in chain:
        above = f"{chain_id} sha256:{layer}".encode()
        chain_id = "sha256:" + (hashlib.sha256(above).hexdigest() if chain_id else layer)
        named = {**known, "layer_id": chain_id}
        if "parent" in known:
            named["parent"] = f"sha256:{known['parent']}"
        text = json.dumps(dict(sorted(named.items())), separators=(",", ":"), ensure_ascii=False)
        if hashlib.sha256(text.encode()).hexdigest() == identity:
            return layer
    return None


def _take(source: IO[bytes], folder: Path, names: dict[str, str], found: dict[str, int]) -> None:
    """Copy and hash; keep the file under the name of its digest, or drop it when nobody wants that."""
    fresh, digest, size = folder / ".picking", hashlib.sha256(), 0
    try:
        with fresh.open("wb") as out:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
                size += len(chunk)
            out.flush()
            os.fsync(out.fileno())
        name = names.get(digest.hexdigest())
        if name is not None:
            fresh.replace(folder / name)
            found[name] = size
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()


def layers_of(config: bytes) -> tuple[str, ...]:
    """The diff_ids of an image configuration, lowest first, hexadecimal."""
    try:
        document: Any = json.loads(config)
        return tuple(hexadecimal(str(layer)) for layer in document["rootfs"]["diff_ids"])
    except (ValueError, LookupError, TypeError) as error:
        raise ArchiveError(f"the image configuration cannot be read: {error!r}") from error


def write_partial(out: IO[bytes], image: str, config: bytes, layers: dict[str, Path]) -> None:
    """Write an archive of `image` that holds only the given layers; the Engine takes the others from its own store.

    `docker load` looks into a layer's file only when its store lacks the layer's chain (moby, image/tarexport/load.go);
    where it does lack it and the file is not here, it fails and keeps nothing.
    """
    if hashlib.sha256(config).hexdigest() != image:
        raise ArchiveError(f"the configuration is not that of image {image}")
    chain = layers_of(config)
    manifest = [{"Config": f"{image}.json", "RepoTags": None, "Layers": [f"{layer}/layer.tar" for layer in chain]}]
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, data in (("manifest.json", json.dumps(manifest).encode()), (f"{image}.json", config)):
            _add(archive, name, len(data), io.BytesIO(data))
        for layer in _in_order(chain, layers):
            with layers[layer].open("rb") as source:
                _add(archive, f"{layer}/layer.tar", layers[layer].stat().st_size, source)


def _in_order(chain: Iterable[str], given: Collection[str]) -> Iterator[str]:
    return (layer for layer in dict.fromkeys(chain) if layer in given)


def _add(archive: tarfile.TarFile, name: str, size: int, source: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    archive.addfile(member, source)
