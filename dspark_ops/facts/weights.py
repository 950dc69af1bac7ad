"""The served weights as directory entries: names and sizes, the model's own description, the hub's ref and record.

Nothing of their content is read but two small JSON files: stat-only, whatever their size.
"""

from __future__ import annotations

import json
import re
from typing import Any

from dspark_ops.config.models import HubSite, Role, Site
from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, Files, NodeReading, Probe
from dspark_ops.weights.model import repo_directory
from dspark_ops.weights.reading import parse_listing, probes_of, read_weights

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
_LIST = ("ls", "-lgG", "--time-style=+%s", "--quoting-style=escape", "-L")
_TOTAL = re.compile(r'"total_size"\s*:\s*(\d{1,15})(?:\.0)?\b')


class ModelConfig(Fact):
    """What config.json says of itself. context_tokens: that its position encoding was scaled for.

    draft_layers: of the draft that comes with the weights; None where it does not say.
    """

    model_type: str | None = None
    context_tokens: int | None = None
    draft_layers: int | None = None


class WeightsFacts(Fact):
    """The weights of a node. files and blobs: name to bytes, empty when nothing is there, None when not readable.

    ref: refs/main as it is written; ref_known False: not read. recorded: name to bytes as the fetch noted them.
    index_total_bytes: the tensors of all shards by the index; each shard also has a header.
    """

    directory: str
    files: dict[str, int] | None = None
    config: ModelConfig | None = None
    index_total_bytes: int | None = None
    blobs: dict[str, int] | None = None
    ref: str | None = None
    ref_known: bool = False
    recorded: dict[str, int] | None = None
    record_error: str | None = None

    @property
    def shards(self) -> dict[str, int] | None:
        """The safetensors files, those in directories below left out."""
        if self.files is None:
            return None
        return {name: size for name, size in self.files.items() if name.endswith(".safetensors") and "/" not in name}


def directory_of(site: Site) -> str | None:
    """Where a node keeps what the site serves; None when it is in the image."""
    if site.model.hub is not None:
        return _snapshot(site.model.hub)
    return None if site.model.mount is None else str(site.model.mount)


def _snapshot(hub: HubSite) -> str:
    return str(repo_directory(hub) / "snapshots" / hub.revision)


def probes(site: Site) -> tuple[Probe, ...]:
    """What is asked of each node; nothing when the weights are in the image."""
    directory = directory_of(site)
    if directory is None:
        return ()
    hub = site.model.hub
    listing: tuple[Probe, ...] = (Command("weights.listing", (*_LIST, directory), root=True),)
    return (
        *(listing if hub is None else probes_of(hub)),
        Files("weights.config", (f"{directory}/{CONFIG}",), max_bytes=1 << 18, root=True),
        # It begins with its total; the list of every tensor behind it has megabytes.
        Files("weights.index", (f"{directory}/{INDEX}",), max_bytes=4096, root=True),
    )


def parse_config(text: str | None) -> ModelConfig | None:
    """A model's config.json; None when it is no JSON object."""
    try:
        document = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    kind = document.get("model_type")
    return ModelConfig(
        model_type=kind if isinstance(kind, str) and kind else None,
        context_tokens=_context(document),
        draft_layers=_first_whole(document, "n_mtp_layers", "num_nextn_predict_layers", "num_mtp_layers"),
    )


def _context(document: dict[str, Any]) -> int | None:
    """The length that the positions were scaled for: original length times YaRN's factor, else the plain limit."""
    scaling = document.get("rope_parameters") or document.get("rope_scaling")
    if isinstance(scaling, dict):
        original = _whole(scaling.get("original_max_position_embeddings"))
        factor = scaling.get("factor")
        if original is not None and isinstance(factor, int | float) and 0 < factor < 1e6:
            return int(original * factor)
    return _whole(document.get("max_position_embeddings"))


def _first_whole(document: dict[str, Any], *names: str) -> int | None:
    return next((value for name in names if (value := _whole(document.get(name))) is not None), None)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else None


def parse_index_total(text: str | None) -> int | None:
    """The total that an index begins with; None when it does not."""
    found = _TOTAL.search((text or "")[:4096])
    return int(found[1]) if found else None


def read_weights_facts(site: Site, role: Role, reading: NodeReading) -> WeightsFacts | None:
    """The weights of a reading; None when they are in the image, or nobody asked."""
    directory = directory_of(site)
    if directory is None or "weights.config" not in reading.results:
        return None
    config = next(iter((reading.get("weights.config").files or {}).values()), None)
    index = next(iter((reading.get("weights.index").files or {}).values()), None)
    common = {
        "directory": directory,
        "config": parse_config(config),
        "index_total_bytes": parse_index_total(index),
    }
    if site.model.hub is None:
        return WeightsFacts.model_validate({**common, "files": parse_listing(reading.get("weights.listing"), None)})
    node = read_weights(site, role, reading)
    return WeightsFacts.model_validate(
        {
            **common,
            "files": None if node.snapshot is None else dict(node.snapshot),
            "blobs": None if node.blobs is None else dict(node.blobs),
            "ref": node.ref,
            "ref_known": node.ref_known,
            "recorded": None if node.record is None else {file.name: file.size for file in node.record.files},
            "record_error": node.record_error,
        }
    )
