"""A node's weights held against what they should be: which files are whole, which are not, and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dspark_ops.weights.model import INCOMPLETE, Manifest, WeightFile
from dspark_ops.weights.reading import NodeWeights

#: Blob to sha256 as the node computed it; None: it could not be computed.
Digests = Mapping[str, str | None]


@dataclass(frozen=True)
class FileState:
    """One file of the manifest on one node. why: empty when it is whole. known False: it could not be told."""

    file: WeightFile
    why: str
    known: bool = True

    @property
    def whole(self) -> bool:
        return self.known and not self.why


def size_states(manifest: Manifest, node: NodeWeights) -> tuple[FileState, ...]:
    """Every file by presence and size alone, as the snapshot shows it."""
    return tuple(_by_size(file, node.snapshot, file.name) for file in manifest.files)


def blob_states(manifest: Manifest, node: NodeWeights, digests: Digests | None) -> tuple[FileState, ...]:
    """Every file by its blob: presence, size and (digests not None) sha256."""
    return tuple(_by_blob(file, node, digests) for file in manifest.files)


def _by_size(file: WeightFile, found: Mapping[str, int] | None, name: str) -> FileState:
    if found is None:
        return FileState(file, "it cannot be read", known=False)
    if name not in found:
        return FileState(file, "missing")
    if found[name] != file.size:
        return FileState(file, f"{found[name]} of {file.size} bytes")
    return FileState(file, "")


def _by_blob(file: WeightFile, node: NodeWeights, digests: Digests | None) -> FileState:
    state = _by_size(file, node.blobs, file.blob)
    if not state.whole or digests is None:
        return state
    if file.sha256 is None:
        return FileState(file, "its sha256 is not known yet", known=False)
    found = digests.get(file.blob)
    if found is None:
        return FileState(file, "its sha256 could not be computed", known=False)
    if found != file.sha256:
        return FileState(file, f"sha256 {found[:12]}…, expected {file.sha256[:12]}…")
    return FileState(file, "")


def unfinished(node: NodeWeights) -> tuple[str, ...]:
    """Blobs that a download has not finished."""
    return tuple(sorted(name for name in node.blobs or {} if name.endswith(INCOMPLETE)))


def settled(manifest: Manifest, node: NodeWeights) -> bool:
    """Whether snapshot, ref and record of a node already say what the manifest does, and nothing unfinished is left."""
    ours = {file.blob + INCOMPLETE for file in manifest.files}
    return (
        node.record == manifest
        and node.ref == manifest.revision
        and all(state.whole for state in size_states(manifest, node))
        and not ours.intersection(node.blobs or {})
    )


def missing_bytes(files: tuple[WeightFile, ...], node: NodeWeights) -> int:
    """How much the disk must still take for these files: what an unfinished or a wrong blob holds is used again."""
    blobs = node.blobs or {}
    wanted = {file.blob: file.size for file in files}
    return sum(max(0, size - max(blobs.get(b, 0), blobs.get(b + INCOMPLETE, 0))) for b, size in wanted.items())
