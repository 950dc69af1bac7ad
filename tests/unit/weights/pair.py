"""A site whose weights are kept by us, and nodes that hold them: whole, in part, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dspark_ops.config.models import HubSite, ModelSite, Role, Site
from dspark_ops.facts.links import LinkFacts
from dspark_ops.transport.base import NodeReading, ProbeResult
from dspark_ops.weights.model import Manifest, WeightFile
from dspark_ops.weights.reading import NodeWeights
from tests.unit.images.test_sync_plan import node as image_node
from tests.unit.images.test_sync_plan import site as image_site

REVISION = "1" * 40
HUB = HubSite(repo="acme/tiny-moe", revision=REVISION)
ROOT = "/var/lib/dspark/hub/models--acme--tiny-moe"
_GIB = 1 << 30
FILES = (
    WeightFile(name="model-1.safetensors", size=4 * _GIB, blob="a" * 64, sha256="a" * 64),
    WeightFile(name="model-2.safetensors", size=3 * _GIB, blob="b" * 64, sha256="b" * 64),
    WeightFile(name="encoding/map.py", size=7, blob="c" * 40, sha256="d" * 64),
)
MANIFEST = Manifest(repo=HUB.repo, revision=REVISION, files=FILES)
DIGESTS = {file.blob: file.sha256 for file in FILES}
BOTH = {"head": DIGESTS, "worker": DIGESTS}


def site(**guards: Any) -> Site:
    model = ModelSite.model_validate({"path": "/m", "served_name": "m", "hub": HUB.model_dump()})
    plain = image_site()
    return plain.model_copy(update={"model": model, "guards": plain.guards.model_copy(update=guards)})


def links(role: Role, down: tuple[str, ...] = ()) -> tuple[LinkFacts, ...]:
    return image_node(role, down=down).links


def whole(role: Role, *, down: tuple[str, ...] = (), **more: Any) -> NodeWeights:
    node = NodeWeights(
        role=role,
        host=f"spark-{role}",
        record=MANIFEST,
        record_error=None,
        snapshot={file.name: file.size for file in FILES},
        blobs={file.blob: file.size for file in FILES},
        ref=REVISION,
        ref_known=True,
        free_bytes=100 * _GIB,
        links=links(role, down),
    )
    return replace(node, **more)


def empty(role: Role, **more: Any) -> NodeWeights:
    return replace(whole(role), **({"record": None, "snapshot": {}, "blobs": {}, "ref": None} | more))


def listing(sizes: Mapping[str, int], root: str | None = None) -> str:
    """What `ls -lgG` prints for these files, with -R when root is given."""

    def entry(name: str, size: int) -> str:
        return f"-rw-r--r-- 1 {size:>10} 1790000000 {name}"

    if root is None:
        return "\n".join(["total 8", *(entry(name, size) for name, size in sizes.items())]) + "\n"
    folders: dict[str, list[str]] = {"": []}
    for name, size in sizes.items():
        folder, _, last = name.rpartition("/")
        folders.setdefault(folder, []).append(entry(last, size))
    return "\n".join(
        line
        for folder, entries in folders.items()
        for line in (f"{root}{'/' if folder else ''}{folder}:", "total 8", *entries, "")
    )


def reading(role: Role, node: NodeWeights | None = None, **results: ProbeResult) -> NodeReading:
    """What the probes of a node see."""
    node = node or whole(role)
    snapshot = f"{ROOT}/snapshots/{REVISION}"
    record = {} if node.record is None else {"record.json": json.dumps(node.record.document())}
    found = {
        "weights.record": ProbeResult(id="weights.record", files=record),
        "weights.snapshot": ProbeResult(id="", rc=0, stdout=listing(node.snapshot or {}, snapshot), stderr=""),
        "weights.blobs": ProbeResult(id="", rc=0, stdout=listing(node.blobs or {}), stderr=""),
        "weights.ref": ProbeResult(id="", files={} if node.ref is None else {"main": node.ref}),
        "weights.disk": ProbeResult(id="", numbers={"free_bytes": node.free_bytes or 0, "total_bytes": 1 << 40}),
    }
    named = {name.replace("_", ".", 1): result for name, result in results.items()}
    return NodeReading(node=role, reachable=True, results=found | named)
