"""What a fetch and a mirror will bring, and what forbids them before the first byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from dspark_ops.config.models import ModelSite
from dspark_ops.errors import ConfigError, RefusedError
from dspark_ops.weights.plan import plan_fetch, plan_sync, require_hub
from dspark_ops.weights.quick import quick_look, quick_probes
from dspark_ops.weights.spec import mount_of
from dspark_ops.weights.state import missing_bytes
from tests.unit.weights.pair import BOTH, DIGESTS, FILES, MANIFEST, REVISION, ROOT, empty, reading, site, whole

_GIB = 1 << 30


def pair(head: Any = None, worker: Any = None) -> Any:
    return {"head": head or whole("head"), "worker": worker or whole("worker")}


def test_where_all_is_whole_nothing_is_planned() -> None:
    assert not plan_fetch(site(), MANIFEST, pair(), BOTH).changes
    assert not plan_sync(site(), pair(), BOTH).changes


def test_an_empty_pair_takes_all_once_and_mirrors_it_over_every_rail() -> None:
    plan = plan_fetch(site(), MANIFEST, pair(empty("head"), empty("worker")), {"head": {}, "worker": {}})
    assert (plan.fetch, plan.mirror, plan.settle) == (FILES, FILES, ("head", "worker"))
    assert plan.need_bytes == {"head": MANIFEST.total_bytes, "worker": MANIFEST.total_bytes}
    text = plan.render(site())
    assert "fetch   3 files to the head" in text
    assert "over p0a, p1a, 7.0 GiB at the most" in text


def test_a_wrong_digest_is_mirrored_again_and_only_it() -> None:
    wrong = DIGESTS | {FILES[1].blob: "e" * 64}
    plan = plan_sync(site(), pair(), {"head": {}, "worker": wrong})
    assert (plan.mirror, plan.fetch, plan.settle) == ((FILES[1],), (), ("worker",))
    assert (plan.need_bytes["worker"], plan.move_bytes["worker"]) == (0, FILES[1].size)


def test_a_digest_that_could_not_be_computed_is_not_taken_for_whole() -> None:
    plan = plan_sync(site(), pair(), {"head": {}, "worker": DIGESTS | {FILES[1].blob: None}})
    assert plan.mirror == (FILES[1],)


def test_only_a_ref_with_a_newline_makes_the_snapshot_anew() -> None:
    plan = plan_sync(site(), pair(worker=whole("worker", ref=REVISION + "\n")), BOTH)
    assert (plan.mirror, plan.settle) == ((), ("worker",))


def test_what_an_earlier_run_left_needs_no_more_room() -> None:
    node = empty("worker", blobs={FILES[0].blob + ".incomplete": 3 * _GIB})
    assert missing_bytes((FILES[0],), node) == _GIB
    plan = plan_sync(site(), pair(worker=node), None)
    assert plan.move_bytes["worker"] == MANIFEST.total_bytes - 3 * _GIB


@pytest.mark.parametrize("full", ["head", "worker"])
def test_a_full_disk_on_either_node_is_refused_first(full: Any) -> None:
    nodes = pair(empty("head"), empty("worker"))
    nodes[full] = replace(nodes[full], free_bytes=16 * _GIB)
    with pytest.raises(
        RefusedError, match=f"{full} .*16.0 GiB free, the weights need 7.0 GiB more and the floor is 10"
    ):
        plan_fetch(site(disk_floor_gib=10), MANIFEST, nodes, None)
    nodes[full] = replace(nodes[full], free_bytes=None)
    with pytest.raises(RefusedError, match="cannot be read"):
        plan_fetch(site(), MANIFEST, nodes, None)


def test_a_rail_that_is_down_is_said_and_not_used_and_without_any_nothing_is_begun() -> None:
    down = pair(worker=empty("worker", links=whole("worker", down=("w0",)).links))
    plan = plan_sync(site(), down, None)
    assert [rail.name for rail in plan.rails] == ["p1a"]
    assert "not over p0a: w0 of the worker has no link" in plan.render(site())
    none = pair(worker=empty("worker", links=whole("worker", down=("w0", "w1")).links))
    with pytest.raises(RefusedError, match=r"no rail is up[\s\S]*weights.no_rail"):
        plan_sync(site(), none, None)


def test_a_head_that_is_not_whole_is_no_source() -> None:
    broken = whole("head", blobs={**(whole("head").blobs or {}), FILES[0].blob: 5})
    with pytest.raises(RefusedError, match=r"does not have acme/tiny-moe whole[\s\S]*model-1.safetensors: 5 of"):
        plan_sync(site(), pair(broken), None)
    with pytest.raises(RefusedError, match=r"no record of what whole weights are.*\[weights.record\]"):
        plan_sync(site(), pair(empty("head")), None)


def test_a_site_that_keeps_its_weights_itself_is_told_so() -> None:
    plain = site().model_copy(update={"model": ModelSite.model_validate({"path": "/m", "served_name": "m"})})
    with pytest.raises(ConfigError, match=r"names no model\.hub"):
        require_hub(plain)
    assert quick_probes(plain) == ()
    assert quick_look(plain, {}) == []
    assert mount_of(plain) == ((), PurePosixPath("/m"))


def test_a_rank_sees_the_whole_repository_and_is_given_the_pinned_snapshot() -> None:
    [mount], path = mount_of(site())
    assert mount == {"source": ROOT, "target": "/models/hub/models--acme--tiny-moe", "read_only": True}
    assert str(path) == f"/models/hub/models--acme--tiny-moe/snapshots/{REVISION}"


def test_the_look_before_a_deploy_passes_whole_weights_and_names_what_is_not() -> None:
    assert quick_look(site(), {"head": reading("head"), "worker": reading("worker")}) == []
    short = whole("worker", snapshot={**(whole("worker").snapshot or {}), FILES[0].name: 12})
    [refusal] = quick_look(site(), {"head": reading("head"), "worker": reading("worker", short)})
    assert refusal.check == "weights.files"
    assert f"worker (b): the weights are not whole: {FILES[0].name}: 12 of {FILES[0].size} bytes" in refusal.observed
    [refusal] = quick_look(site(), {"head": reading("head"), "worker": reading("worker", empty("worker"))})
    assert (refusal.check, "no record" in refusal.observed) == ("weights.record", True)


def test_the_look_takes_an_unread_node_for_no_good() -> None:
    from dspark_ops.transport.base import NodeReading

    lost = NodeReading(node="worker", reachable=False, error="gone")
    assert [r.check for r in quick_look(site(), {"head": reading("head"), "worker": lost})] == ["weights.record"]
