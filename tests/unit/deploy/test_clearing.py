"""Who has to leave for a start: nobody without consent, no more than needed, and never silently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from dspark_ops.config.models import Role
from dspark_ops.deploy.clearing import Clearing, plan_clearing, refuse
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.memory.gate import MemoryRefusal
from dspark_ops.tenants.model import ContainerIdentity, ProcessIdentity, Tenant, UnitIdentity
from tests.unit.deploy.conftest import SiteMaker, seen

GIB = 1024**2
NO_ONE: Mapping[Role, Sequence[Tenant]] = {"head": (), "worker": ()}


def tenant(key: str, gib: float | None, *, node: Role = "head") -> Tenant:
    kind, _, name = key.partition(":")
    return Tenant(
        node=node,
        kind=kind,  # type: ignore[arg-type]
        members=(ContainerIdentity(id="c" * 64, name=name),) if kind == "container" else (),
        unit=UnitIdentity(name=name) if kind == "unit" else None,
        process=ProcessIdentity(pid=1, start_ticks=1) if kind == "process" else None,
        key=key,
        what="somebody",
        memory_kib=None if gib is None else int(gib * GIB),
        stops_by="docker stop",
        comes_back_by="docker start",
    )


def clear(
    make_site: SiteMaker,
    *overrides: str,
    available_gib: float = 100.0,
    tenants: Mapping[Role, Sequence[Tenant]] = NO_ONE,
    consent: bool = False,
) -> Clearing | list[MemoryRefusal]:
    loaded = make_site("guards.memory_floor_gib=1", *overrides)
    memory = MemoryFacts(mem_total_kib=120 * GIB, mem_available_kib=int(available_gib * GIB))
    change: dict[Role, dict[str, Any]] = {"head": {"memory": memory}}
    return plan_clearing(loaded.site, loaded.profile, seen(loaded, change=change).pair, tenants, consent=consent)


def test_with_room_nobody_has_to_leave(make_site: SiteMaker) -> None:
    found = clear(make_site, tenants={"head": [tenant("container:comfyui", 20)], "worker": ()}, consent=True)
    assert found == Clearing()


def test_without_consent_the_refusal_says_who_would_make_room(make_site: SiteMaker) -> None:
    found = clear(make_site, available_gib=0.5, tenants={"head": [tenant("container:comfyui", 20)], "worker": ()})
    assert isinstance(found, list)
    (refusal,) = found
    assert "container:comfyui holds 20.0 GiB" in refusal.observed
    assert "`--evict` consents to stop container:comfyui on head" in refusal.remedy
    with pytest.raises(RefusedError, match="container:comfyui"):
        refuse(found)


def test_the_largest_leaves_and_no_more_than_needed(make_site: SiteMaker) -> None:
    others = [tenant("container:small", 1), tenant("unit:large.service", 30), tenant("container:middle", 9)]
    found = clear(make_site, available_gib=0.5, tenants={"head": others, "worker": ()}, consent=True)
    assert isinstance(found, Clearing)
    assert [t.key for t in found.evict] == ["unit:large.service"]
    assert "unit:large.service" in "\n".join(found.lines())


def test_a_desktop_session_and_a_holder_of_unknown_memory_are_not_chosen(make_site: SiteMaker) -> None:
    others = [tenant("desktop:anna", 30), tenant("process:x/1", None)]
    found = clear(make_site, available_gib=0.5, tenants={"head": others, "worker": ()}, consent=True)
    assert isinstance(found, list)
    assert "process:x/1" in found[0].observed


def test_the_policy_refuse_lets_nobody_go(make_site: SiteMaker) -> None:
    others = {"head": [tenant("container:comfyui", 30)], "worker": ()}
    found = clear(make_site, "tenants.policy=refuse", available_gib=0.5, tenants=others, consent=True)
    assert isinstance(found, list)


def test_those_the_site_lists_leave_for_every_start(make_site: SiteMaker) -> None:
    others = {"head": [tenant("container:comfyui", 3), tenant("container:other", 3)], "worker": ()}
    listed = ("tenants.policy=evict-listed", 'tenants.evict=["container:comfyui"]')
    found = clear(make_site, *listed, tenants=others)
    assert isinstance(found, Clearing)
    assert [t.key for t in found.evict] == ["container:comfyui"]


def test_memory_that_cannot_be_read_is_no_verdict(make_site: SiteMaker) -> None:
    loaded = make_site()
    pair = seen(loaded, change={"worker": {"memory": None}}).pair
    found = plan_clearing(loaded.site, loaded.profile, pair, NO_ONE, consent=True)
    assert isinstance(found, list)
    with pytest.raises(NoVerdictError, match="worker: could not tell"):
        refuse(found)


def test_nobody_leaves_for_what_never_fits_on_the_node(make_site: SiteMaker) -> None:
    others = {"head": [tenant("container:comfyui", 30)], "worker": ()}
    for consent in (False, True):
        found = clear(make_site, "serve.kv_cache_memory_mib=200000", tenants=others, consent=consent)
        assert isinstance(found, list)
        assert "--evict" not in found[0].remedy
