from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.observed import CanaryAnswer, Observation
from dspark_ops.deploy.plan import DeployPlan, plan_deploy
from dspark_ops.deploy.spec import RankSpec, render_pair
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.facts.disk import DiskFacts
from dspark_ops.facts.docker_engine import EngineFacts
from dspark_ops.facts.listeners import ListenerFacts
from tests.unit.deploy.conftest import SiteMaker, rank_of, seen

NOW = datetime(2026, 11, 23, 10, 1, 0, tzinfo=UTC)
RIGHT = CanaryAnswer(True, "The quick brown fox jumps over the lazy dog.", None)
SILENT = CanaryAnswer(False, None, "connection refused")
GARBLED = CanaryAnswer(False, "ŧħ€ ŧħ€", "expected ...")
Specs = dict[Role, RankSpec]


def plan(loaded: LoadedSite, observation: Observation) -> DeployPlan:
    return plan_deploy(loaded.site, render_pair(loaded.site, loaded.profile), observation, now=NOW)


def test_what_serves_as_wanted_is_kept_with_its_epoch(loaded: LoadedSite, specs: Specs) -> None:
    result = plan(loaded, seen(loaded, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]), canary=RIGHT))
    assert (result.action, result.epoch, result.changes) == ("keep", "e1", False)


def test_an_empty_pair_is_started_under_a_new_epoch(loaded: LoadedSite) -> None:
    first, second = plan(loaded, seen(loaded)), plan(loaded, seen(loaded))
    assert first.action == "start"
    assert first.stops == ()
    assert first.epoch != second.epoch


@pytest.mark.parametrize(
    ("head", "worker", "why"),
    [
        ({}, None, "no rank container on worker"),
        ({}, {"state": "exited", "exit_code": 0}, "exited"),
        ({"state": "exited", "exit_code": 137}, {}, "SIGKILL"),
    ],
)
def test_half_a_pair_is_cycled_as_a_pair(
    loaded: LoadedSite, specs: Specs, head: dict[str, Any], worker: dict[str, Any] | None, why: str
) -> None:
    observation = seen(
        loaded,
        head=rank_of(specs["head"], **head),
        worker=None if worker is None else rank_of(specs["worker"], **worker),
        canary=RIGHT,
    )
    result = plan(loaded, observation)
    assert result.action == "start"
    assert result.epoch != "e1"
    assert any(why in reason for reason in result.reasons)


def test_ranks_of_different_epochs_are_no_pair(loaded: LoadedSite, specs: Specs) -> None:
    observation = seen(loaded, head=rank_of(specs["head"], "e1"), worker=rank_of(specs["worker"], "e2"), canary=RIGHT)
    assert plan(loaded, observation).action == "start"


def test_a_start_that_was_left_alone_is_waited_for_and_not_begun_again(loaded: LoadedSite, specs: Specs) -> None:
    observation = seen(loaded, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]), canary=SILENT)
    result = plan(loaded, observation)
    assert (result.action, result.epoch, result.changes) == ("wait", "e1", False)


def test_a_pair_that_is_silent_for_too_long_is_cycled(make_site: SiteMaker) -> None:
    loaded = make_site("guards.ready_timeout_s=30")
    specs = render_pair(loaded.site, loaded.profile)
    observation = seen(loaded, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]), canary=SILENT)
    assert plan(loaded, observation).action == "start"


def test_a_pair_that_garbles_is_cycled_at_once(loaded: LoadedSite, specs: Specs) -> None:
    observation = seen(loaded, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]), canary=GARBLED)
    assert plan(loaded, observation).action == "start"


def test_another_release_is_replaced_and_the_plan_says_so(make_site: SiteMaker) -> None:
    old = make_site()
    specs = render_pair(old.site, old.profile)
    new = make_site("serve.max_model_len=2048")
    result = plan(new, seen(new, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]), canary=RIGHT))
    assert result.action == "start"
    assert result.stops == ("head", "worker")
    text = result.render(new.site)
    assert specs["head"].release in text
    assert result.release in text


def test_the_image_is_loaded_only_where_it_is_absent(loaded: LoadedSite) -> None:
    assert plan(loaded, seen(loaded, change={"worker": {"images": ()}})).load_image == ("worker",)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"worker": {"images": (), "disks": (DiskFacts(path="/var/lib/docker", free_bytes=10**9),)}}, "host.disk_free"),
        ({"worker": {"images": (), "disks": None}}, "host.disk_free"),
        ({"head": {"listeners": (ListenerFacts(address="0.0.0.0", port=8000, process="ollama"),)}}, "tenant.port"),
        ({"worker": {"links": ()}}, "fabric.address_planned"),
    ],
)
def test_a_guard_refuses_before_anything_is_changed(
    loaded: LoadedSite, change: dict[Role, dict[str, Any]], check: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        plan(loaded, seen(loaded, change=change))
    assert check in caught.value.message
    assert caught.value.hint


def test_an_mtu_of_1500_on_one_end_is_refused_with_the_port(loaded: LoadedSite) -> None:
    links = seen(loaded).pair.worker.links or ()
    narrow = (links[0], links[1].model_copy(update={"mtu": 1500}))
    with pytest.raises(RefusedError, match=r"worker: enP2p1s0f1np1 has MTU 1500, the site wants 9000 \[fabric.mtu\]"):
        plan(loaded, seen(loaded, change={"worker": {"links": narrow}}))


@pytest.mark.parametrize("labels", [{}, {"io.dspark-ops.site": "other"}])
def test_a_container_that_is_not_ours_is_never_stopped(
    loaded: LoadedSite, specs: Specs, labels: dict[str, str]
) -> None:
    with pytest.raises(RefusedError, match=r"tenant\.foreign_name"):
        plan(loaded, seen(loaded, head=rank_of(specs["head"], labels=labels)))


@pytest.mark.parametrize(
    "change",
    [
        {"reachable": False, "error": "no answer within 10 s"},
        {"sudo": False},
        {"docker": EngineFacts(answers=False, error="Cannot connect")},
        {"docker": None},
        {"rank_known": False},
        {"images": None},
    ],
)
def test_what_could_not_be_told_is_no_ground_to_act(loaded: LoadedSite, change: dict[str, Any]) -> None:
    with pytest.raises(NoVerdictError) as caught:
        plan(loaded, seen(loaded, change={"worker": change}))
    assert "worker" in caught.value.message
    assert "nothing was changed" in caught.value.message
    assert caught.value.exit_code == 3


def test_a_new_port_that_somebody_else_holds_is_refused_although_a_rank_of_ours_runs(make_site: SiteMaker) -> None:
    old = make_site()
    specs = render_pair(old.site, old.profile)
    ranks = {role: rank_of(specs[role], args=tuple(specs[role].command)) for role in ROLES}
    held = (ListenerFacts(address="127.0.0.1", port=8000, process="vllm"), ListenerFacts(address="::", port=8100))
    observation = seen(old, **ranks, canary=RIGHT, change={"head": {"listeners": held}})
    assert plan(make_site("serve.max_num_seqs=3"), observation).action == "start"
    with pytest.raises(RefusedError, match="port 8100"):
        plan(make_site("serve.api_port=8100"), observation)
