"""A node's power: cut and given back, as a machine that restarts in the middle of something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any


@contextmanager
def node_container(role: str) -> Iterator[Any]:
    """The lab container that is the node of this role."""
    from dspark_ops.lab.engine_host import find_docker
    from dspark_ops.lab.layout import HEAD, WORKER, lab_paths

    host = find_docker(lab_paths().state)
    assert host is not None
    with closing(host.client()) as client:
        yield client.containers.get({"head": HEAD, "worker": WORKER}[role].container)


def power_cycle(role: str) -> None:
    """Everything in the node ends at once, systemd comes up again, and the cables are as they were plugged."""
    from dspark_ops.lab import pair

    with node_container(role) as container:
        container.kill()
        container.start()
    pair.up(engine=False)
