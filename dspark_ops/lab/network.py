"""The management network of the pair: a Docker bridge on a subnet that nothing on this machine uses."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from typing import TYPE_CHECKING

from dspark_ops.errors import RefusedError
from dspark_ops.lab.layout import LABEL, NETWORK, SUBNETS, LabPaths

if TYPE_CHECKING:
    import docker


def find_subnet(client: docker.DockerClient) -> str | None:
    """The first three numbers of the lab network's subnet, e.g. "10.77.77"; None where there is no such network."""
    import docker

    try:
        network = client.networks.get(NETWORK)
    except docker.errors.NotFound:
        return None
    configured = network.attrs["IPAM"]["Config"]
    return str(configured[0]["Subnet"]).rsplit(".", 1)[0] if configured else None


def ensure_network(client: docker.DockerClient, paths: LabPaths) -> str:
    """The lab's network, made on the first free subnet; its first three numbers."""
    from docker.types import IPAMConfig, IPAMPool

    existing = find_subnet(client)
    if existing is not None:
        if client.networks.get(NETWORK).attrs["Labels"].get(LABEL) != paths.identity():
            raise RefusedError(
                f"a Docker network {NETWORK} exists that this lab did not make",
                hint="another user's lab runs on this machine; one at a time",
            )
        return existing
    taken = _routed()
    for subnet in SUBNETS:
        candidate = ipaddress.ip_network(f"{subnet}.0/24")
        if not any(candidate.overlaps(other) for other in taken):
            pool = IPAMPool(subnet=str(candidate), gateway=f"{subnet}.1")
            client.networks.create(
                NETWORK,
                driver="bridge",
                ipam=IPAMConfig(pool_configs=[pool]),
                labels={LABEL: paths.identity()},
                options={"com.docker.network.bridge.name": NETWORK},
            )
            return subnet
    raise RefusedError(
        f"no free subnet for the lab among {SUBNETS[0]}.0/24 to {SUBNETS[-1]}.0/24",
        hint="the machine routes all of them; stop what uses one",
    )


def _routed() -> list[ipaddress.IPv4Network]:
    listed = subprocess.run(
        ["ip", "-j", "-4", "route", "show", "table", "all"], capture_output=True, check=True, timeout=20
    ).stdout
    found = []
    for route in json.loads(listed or "[]"):
        try:
            found.append(ipaddress.IPv4Network(route.get("dst", ""), strict=False))
        except ValueError:
            continue  # "default", multicast names
    return found
