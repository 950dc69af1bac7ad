"""Serving again soon after a death: nobody is waited for who has nothing left to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dspark_ops.supervise.core import machine
from dspark_ops.supervise.core.model import ROLES, DocumentError, EngineSight, Memory, NodeSight, Role, Starts
from dspark_ops.supervise.core.policy import start_blocks
from tests.unit.supervise.core.world import SETTINGS, World, serving_world


def _stop_limits(world: World, since: float) -> dict[str, float | None]:
    """The grace of each stop that was asked for."""
    return {a.kind: a.limit_s for at, a in world.log if at >= since and a.kind.startswith("stop_")}


@pytest.mark.parametrize("role", ROLES)
def test_the_peer_of_a_dead_rank_gets_no_grace_to_drain(role: Role) -> None:
    world = serving_world(load="decode")
    began = world.t
    world.end(role)
    world.recovers(200)
    assert set(_stop_limits(world, began).values()) == {SETTINGS.dead_grace_s}
    incident = world.memory.incident
    assert incident is not None
    assert incident.started is not None
    # Evidence (4 s here), the end of the other rank (2 s), memory (3 s), and the looks between them.
    assert incident.started.monotonic_s - incident.detected.monotonic_s <= 13


def test_a_death_that_only_the_event_tells_of_shortens_the_grace_too() -> None:
    """The look that the event comes with may be older: both ranks still run in it."""
    world = serving_world(load="decode")
    assert world.last is not None
    world.end("worker")
    heard = replace(world.last, monotonic_s=world.t, events=tuple(world.events))
    first = machine.step(SETTINGS, world.memory, heard)
    waited = replace(heard, events=(), monotonic_s=world.t + SETTINGS.evidence_dead_limit_s + 1)
    (stop,) = [a for a in machine.step(SETTINGS, first.memory, waited).actions if a.kind == "stop_head"]
    assert stop.limit_s == SETTINGS.dead_grace_s


def test_an_engine_that_says_it_is_dead_is_neither_drained_nor_given_grace() -> None:
    world = serving_world(load="decode")
    assert world.last is not None
    began = world.t
    for _ in range(20):
        world.t += 5
        dead = replace(
            world.observe(), engine=EngineSight(health="dead", metrics_answered=False), canary=None,
            worker=replace(world.observe().worker, by_management=True, by_fabric=False),
        )  # fmt: skip
        done = machine.step(SETTINGS, world.memory, dead)
        world.memory = done.memory
        world.log += [(world.t, action) for action in done.actions]
        if world.state == "draining" and world.memory.evidence_since is not None:
            world.memory = replace(world.memory, evidence_since=None)
    assert world.state == "stopping"
    assert _stop_limits(world, began) == {"stop_head": SETTINGS.dead_grace_s}
    drained = next(t for t in world.memory.decisions if t.target == "stopping").at.monotonic_s
    began_drain = next(t for t in world.memory.decisions if t.target == "draining").at.monotonic_s
    assert drained - began_drain <= 5


def test_a_pair_that_lives_keeps_its_grace() -> None:
    world = serving_world(load="decode")
    world.frozen = True
    began = world.t
    world.recovers(400)
    limits = _stop_limits(world, began)
    assert limits["stop_head"] == SETTINGS.stop_grace_s
    assert limits["stop_worker"] == SETTINGS.dead_grace_s, "the head is down by then"


def test_a_peer_that_cannot_be_asked_is_not_dead() -> None:
    world = serving_world(load="decode")
    began = world.t
    world.reset("worker", off_s=200.0)
    world.run_until(lambda w: "stop_head" in w.did(since=began), 200)
    assert _stop_limits(world, began)["stop_head"] == SETTINGS.stop_grace_s


def test_what_an_ended_rank_left_blocks_the_start_though_memory_is_back() -> None:
    world = serving_world()
    assert world.last is not None
    stuck = ("VLLM::Worker (process 4711) is left of the ended rank",)
    seen = replace(world.last, worker=replace(world.last.worker, left=stuck, mem_available_gib=118.0))
    blocks = [block for block in start_blocks(SETTINGS, world.memory, seen) if block.kind == "left"]
    assert [block.settles for block in blocks] == [False], "it is told to a person when it lasts"
    assert "process 4711" in blocks[0].text


def _clock_blocks(world: World, **sight: object) -> list[str]:
    assert world.last is not None
    node = NodeSight(by_management=True, mem_available_gib=118.0, clock_synced=False, **sight)  # type: ignore[arg-type]
    seen = replace(world.last, head=node, worker=node)
    return [block.text for block in start_blocks(SETTINGS, world.memory, seen) if block.kind == "clock"]


def test_a_clock_is_waited_for_only_before_the_first_start_after_the_boot_of_its_node() -> None:
    world = serving_world()
    assert world.t > SETTINGS.clock_wait_s, "the head is up for longer; the nodes of below are not"
    assert len(_clock_blocks(world, up_s=60.0)) == 2
    assert _clock_blocks(world, up_s=SETTINGS.clock_wait_s) == []
    world.end("worker")
    world.recovers(200)
    assert world.memory.attempts
    assert _clock_blocks(world, up_s=250.0) == [], "this boot has started a pair already"


def test_restarts_are_counted_over_the_end_of_the_supervisor() -> None:
    world = World()
    world.run_until(lambda w: w.state == "serving", 200)
    for _ in range(2):
        world.end("worker")
        world.recovers(300)
        world.run(30)
        world.crash()
    assert world.memory.restarts == (Starts(cause="process", count=2), Starts(cause="wanted", count=1))


def test_a_memory_of_another_version_is_refused() -> None:
    document = Memory(seed="s").document()
    assert Memory.from_document(document).seed == "s"
    with pytest.raises(DocumentError, match=r"memory\.schema"):
        Memory.from_document({**document, "schema": "dspark-ops/supervise-memory/v2"})
