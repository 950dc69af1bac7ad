"""What a rank needs: what is known is added, what is not known is said, and a claim of the engine covers both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.config.load import load_profile
from dspark_ops.config.models import Profile, Site
from dspark_ops.memory.need import Need, Part, need_of
from dspark_ops.paths import data_dir
from tests.unit.memory.conftest import SITE

SiteMaker = Callable[..., Site]
ProfileMaker = Callable[..., Profile]
KNOWN = {"weights_gib": 72.6, "graphs_gib": 0.5, "runtime_gib": 10.0}


def test_a_pinned_kv_cache_is_added_to_what_the_profile_knows(make_site: SiteMaker, make_profile: ProfileMaker) -> None:
    need = need_of(make_site(kv_cache_memory_mib=12 * 1024), make_profile(**KNOWN), "head", total_gib=121.7)
    assert need.gib == pytest.approx(72.6 + 0.5 + 10.0 + 12.0)
    assert not need.at_least
    assert {part.name: part.source for part in need.parts}["KV cache"] == "serve.kv_cache_memory_mib"


def test_an_unknown_part_makes_the_need_at_least_and_is_named(make_site: SiteMaker, make_profile: ProfileMaker) -> None:
    need = need_of(make_site(kv_cache_memory_mib=1024), make_profile(weights_gib=2.0, runtime_gib=1.0), "worker")
    assert (need.gib, need.at_least, need.unknown) == (4.0, True, ("graphs",))
    assert need.text().startswith("at least 4.0 GiB")
    assert "graphs unknown" in need.text()


def test_a_share_is_a_claim_on_the_whole_and_the_cache_is_what_the_rest_leaves(
    make_site: SiteMaker, make_profile: ProfileMaker
) -> None:
    need = need_of(make_site(gpu_memory_utilization=0.78), make_profile(**KNOWN), "head", total_gib=121.7)
    assert need.gib == pytest.approx(0.78 * 121.7)
    kv = next(part for part in need.parts if part.name == "KV cache")
    assert kv.gib == pytest.approx(0.78 * 121.7 - 83.1)
    assert "0.78 of MemTotal 121.7 GiB" in need.text()


def test_a_gpu_engine_checks_its_share_at_the_start_also_with_a_pinned_cache(
    make_site: SiteMaker, make_profile: ProfileMaker
) -> None:
    site = make_site(gpu_memory_utilization=0.85, kv_cache_memory_mib=1024)
    assert need_of(site, make_profile(**KNOWN), "head", total_gib=121.7).gib == pytest.approx(0.85 * 121.7)
    on_cpu = make_profile("rehearsal", **KNOWN)
    assert need_of(site, on_cpu, "head", total_gib=121.7).gib == pytest.approx(84.1)


def test_a_share_of_an_unknown_total_is_not_known(make_site: SiteMaker, make_profile: ProfileMaker) -> None:
    need = need_of(make_site(gpu_memory_utilization=0.78), make_profile(**KNOWN), "head")
    assert need.claim_gib is None
    assert need.unknown == ("KV cache",)
    assert need.at_least


@pytest.mark.parametrize("name", sorted(path.stem for path in (data_dir("images") / "profiles").glob("*.yml")))
def test_every_shipped_profile_can_be_held_against_a_node(name: str) -> None:
    profile = load_profile(name)
    site = Site.model_validate({**SITE, "profile": name, "serve": dict(cast("dict[str, Any]", profile.site["serve"]))})
    need = need_of(site, profile, "head", total_gib=121.7)
    assert not need.at_least
    assert 1 < need.gib < 121.7


@settings(deadline=None)
@given(st.lists(st.none() | st.floats(0, 200), min_size=4, max_size=4), st.none() | st.floats(0, 200))
def test_the_need_is_never_less_than_any_part_or_the_claim(parts: list[float | None], claim: float | None) -> None:
    names = ("weights", "KV cache", "graphs", "runtime")
    made = tuple(Part.model_validate({"name": n, "gib": g, "source": "x"}) for n, g in zip(names, parts, strict=True))
    need = Need(role="head", parts=made, claim_gib=claim, claim_source="x" if claim is not None else None)
    assert all(need.gib >= gib for gib in (*parts, claim) if gib is not None)
    assert need.at_least == (None in parts and claim is None)
    assert need.text()
