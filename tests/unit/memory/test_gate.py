"""The gate: it refuses before anything moves, names what is missing and who holds it, and never guesses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dspark_ops.config.models import Profile, Role, Site
from dspark_ops.facts.gpu import GpuFacts, GpuProcessFacts
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.facts.rank import RankFacts
from dspark_ops.memory.gate import memory_refusals
from dspark_ops.tenants.model import Tenant
from tests.unit.memory.conftest import kib, pair_with

KNOWN = {"weights_gib": 72.6, "graphs_gib": 0.5, "runtime_gib": 10.0}
NEED_GIB = 0.78 * 121.7


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(gpu_memory_utilization=0.78)


@pytest.fixture
def profile(make_profile: Callable[..., Profile]) -> Profile:
    return make_profile(**KNOWN)


def tenant(key: str, *, memory_gib: float | None = None, gpu_gib: float | None = None) -> Tenant:
    def of(gib: float | None) -> int | None:
        return None if gib is None else kib(gib)

    return Tenant(
        node="head",
        kind="container",
        key=key,
        what="a server",
        memory_kib=of(memory_gib),
        gpu_kib=of(gpu_gib),
        stops_by="docker stop",
        comes_back_by="docker start",
    )


def running(memory_gib: float | None) -> dict[str, Any]:
    return {
        "rank": RankFacts(
            id="c" * 64,
            state="running",
            pids=(10, 11),
            memory_kib=None if memory_gib is None else kib(memory_gib),
            labels={"io.dspark-ops.site": "desk"},
        )
    }


def test_two_free_nodes_have_room(site: Site, profile: Profile) -> None:
    assert memory_refusals(site, profile, pair_with({"head": 115.0, "worker": 115.0})) == []


def test_the_articles_conflict_is_refused_with_the_need_what_is_there_and_who_holds_it(
    site: Site, profile: Profile
) -> None:
    pair = pair_with({"head": 1.36, "worker": 115.0})
    holders: dict[Role, list[Tenant]] = {"head": [tenant("container:llama", gpu_gib=102.0), tenant("unit:ollama")]}
    (refusal,) = memory_refusals(site, profile, pair, holders=holders)
    assert (refusal.role, refusal.could_not_tell, refusal.check) == ("head", False, "host.memory_floor")
    assert refusal.missing_gib == pytest.approx(NEED_GIB + 4 - 1.36, abs=0.01)
    for words in (
        "head: 1.4 GiB available",
        "0.78 of MemTotal 121.7 GiB",
        "weights 72.6",
        "the floor is 4 GiB",
        "97.6 GiB are missing",
        "container:llama holds 102.0 GiB",
        "not known how much is held by unit:ollama",
    ):
        assert words in refusal.observed
    assert "dspark-ops tenants list" in refusal.remedy


def test_the_floor_stays_free_beside_the_need(site: Site, profile: Profile) -> None:
    just = NEED_GIB + 4.0
    assert memory_refusals(site, profile, pair_with({"head": just + 0.01, "worker": just + 0.01})) == []
    refused = memory_refusals(site, profile, pair_with({"head": just + 0.01, "worker": just - 0.2}))
    assert [refusal.role for refusal in refused] == ["worker"]


def test_both_nodes_are_named_at_once(site: Site, profile: Profile) -> None:
    refused = memory_refusals(site, profile, pair_with({"head": 10.0, "worker": 20.0}))
    assert [refusal.role for refusal in refused] == ["head", "worker"]


@pytest.mark.parametrize("memory", [None, MemoryFacts(mem_total_kib=kib(121.7)), MemoryFacts(mem_available_kib=kib(9))])
def test_what_cannot_be_read_is_no_verdict(site: Site, profile: Profile, memory: MemoryFacts | None) -> None:
    pair = pair_with({"head": 115.0, "worker": 115.0}, worker={"memory": memory})
    (refusal,) = memory_refusals(site, profile, pair)
    assert (refusal.role, refusal.could_not_tell, refusal.missing_gib) == ("worker", True, None)
    assert "could not tell" in refusal.observed


def test_what_evictions_give_back_counts(site: Site, profile: Profile) -> None:
    pair = pair_with({"head": 1.36, "worker": 115.0})
    assert memory_refusals(site, profile, pair, given_back_kib={"head": kib(102)}) == []
    (refusal,) = memory_refusals(site, profile, pair, given_back_kib={"head": kib(50)})
    assert "50.0 GiB that the evictions give back" in refusal.observed


def test_an_eviction_of_unknown_size_is_judged_when_it_is_done(site: Site, profile: Profile) -> None:
    pair = pair_with({"head": 1.36, "worker": 115.0})
    assert memory_refusals(site, profile, pair, given_back_kib={"head": None}) == []


def test_what_never_fits_is_refused_whatever_is_given_back(make_site: Callable[..., Site], profile: Profile) -> None:
    site = make_site(kv_cache_memory_mib=60 * 1024)
    pair = pair_with({"head": 115.0, "worker": 115.0})
    refused = memory_refusals(site, profile, pair, given_back_kib={"head": None, "worker": kib(100)})
    assert [refusal.role for refusal in refused] == ["head", "worker"]
    assert all("121.7 GiB in all" in refusal.observed for refusal in refused)
    assert all("never fits" in refusal.remedy for refusal in refused)


def test_our_own_rank_gives_back_what_it_holds(
    make_site: Callable[..., Site], make_profile: Callable[..., Profile]
) -> None:
    site = make_site(kv_cache_memory_mib=1024, floor_gib=1.0)
    on_cpu = make_profile("rehearsal", weights_gib=0.0, graphs_gib=0.0, runtime_gib=2.0)
    enough = pair_with({"head": 2.0, "worker": 5.0}, head=running(2.5))
    assert memory_refusals(site, on_cpu, enough) == []
    short = pair_with({"head": 2.0, "worker": 5.0}, head=running(1.0))
    (refusal,) = memory_refusals(site, on_cpu, short)
    assert "1.0 GiB that the running rank gives back" in refusal.observed
    unknown = pair_with({"head": 2.0, "worker": 5.0}, head=running(None))
    assert memory_refusals(site, on_cpu, unknown) == []


def test_on_a_gpu_the_ranks_memory_is_what_the_driver_says_and_na_is_not_zero(site: Site, profile: Profile) -> None:
    def gpu(used_mib: int | None) -> dict[str, Any]:
        processes = (GpuProcessFacts(pid=11, name="VLLM::Worker_TP0", used_mib=used_mib),)
        return {**running(3.0), "gpu": GpuFacts(processes=processes)}

    available: dict[Role, float | None] = {"head": 14.0, "worker": 115.0}
    assert memory_refusals(site, profile, pair_with(available, head=gpu(95_000))) == []
    assert [r.role for r in memory_refusals(site, profile, pair_with(available, head=gpu(20_000)))] == ["head"]
    assert memory_refusals(site, profile, pair_with(available, head=gpu(None))) == []


def test_an_unknown_need_refuses_only_below_what_is_known(
    make_site: Callable[..., Site], make_profile: Callable[..., Profile]
) -> None:
    nothing = make_profile()
    assert memory_refusals(make_site(), nothing, pair_with({"head": 4.1, "worker": 4.1})) == []
    (refusal,) = memory_refusals(make_site(), nothing, pair_with({"head": 3.9, "worker": 4.1}))
    assert "at least 0.0 GiB" in refusal.observed
    assert refusal.role == "head"
