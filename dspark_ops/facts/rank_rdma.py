"""What the rank's container may do with RDMA: its devices, its limits, its rights. From the same inspection."""

from __future__ import annotations

import json
from typing import Any

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import NodeReading

DEVICE_FOLDER = "/dev/infiniband"


class RankRdma(Fact):
    """The rank's container, configured.

    devices: paths on the host that it was given. capabilities: added ones, without the leading CAP_. memlock: the soft
    limit of locked memory in bytes, -1 without one; None where the container has the Engine's default.
    """

    devices: tuple[str, ...] = ()
    privileged: bool = False
    capabilities: tuple[str, ...] = ()
    memlock: int | None = None

    @property
    def sees_rdma(self) -> bool:
        """It was given /dev/infiniband, whole or a verbs device of it."""
        return self.privileged or any(
            path == DEVICE_FOLDER or path.startswith(f"{DEVICE_FOLDER}/uverbs") for path in self.devices
        )

    @property
    def locks_memory(self) -> bool:
        """No limit of locked memory holds it: unlimited, or the right that stands above the limit."""
        return self.privileged or self.memlock == -1 or "IPC_LOCK" in self.capabilities or "ALL" in self.capabilities


def parse_rank_rdma(text: str | None) -> RankRdma | None:
    """The first container of `docker container inspect`; None when the text is not that."""
    try:
        document = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    item = document[0] if isinstance(document, list) and document else None
    host = item.get("HostConfig") if isinstance(item, dict) else None
    if not isinstance(host, dict):
        return None
    devices = [entry.get("PathOnHost") for entry in _objects(host.get("Devices"))]
    limits = [entry.get("Soft") for entry in _objects(host.get("Ulimits")) if entry.get("Name") == "memlock"]
    added = host.get("CapAdd")
    return RankRdma(
        devices=tuple(path.rstrip("/") for path in devices if isinstance(path, str)),
        privileged=host.get("Privileged") is True,
        capabilities=tuple(
            name.removeprefix("CAP_") for name in (added if isinstance(added, list) else []) if isinstance(name, str)
        ),
        memlock=next((n for n in limits if isinstance(n, int) and not isinstance(n, bool)), None),
    )


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def read_rank_rdma(reading: NodeReading) -> RankRdma | None:
    """The rank's container of a reading; None when there is none or it could not be read."""
    return parse_rank_rdma(reading.get("rank.inspect").text())
