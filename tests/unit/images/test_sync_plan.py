"""What a sync moves, keeps and takes away, and what it refuses before anything is touched."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Interface

import pytest

from dspark_ops.config.models import (
    FabricSite,
    ImageSite,
    ModelSite,
    NodeSite,
    NodesSite,
    RailEnd,
    RailSite,
    Role,
    ServeSite,
    Site,
)
from dspark_ops.errors import RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.links import AddressFacts, LinkFacts
from dspark_ops.images.inspection import ImageFacts
from dspark_ops.images.sync_plan import SyncPlan, names_its_content, plan_sync, repository_of
from dspark_ops.images.sync_reading import HeldImage, SyncNode, tagged_at

BASE, MIDDLE, TOP = (f"sha256:{c * 64}" for c in "123")
NEW, OLD, OLDER, FOREIGN = (f"sha256:{c * 64}" for c in "abcd")
NAME = "dspark-vllm:current-1a2b3c4d5e6f-0a1b2c3d4e5f"


def end(netdev: str, address: str) -> RailEnd:
    return RailEnd(netdev=netdev, address=IPv4Interface(address))


RAILS = tuple(
    RailSite(name=f"p{i}a", head=end(f"h{i}", f"10.0.{i}.1/24"), worker=end(f"w{i}", f"10.0.{i}.2/24"))
    for i in range(2)
)


def site(reference: str = NAME) -> Site:
    return Site(
        name="pair",
        profile="rehearsal",
        nodes=NodesSite(head=NodeSite(host="a"), worker=NodeSite(host="b")),
        fabric=FabricSite(rails=RAILS),
        image=ImageSite.model_construct(reference=reference, id=NEW, archive=None),
        model=ModelSite.model_validate({"path": "/m", "served_name": "m"}),
        serve=ServeSite(max_model_len=128, max_num_seqs=1),
    )


def held(
    identity: str, *names: str, layers: tuple[str, ...] = (BASE,), ours: bool = True, minute: int = 0
) -> HeldImage:
    labels = {"io.dspark-ops.image": "engine"} if ours else {}
    facts = ImageFacts(
        id=identity, references=names, labels=labels, layers=layers, architecture="arm64", size_bytes=1000
    )
    return HeldImage(facts, datetime(2026, 11, 25, 1, minute, tzinfo=UTC))


def node(role: Role, *images: HeldImage, down: tuple[str, ...] = ()) -> SyncNode:
    links = tuple(
        LinkFacts(
            name=rail.of(role).netdev,
            admin_up=True,
            carrier=rail.of(role).netdev not in down,
            addresses=(AddressFacts(address=rail.of(role).address),),
        )
        for rail in RAILS
    )
    return SyncNode(role, f"spark-{role}", "overlay2", images, links, None, ())


HEAD = node("head", held(NEW, NAME, layers=(BASE, MIDDLE, TOP)))


def plan(worker: SyncNode, head: SyncNode = HEAD, reference: str = NAME) -> SyncPlan:
    return plan_sync(site(reference), {"head": head, "worker": worker})


def refused(worker: SyncNode, head: SyncNode = HEAD, reference: str = NAME) -> str:
    with pytest.raises(RefusedError) as failure:
        plan(worker, head, reference)
    assert failure.value.exit_code is ExitCode.REFUSED
    return failure.value.message


def test_only_the_layers_above_what_the_worker_holds_are_moved() -> None:
    wanted = plan(node("worker", held(OLD, "dspark-vllm:x-000000000000", layers=(BASE, MIDDLE))))
    assert (wanted.bring, wanted.layers, wanted.rail.name) == (True, (TOP,), "p0a")
    assert plan(node("worker")).layers == (BASE, MIDDLE, TOP)
    # The same bytes on top of other layers are another entry of the Engine's store.
    assert plan(node("worker", held(OLD, layers=(MIDDLE, TOP)))).layers == (BASE, MIDDLE, TOP)


def test_the_same_image_under_the_same_name_is_nothing_to_do() -> None:
    assert not plan(node("worker", held(NEW, NAME))).changes


def test_an_image_without_its_name_is_only_named() -> None:
    wanted = plan(node("worker", held(NEW)))
    assert (wanted.bring, wanted.name, wanted.layers, wanted.drop) == (False, True, (), ())


def test_what_an_earlier_run_left_in_the_spool_is_cleaned() -> None:
    wanted = plan(replace(node("worker", held(NEW, NAME)), spooled=(NEW,)))
    assert (wanted.changes, wanted.leftover) == (True, ("worker",))


def test_the_image_of_the_rank_is_the_previous_one_and_older_ones_of_ours_go() -> None:
    old = held(OLD, "dspark-vllm:x-000000000000", minute=1)
    older = held(OLDER, "dspark-vllm:y-000000000000", "dspark-vllm:previous", minute=2)
    foreign = held(FOREIGN, "other:z-000000000000", minute=3)
    unlabelled = held("sha256:" + "e" * 64, "dspark-vllm:w-000000000000", ours=False, minute=4)
    both = held("sha256:" + "f" * 64, "dspark-vllm:v-000000000000", "mine:v", minute=5)
    worker = node("worker", old, older, foreign, unlabelled, both)
    idle = plan(worker)
    assert (idle.previous, idle.drop) == (OLDER, (OLD,))
    assert idle.previous_name == "dspark-vllm:previous"
    serving = plan(replace(worker, rank_image=OLD))
    assert (serving.previous, serving.drop) == (OLD, (OLDER,))
    assert OLD[:19] in serving.render(site())


def test_an_image_of_a_lower_stage_is_never_the_previous_one_and_goes_with_its_release() -> None:
    def staged(identity: str, stage: str, lock: str, minute: int) -> HeldImage:
        one = held(identity, f"dspark-vllm:{stage}-{lock}-{identity[-12:]}", minute=minute)
        labels = {**one.facts.labels, "io.dspark-ops.stage": stage, "io.dspark-ops.lock": lock}
        return replace(one, facts=one.facts.model_copy(update={"labels": labels}))

    wanted = staged(NEW, "c", "333333333333", 9)
    head = node("head", replace(wanted, facts=wanted.facts.model_copy(update={"references": (NAME,)})))
    ids = [f"sha256:{number:064d}" for number in range(6)]
    older = [staged(ids[0], "c", "111111111111", 1), staged(ids[1], "b", "111111111111", 2)]
    last = [staged(ids[2], "c", "222222222222", 3), staged(ids[3], "b", "222222222222", 8)]
    same = [staged(ids[4], "b", "333333333333", 7)]
    plan = plan_sync(site(), {"head": head, "worker": node("worker", *older, *last, *same)})
    assert plan.previous == ids[2]
    assert set(plan.drop) == {ids[0], ids[1]}


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_moved_name_is_refused_with_both_ids(role: Role) -> None:
    other = node(role, held(FOREIGN, NAME, ours=False), held(NEW))
    told = refused(other) if role == "worker" else refused(node("worker"), other)
    assert role in told
    assert FOREIGN in told
    assert NEW in told
    assert "[image.moved_tag]" in told


@pytest.mark.parametrize(
    "reference",
    ["dspark-vllm:latest", "dspark-vllm:0.32.0", "dspark-vllm:current", "host:5000/dspark-vllm", "x:previous"],
)
def test_a_name_that_can_mean_another_image_tomorrow_is_refused(reference: str) -> None:
    assert "[image.mutable_tag]" in refused(node("worker"), reference=reference)


@pytest.mark.parametrize(
    "reference",
    [NAME, "dspark-engine-rehearsal:4485f7c0fed1", "h:5000/a/b@sha256:" + "a" * 64, "h:5000/a/b:c-0123456789ab"],
)
def test_a_name_by_content_is_taken(reference: str) -> None:
    assert names_its_content(reference)


def test_a_head_without_the_image_and_another_storage_driver_are_refused() -> None:
    assert "the head (spark-head) has no image" in refused(node("worker"), node("head"))
    told = refused(replace(node("worker"), storage_driver="overlayfs"))
    assert "worker (spark-worker)" in told
    assert "overlayfs" in told


def test_the_next_rail_is_taken_when_the_first_is_down_on_either_end_and_none_is_refused() -> None:
    assert plan(node("worker", down=("w0",))).rail.name == "p1a"
    assert plan(node("worker"), replace(node("head", *HEAD.images, down=("h0",)))).rail.name == "p1a"
    told = refused(node("worker", down=("w0", "w1")))
    assert "w0 of the worker has no link" in told
    assert "w1 of the worker has no link" in told
    bare = node("worker")
    lost = replace(bare, links=(bare.links[0].model_copy(update={"addresses": ()}), bare.links[1]))
    assert plan(lost).rail.name == "p1a"


@pytest.mark.parametrize(
    ("reference", "repository"),
    [("a:b", "a"), ("h:5000/a/b:c", "h:5000/a/b"), ("h:5000/a/b", "h:5000/a/b"), ("a@sha256:1", "a")],
)
def test_the_repository_of_a_name(reference: str, repository: str) -> None:
    assert repository_of(reference) == repository


def test_when_an_image_was_last_named() -> None:
    """As Docker 20.10 prints it: nanoseconds, the node's own zone, and the year 1 for never."""
    text = '[{"Metadata": {"LastTagTime": "%s"}}]'
    assert tagged_at(text % "2026-11-25T04:51:05.123456789+01:00") == datetime(
        2026, 11, 25, 3, 51, 5, 123456, tzinfo=UTC
    )
    assert tagged_at(text % "0001-01-01T00:00:00Z") is None
    assert tagged_at("[{}]") is None
