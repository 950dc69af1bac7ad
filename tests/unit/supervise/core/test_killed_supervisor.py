"""kill -9 of the supervisor at every second of a recovery: the next one goes on with the same start."""

from __future__ import annotations

import copy
import random

import pytest

from dspark_ops.supervise.core.model import Memory
from tests.unit.supervise.core.world import World, one_epoch, serving_world, with_settings


def _fault(kind: str) -> World:
    world = serving_world(load="decode")
    if kind == "death":
        world.end("worker")
        return world
    world.frozen = True
    world.run_until(lambda w: w.state == "draining", 300)
    world.load = "idle"
    return world


@pytest.mark.parametrize("kind", ["death", "wedge"])
@pytest.mark.parametrize("done", [True, False], ids=["after acting", "before acting"])
def test_a_killed_supervisor_goes_on_with_one_start(kind: str, done: bool) -> None:
    begun, states = _fault(kind), set()
    for second in range(0, 110, 3):
        world = copy.deepcopy(begun)
        world.run(second)
        states.add(world.state)
        if done:
            for pending in world.pending.values():
                pending.at = world.t
            world._finish()
        world.crash()
        world.run_until(lambda w: w.state == "serving" and w.t > begun.t + 110, 400)
        assert one_epoch(world) == world.memory.epoch
        assert len({action.epoch for _, action in world.log if action.kind == "start_worker"}) == 1
        assert len(world.memory.attempts) == 1
    assert {"stopping", "cooling", "starting", "gate", "serving"} <= states


def test_a_supervisor_that_is_killed_all_the_time_still_heals_the_pair() -> None:
    world = _fault("death")
    for _ in range(40):
        world.run(7)
        world.crash()
    world.run_until(lambda w: w.state == "serving", 120)
    assert len({action.epoch for _, action in world.log if action.kind == "start_worker"}) == 1


def test_what_is_saved_is_read_back_whole() -> None:
    world = _fault("wedge")
    world.run(200)
    assert Memory.from_document(world.memory.document()) == world.memory


def test_after_each_of_fifty_random_kills_one_start_runs_and_nothing_is_left_of_another() -> None:
    chance = random.Random(8)  # noqa: S311
    world = serving_world(settings=with_settings(budget=1000, backoff_s=(0.0,), jitter=0.0), load_s=20.0)
    epochs = set()
    for _ in range(50):
        what = chance.choice(["head", "worker", "both", "supervisor", "freeze"])
        if what in ("head", "both"):
            world.end("head", chance.choice([0, 1, 137]))
        if what in ("worker", "both"):
            world.end("worker", chance.choice([0, 1, 137]))
        if what == "freeze":
            world.frozen = True
        world.run(chance.randint(0, 60))
        if chance.random() < 0.5:
            world.crash()
        world.run(20)
        world.run_until(lambda w: w.state == "serving" and w.works(), 600)
        assert one_epoch(world) == world.memory.epoch
        epochs.add(world.memory.epoch)
    assert len(epochs) > 25
