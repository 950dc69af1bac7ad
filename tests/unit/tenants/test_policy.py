"""Who may be evicted: the site's policy, the consent of the moment, and what could be given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import RefusedError
from dspark_ops.tenants.model import ContainerIdentity, ProcessIdentity, Tenant, UnitIdentity
from dspark_ops.tenants.plan import asked_for
from dspark_ops.tenants.policy import may_evict

SiteMaker = Callable[..., LoadedSite]


def tenant(key: str = "container:comfyui", node: Any = "head", **more: Any) -> Tenant:
    given: dict[str, Any] = {
        "node": node,
        "kind": key.split(":", 1)[0],
        "key": key,
        "what": "ComfyUI",
        "stops_by": "docker stop",
        "comes_back_by": "docker start",
        "members": (ContainerIdentity(id="a" * 64, name="comfyui"),),
    }
    return Tenant(**(given | more))


DESKTOP = tenant("desktop:ada", members=())


@pytest.mark.parametrize(
    ("overrides", "consent", "why"),
    [
        ((), True, None),
        ((), False, "nobody has consented"),
        (("tenants.policy=refuse",), True, "tenants.policy is refuse"),
        (("tenants.policy=refuse", "tenants.evict=[container:comfyui]"), True, "tenants.policy is refuse"),
        (("tenants.policy=evict-listed", "tenants.evict=[container:comfyui]"), False, None),
        (("tenants.policy=evict-listed", "tenants.evict=[head/container:comfyui]"), False, None),
        (("tenants.policy=evict-listed", "tenants.evict=[worker/container:comfyui]"), False, "nobody has consented"),
        (("tenants.policy=evict-listed", "tenants.evict=[container:other]"), False, "nobody has consented"),
        (("tenants.policy=evict-listed", "tenants.evict=[container:other]"), True, None),
        # A list is no consent under `ask`.
        (("tenants.evict=[container:comfyui]",), False, "nobody has consented"),
    ],
)
def test_policy(make_site: SiteMaker, overrides: tuple[str, ...], consent: bool, why: str | None) -> None:
    told = may_evict(make_site(*overrides).site, tenant(), consent=consent)
    assert told is None if why is None else why in str(told)


def test_a_desktop_is_only_ended_by_name(make_site: SiteMaker) -> None:
    site = make_site().site
    assert "when it is named" in str(may_evict(site, DESKTOP, consent=True))
    assert may_evict(site, DESKTOP, consent=True, named=["desktop:ada"]) is None
    assert may_evict(site, DESKTOP, consent=True, named=["head/desktop:ada"]) is None
    assert "when it is named" in str(may_evict(site, DESKTOP, consent=True, named=["worker/desktop:ada"]))
    # A name is no consent.
    assert "nobody has consented" in str(may_evict(site, DESKTOP, consent=False, named=["desktop:ada"]))
    listed = make_site("tenants.policy=evict-listed", "tenants.evict=[desktop:ada]").site
    assert may_evict(listed, DESKTOP, consent=False) is None


@pytest.mark.parametrize(
    "unseen",
    [
        tenant(members=()),
        tenant("unit:x.service", members=()),
        tenant("user-unit:ada/x.service", members=(), unit=UnitIdentity(name="x.service", user="ada")),
        tenant("process:python/7", members=()),
    ],
    ids=lambda unseen: unseen.kind,
)
def test_what_was_not_seen_well_enough_is_left_alone(make_site: SiteMaker, unseen: Tenant) -> None:
    assert "not seen well enough" in str(may_evict(make_site().site, unseen, consent=True))


def test_what_its_end_would_remove_is_left_alone(make_site: SiteMaker) -> None:
    doomed = tenant(members=(ContainerIdentity(id="a" * 64, name="comfyui", auto_remove=True),))
    assert "--rm" in str(may_evict(make_site().site, doomed, consent=True))


def test_a_key_means_both_nodes_unless_it_names_one() -> None:
    one, other = tenant(), tenant(node="worker")
    process = tenant("process:x/7", process=ProcessIdentity(pid=7, start_ticks=1))
    everybody = (one, other, process)
    assert asked_for(everybody, ["container:comfyui"], everything=False) == (one, other)
    assert asked_for(everybody, ["worker/container:comfyui"], everything=False) == (other,)
    assert asked_for(everybody, [], everything=True) == everybody


def test_what_is_not_on_the_list_is_refused_by_name() -> None:
    with pytest.raises(RefusedError, match=r"container:gone: not on the list of tenants.*head/container:comfyui"):
        asked_for((tenant(),), ["container:comfyui", "container:gone"], everything=False)
