"""How a rank sees the weights: the mounts of its container and the path that the engine is given. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from dspark_ops.config.models import Site
from dspark_ops.weights.model import repo_directory

#: Where the repository of a hub cache is mounted in a rank.
HUB_ROOT = PurePosixPath("/models/hub")
#: For a rank whose weights are kept by us: nothing is ever fetched by an engine.
OFFLINE_ENVIRONMENT = {"HF_HUB_OFFLINE": "1"}


def mount_of(site: Site) -> tuple[tuple[dict[str, Any], ...], PurePosixPath]:
    """The read-only mounts of the weights, and the model's path inside the container.

    With model.hub the whole directory of the repository is mounted, because a snapshot is made of links into its blobs;
    the path is the pinned snapshot. Without it: model.mount at model.path, or what the image holds.
    """
    hub = site.model.hub
    if hub is not None:
        source = repo_directory(hub)
        target = HUB_ROOT / source.name
        mount = {"source": str(source), "target": str(target), "read_only": True}
        return (mount,), target / "snapshots" / hub.revision
    if site.model.mount is not None:
        mount = {"source": str(site.model.mount), "target": str(site.model.path), "read_only": True}
        return (mount,), site.model.path
    return (), site.model.path
