"""Images from tars through the Docker Engine's own API: a root, a streamed build context, an archive. No registry."""

from __future__ import annotations

import io
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from dspark_ops.errors import NoVerdictError

if TYPE_CHECKING:
    import docker

#: Labels of what a build may leave without a name: its stages, and an earlier image whose name the new one took.
NAMELESS_LABELS = ("io.dspark-ops.image=engine-stage", "io.dspark-ops.image=engine")
_CHUNK = 1 << 20
#: One date for all files, so that the same packages give the same layer.
_EPOCH = 1_700_000_000


def pack_tree(tree: Path, tar: Path, *, prefix: str) -> None:
    """Write `tree` as `tar` below `prefix/`: sorted, owned by root, one date; it appears complete or not at all."""
    partial = tar.with_name(f".{tar.name}.partial")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as out:
        for path in sorted(tree.rglob("*")):
            entry = out.gettarinfo(path, arcname=f"{prefix}/{path.relative_to(tree).as_posix()}")
            _plain(entry)
            if entry.isreg():
                with path.open("rb") as content:
                    out.addfile(entry, content)
            else:
                out.addfile(entry)
    partial.replace(tar)


def context_stream(files: Mapping[str, bytes], tree: Path) -> Iterator[bytes]:
    """A build context without a copy on disk: the small files, then the entries of the tar `tree`."""
    small = io.BytesIO()
    with tarfile.open(fileobj=small, mode="w", format=tarfile.GNU_FORMAT) as out:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            _plain(entry)
            out.addfile(entry, io.BytesIO(content))
        end = out.offset  # where the closing blocks will begin: the next archive continues here
    yield small.getvalue()[:end]
    with tree.open("rb") as rest:
        while chunk := rest.read(_CHUNK):
            yield chunk


def connect(client_factory: Callable[[], docker.DockerClient]) -> docker.DockerClient:
    """A client whose Engine answered just now."""
    import docker
    import requests

    try:
        client = client_factory()
        client.ping()
    except (docker.errors.DockerException, requests.RequestException, OSError) as trouble:
        raise NoVerdictError(
            f"building the engine image needs a Docker Engine and none answered: {trouble}",
            hint="`dspark-ops lab up` starts one where none runs",
        ) from trouble
    return client


def build_image(
    client: docker.DockerClient,
    *,
    root: Path,
    root_reference: str,
    context: Iterator[bytes],
    reference: str,
    arguments: Mapping[str, str],
    log: Path,
) -> str:
    """Build `reference` on the root tar, without network; its id. The Dockerfile is in the context and takes ROOT."""
    import docker
    import requests

    said: deque[str] = deque(maxlen=8)
    try:
        _ensure_root(client, root, root_reference)
        events = client.api.build(
            # Typed as a file, but requests sends any iterator of bytes, chunk by chunk.
            fileobj=cast("IO[bytes]", context),
            custom_context=True,
            tag=reference,
            buildargs={"ROOT": root_reference, **arguments},
            network_mode="none",
            rm=True,
            forcerm=True,
            decode=True,
        )
        with log.open("w", encoding="utf-8") as out:
            for event in events:
                text = str(event.get("stream") or event.get("error") or "")
                out.write(text)
                said.extend(line for line in text.splitlines() if line.strip())
                if "error" in event:
                    raise _failed("the build of the engine image failed", said, log)
        return str(client.images.get(reference).id)
    except (docker.errors.DockerException, requests.RequestException, OSError) as trouble:
        said.append(str(trouble))
        raise _failed("Docker did not finish the engine image", said, log) from trouble


def save_image(client: docker.DockerClient, reference: str, archive: Path) -> None:
    """`docker save` of the image with its name."""
    import docker
    import requests

    try:
        with archive.open("wb") as out:
            for chunk in client.api.get_image(reference, chunk_size=_CHUNK):
                out.write(chunk)
    except (docker.errors.DockerException, requests.RequestException, OSError) as trouble:
        raise NoVerdictError(f"the engine image could not be written to {archive}: {trouble}") from trouble


def remove_traces(client: docker.DockerClient, *references: str) -> None:
    """Take the images of a finished build out of the Engine: the archive is what counts."""
    import docker

    for reference in references:
        try:
            client.images.remove(reference)
        except docker.errors.ImageNotFound:
            continue
        except docker.errors.APIError as trouble:
            # A container that somebody made of it holds it; the image is theirs now.
            if trouble.status_code != 409:
                raise NoVerdictError(f"image {reference} could not be removed: {trouble}") from trouble
    for label in NAMELESS_LABELS:
        client.images.prune(filters={"dangling": True, "label": label})


def _ensure_root(client: docker.DockerClient, root: Path, reference: str) -> None:
    import docker

    try:
        client.images.get(reference)
    except docker.errors.ImageNotFound:
        repository, tag = reference.split(":")
        client.api.import_image_from_file(str(root), repository=repository, tag=tag)


def _plain(entry: tarfile.TarInfo) -> None:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = _EPOCH


def _failed(what: str, said: deque[str], log: Path) -> NoVerdictError:
    return NoVerdictError(f"{what}; its last lines:\n" + "\n".join(said), hint=f"the whole log is {log}")
