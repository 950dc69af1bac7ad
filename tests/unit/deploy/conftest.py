"""A small site on the rehearsal profile, and facts of a healthy, empty pair, for the deploy tests."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.observed import CanaryAnswer, Observation
from dspark_ops.deploy.spec import RankSpec, render_pair
from dspark_ops.facts.disk import DiskFacts
from dspark_ops.facts.docker_engine import EngineFacts, ImageFacts
from dspark_ops.facts.links import AddressFacts, LinkFacts
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.facts.rank import RankFacts
from dspark_ops.facts.snapshot import NodeFacts, PairFacts

IMAGE_ID = "sha256:" + "1" * 64
SITE = f"""
version: 1
name: desk
profile: rehearsal
nodes:
  head: {{host: spark-head}}
  worker: {{host: spark-worker}}
fabric:
  rails:
    - name: p0a
      head: {{netdev: enp1s0f0np0, hca: rocep1s0f0, address: 10.77.0.1/24}}
      worker: {{netdev: enp1s0f1np1, hca: rocep1s0f1, address: 10.77.0.2/24}}
    - name: p0b
      head: {{netdev: enP2p1s0f0np0, hca: roceP2p1s0f0, address: 10.77.1.1/24}}
      worker: {{netdev: enP2p1s0f1np1, hca: roceP2p1s0f1, address: 10.77.1.2/24}}
image:
  reference: dspark-engine-rehearsal:abc
  id: {IMAGE_ID}
  archive: image.tar
"""

SiteMaker = Callable[..., LoadedSite]


@pytest.fixture
def make_site(tmp_path: Path) -> SiteMaker:
    def make(*overrides: str) -> LoadedSite:
        path = tmp_path / "site.yml"
        path.write_text(SITE)
        (tmp_path / "image.tar").write_bytes(b"x" * 1024)
        return load_site(path, overrides=overrides, environ={})

    return make


@pytest.fixture
def loaded(make_site: SiteMaker) -> LoadedSite:
    return make_site()


@pytest.fixture
def specs(loaded: LoadedSite) -> dict[Role, RankSpec]:
    return render_pair(loaded.site, loaded.profile)


def rank_of(spec: RankSpec, epoch: str = "e1", **changes: Any) -> RankFacts:
    """The facts of a container that was started from a spec."""
    document = spec.document(epoch)
    values: dict[str, Any] = {
        "id": "c" * 64,
        "state": "running",
        "exit_code": 0,
        "started_at": "2026-11-23T10:00:00.123456789Z",
        "image_id": spec.image_id,
        "labels": document["labels"],
    }
    return RankFacts(**(values | changes))


def seen(
    loaded: LoadedSite,
    *,
    head: RankFacts | None = None,
    worker: RankFacts | None = None,
    canary: CanaryAnswer | None = None,
    change: dict[Role, dict[str, Any]] | None = None,
) -> Observation:
    """A healthy pair with the given ranks; change replaces facts of one node."""
    ranks: dict[Role, RankFacts | None] = {"head": head, "worker": worker}
    nodes = {}
    for role in ROLES:
        links = tuple(
            LinkFacts(
                name=rail.of(role).netdev,
                mtu=9000,
                carrier=True,
                addresses=(AddressFacts(address=IPv4Interface(str(rail.of(role).address))),),
            )
            for rail in loaded.site.fabric.rails
        )
        values: dict[str, Any] = {
            "role": role,
            "host": loaded.site.nodes.of(role).host,
            "reachable": True,
            "sudo": True,
            "docker": EngineFacts(answers=True, version="28"),
            "images": (ImageFacts(id=IMAGE_ID),),
            "links": links,
            "listeners": (),
            "memory": MemoryFacts(mem_total_kib=127_600_748, mem_available_kib=118_000_000),
            "disks": (DiskFacts(path="/var/lib/docker", total_bytes=10**12, free_bytes=5 * 10**11),),
            "rank": ranks[role],
            "rank_known": True,
        }
        nodes[role] = NodeFacts(**(values | (change or {}).get(role, {})))
    return Observation(PairFacts(head=nodes["head"], worker=nodes["worker"]), canary)
