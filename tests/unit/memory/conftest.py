"""A site with a claim of its own, and a pair with so much memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dspark_ops.config.load import load_profile
from dspark_ops.config.models import MemoryRule, Profile, Role, Site
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.facts.snapshot import NodeFacts, PairFacts

GIB_KIB = 1 << 20
TOTAL_GIB = 121.7

SITE: dict[str, Any] = {
    "name": "desk",
    "profile": "current",
    "nodes": {"head": {"host": "spark-head"}, "worker": {"host": "spark-worker"}},
    "fabric": {
        "rails": [
            {
                "name": "p0a",
                "head": {"netdev": "enp1s0f0np0", "address": "10.77.0.1/24"},
                "worker": {"netdev": "enp1s0f0np0", "address": "10.77.0.2/24"},
            }
        ]
    },
    "image": {"reference": "dspark:1", "id": "sha256:" + "1" * 64},
    "model": {"path": "/models/m", "served_name": "m"},
}


def kib(gib: float) -> int:
    return round(gib * GIB_KIB)


@pytest.fixture
def make_site() -> Callable[..., Site]:
    """A site with these serve and guards settings."""

    def make(*, floor_gib: float = 4.0, reclaim: bool = False, **serve: Any) -> Site:
        guards = {"memory_floor_gib": floor_gib, "reclaim": reclaim}
        return Site.model_validate(
            {**SITE, "serve": {"max_model_len": 4096, "max_num_seqs": 4, **serve}, "guards": guards}
        )

    return make


@pytest.fixture
def make_profile() -> Callable[..., Profile]:
    """A shipped profile with these figures of memory."""

    def make(name: str = "current", **rule: float | None) -> Profile:
        return load_profile(name).model_copy(update={"memory": MemoryRule(**rule)})

    return make


def pair_with(available_gib: dict[Role, float | None], **change: Any) -> PairFacts:
    """Both nodes, reached; None: MemAvailable could not be read."""

    def node(role: Role) -> NodeFacts:
        gib = available_gib[role]
        memory = MemoryFacts(mem_total_kib=kib(TOTAL_GIB), mem_available_kib=None if gib is None else kib(gib))
        values = {"role": role, "host": f"spark-{role}", "reachable": True, "memory": memory, "rank_known": True}
        return NodeFacts(**{**values, **change.get(role, {})})

    return PairFacts(head=node("head"), worker=node("worker"))
