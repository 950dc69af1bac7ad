"""What a node has of the pinned weights: record, snapshot, blobs, ref, free space. One round trip; reads only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dspark_ops.config.models import HubSite, Role, Site
from dspark_ops.facts import links
from dspark_ops.facts.links import LinkFacts
from dspark_ops.transport.base import Command, Files, Filesystem, NodeReading, Probe, ProbeResult
from dspark_ops.weights.model import Manifest, parse_manifest, record_path, repo_directory

_RECORD_MAX_BYTES = 4 << 20
_LIST = ("ls", "-lgG", "--time-style=+%s", "--quoting-style=escape")
_ENTRY = re.compile(r"-[rwxsStT-]{9}[.+@]?\s+\d+\s+(\d+)\s+\d+\s(.+)")


@dataclass(frozen=True)
class NodeWeights:
    """One node. snapshot and blobs: name to bytes, None when they could not be read; empty when nothing is there.

    record: what our own tool noted of this revision, None without one; record_error: there is one, and it is no use.
    ref: what refs/main says, None when it is absent; ref_known False: it could not be read.
    """

    role: Role
    host: str
    record: Manifest | None
    record_error: str | None
    snapshot: Mapping[str, int] | None
    blobs: Mapping[str, int] | None
    ref: str | None
    ref_known: bool
    free_bytes: int | None
    links: tuple[LinkFacts, ...] | None

    @property
    def readable(self) -> bool:
        return self.snapshot is not None and self.blobs is not None and self.ref_known

    def link(self, netdev: str) -> LinkFacts | None:
        """A network device, or None."""
        return next((link for link in self.links or () if link.name == netdev), None)


def probes_of(hub: HubSite) -> tuple[Probe, ...]:
    """What is asked of each node: no file is hashed, whatever its size."""
    directory = repo_directory(hub)
    return (
        Files("weights.record", (str(record_path(hub)),), max_bytes=_RECORD_MAX_BYTES, root=True),
        Command("weights.snapshot", (*_LIST, "-LR", str(directory / "snapshots" / hub.revision)), root=True),
        Command("weights.blobs", (*_LIST, str(directory / "blobs")), root=True),
        Files("weights.ref", (str(directory / "refs" / "main"),), root=True),
        Filesystem("weights.disk", str(hub.cache)),
    )


def read_weights(site: Site, role: Role, reading: NodeReading) -> NodeWeights:
    """What the probes of `probes_of` saw. A node that was not reached is one that cannot be read."""
    hub = site.model.hub
    assert hub is not None  # noqa: S101 (its probes could not have been made)
    record, error = _record(hub, reading.get("weights.record"))
    ref = reading.get("weights.ref")
    disk = reading.get("weights.disk").numbers or {}
    root = str(repo_directory(hub) / "snapshots" / hub.revision)
    return NodeWeights(
        role=role,
        host=site.nodes.of(role).host,
        record=record,
        record_error=error,
        snapshot=parse_listing(reading.get("weights.snapshot"), root),
        blobs=parse_listing(reading.get("weights.blobs"), None),
        ref=next(iter((ref.files or {}).values()), None),
        ref_known=ref.error is None and ref.files is not None,
        free_bytes=disk.get("free_bytes"),
        links=links.read_links(reading),
    )


def _record(hub: HubSite, result: ProbeResult) -> tuple[Manifest | None, str | None]:
    if result.error is not None or result.files is None:
        return None, result.error or "it cannot be read"
    text = next(iter(result.files.values()), None)
    if text is None:
        return None, None
    try:
        manifest = parse_manifest(json.loads(text))
    except (ValueError, RecursionError):
        manifest = None
    if manifest is None or (manifest.repo, manifest.revision) != (hub.repo, hub.revision):
        return None, f"{record_path(hub)} is no record of {hub.repo} at {hub.revision[:12]}"
    return manifest, None


def parse_listing(result: ProbeResult, root: str | None) -> dict[str, int] | None:
    """Names to bytes of what `ls` listed; with root, recursively and relative to it. None: it could not be read.

    A directory that is not there lists nothing; a link that leads nowhere is not there either.
    """
    if result.error is not None or result.stdout is None:
        return None
    told = [line for line in (result.stderr or "").splitlines() if line.strip()]
    if result.rc != 0 and not (told and all(line.endswith("No such file or directory") for line in told)):
        return None
    found: dict[str, int] = {}
    below = ""
    for line in result.stdout.splitlines():
        entry = _ENTRY.fullmatch(line)
        if entry is not None:
            found[below + unescaped(entry[2])] = int(entry[1])
        elif root is not None and line.endswith(":") and unescaped(line[:-1]).startswith(root):
            inside = unescaped(line[:-1]).removeprefix(root).strip("/")
            below = f"{inside}/" if inside else ""
    return found


def unescaped(name: str) -> str:
    """A name as `ls --quoting-style=escape` writes it, without its backslashes; other escapes stay as they are."""
    return re.sub(r"\\([ \\:])", r"\1", name)
