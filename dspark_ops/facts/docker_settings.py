"""How Docker keeps logs and survives its own restart, and what the rank's container is allowed beyond its own."""

from __future__ import annotations

import json
import re
from typing import Any

from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.transport.base import Command, NodeReading, Probe

LOG_FOLDER = "/var/lib/docker/containers"
PROBES: tuple[Probe, ...] = (
    Command("docker.logs", ("ls", "-lnR", "--time-style=+", LOG_FOLDER), root=True, timeout_s=3.0),
)

_HEADER = re.compile(rf"^{LOG_FOLDER}/([0-9a-f]{{64}}):$")
_LOG = re.compile(r"^-\S{9,10} +\d+ +\d+ +\d+ +(\d{1,18}) +\S*-json\.log(\.\d{1,4}(\.gz)?)?$")


class DockerSettings(Fact):
    """Of the Engine. live_restore: containers outlive a restart of the Engine."""

    live_restore: bool | None = None


class RankSettings(Fact):
    """Of the rank's container. socket_mounted: the Engine's own socket is inside, which is root on the node."""

    privileged: bool | None = None
    socket_mounted: bool | None = None
    log_driver: str | None = None


class ContainerLog(Fact):
    """What a container's log takes on the disk, with the older files that were rotated away."""

    container: str
    size_bytes: int


def parse_engine_settings(text: str | None) -> DockerSettings | None:
    """The setting in `docker info` as JSON."""
    document = _first_object(text)
    if document is None:
        return None
    live = document.get("LiveRestoreEnabled")
    return DockerSettings(live_restore=live if isinstance(live, bool) else None)


def parse_rank_settings(text: str | None) -> RankSettings | None:
    """The settings of `docker container inspect NAME`; None when there is no container."""
    try:
        document = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, list) or not document or not isinstance(document[0], dict):
        return None
    host, mounts = document[0].get("HostConfig"), document[0].get("Mounts")
    if not isinstance(host, dict):
        return None
    log = _part(host, "LogConfig")
    sources = [m.get("Source") for m in mounts if isinstance(m, dict)] if isinstance(mounts, list) else None
    privileged = host.get("Privileged")
    return RankSettings(
        privileged=privileged if isinstance(privileged, bool) else None,
        socket_mounted=None if sources is None else any(str(s).endswith("/docker.sock") for s in sources),
        log_driver=str(log["Type"]) if log.get("Type") else None,
    )


def parse_container_logs(listing: str | None) -> tuple[ContainerLog, ...] | None:
    """The logs in `ls -lnR` of the Engine's containers, the largest first; None without a listing."""
    if listing is None:
        return None
    sizes: dict[str, int] = {}
    container = None
    for line in listing.splitlines():
        header, log = _HEADER.match(line), _LOG.match(line)
        if header:
            container = header[1]
        elif log and container is not None:
            sizes[container] = sizes.get(container, 0) + (whole_number(log[1]) or 0)
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return tuple(ContainerLog(container=name, size_bytes=size) for name, size in ordered)


def _part(item: dict[str, Any], key: str) -> dict[str, Any]:
    value = item.get(key)
    return value if isinstance(value, dict) else {}


def _first_object(text: str | None) -> dict[str, Any] | None:
    for line in (text or "").splitlines():
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            return document
    return None


def read_engine_settings(reading: NodeReading) -> DockerSettings | None:
    """The Engine's settings of a reading."""
    return parse_engine_settings(reading.get("docker.info").text())


def read_rank_settings(reading: NodeReading) -> RankSettings | None:
    """The settings of the rank's container; None when there is none or it could not be read."""
    return parse_rank_settings(reading.get("rank.inspect").text())


def read_container_logs(reading: NodeReading) -> tuple[ContainerLog, ...] | None:
    """The logs of a reading."""
    return parse_container_logs(reading.get("docker.logs").text())
