"""What a verb proved: a deployment over a pair that gave up, and a pair that serves while a person holds it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dspark_ops.supervise.core import machine
from dspark_ops.supervise.core.model import ROLES, FatalLine, Memory, Wanted
from tests.unit.supervise.core.world import SETTINGS, Container, World, serving_world

XID = FatalLine(key="worker:boot:1.0:xid79", kind="xid", code=79)


def _gave_up() -> World:
    """A pair whose image never starts: the budget is spent."""
    world = serving_world()
    world.bad_image = True
    world.end("worker")
    world.run_until(lambda w: w.state == "failed", 8 * 3600)
    world.bad_image = False
    return world


def _held(world: World, *, drain: bool = False) -> None:
    assert world.last is not None
    world.memory = machine.hold(world.memory, world.last, reason="r", owner="ada", for_s=7200.0, drain=drain)


def _hold_ends(world: World) -> None:
    """As `resume --owner`: the hold alone."""
    world.memory = replace(world.memory, hold=None)


def _deploy(world: World, release: str = "r-2", epoch: str = "deploy-2") -> None:
    for role in ROLES:
        world.nodes[role].container = Container(epoch, release=release, since=world.t)
    world.wanted = Wanted(release=release)


def _route(world: World) -> int:
    return machine.route(SETTINGS, world.memory, 0.0)


def test_a_deployment_over_a_spent_budget_serves_and_has_a_fresh_one() -> None:
    world = _gave_up()
    assert world.memory.latched_for == "budget"
    _held(world, drain=True)
    _deploy(world)
    world.run(120)
    began = world.t
    _hold_ends(world)
    world.run_until(lambda w: w.state == "serving", 60)
    assert world.disruptive(since=began) == []
    assert (world.memory.latched, world.memory.latched_for, world.memory.attempts) == (None, None, ())
    assert "latched" not in world.alerts()
    assert _route(world) == 200
    world.end("worker")
    world.recovers(300)


def test_a_deployment_that_does_not_answer_well_ends_latched_again() -> None:
    world = _gave_up()
    world.garbled = True
    _deploy(world)
    world.run_until(lambda w: w.state == "gate", 120)
    world.run_until(lambda w: w.state == "failed", 600)
    assert world.memory.latched_for == "budget"


def test_a_pair_that_was_stopped_on_purpose_is_not_latched_and_its_budget_stays_spent() -> None:
    world = _gave_up()
    world.wanted = Wanted(release="r-1", run=False)
    world.run(10)
    assert (world.state, "latched" in world.alerts()) == ("cooling", False)
    world.wanted = Wanted(release="r-1")
    world.run(10)
    assert (world.state, world.memory.latched_for) == ("failed", "budget")


def test_what_is_not_wanted_ends_no_latch() -> None:
    world = _gave_up()
    _deploy(world)
    world.wanted = Wanted(release="r-1")
    world.run(300)
    assert world.state == "failed"


@pytest.mark.parametrize("held", [False, True])
def test_a_deployment_ends_no_latch_for_harm(held: bool) -> None:
    world = serving_world()
    world.nodes["worker"].fatal = (XID,)
    world.run(10)
    world.end("worker")
    world.run_until(lambda w: w.state == "failed", 60)
    assert world.memory.latched_for == "harm"
    if held:
        _held(world)
    _deploy(world)
    world.run(300)
    assert (world.state, _route(world)) == ("failed", 503)


def test_a_state_that_could_not_be_trusted_waits_for_a_person_whatever_runs() -> None:
    world = serving_world()
    lost = Memory(seed="new", state="failed", latched="state.json is damaged", latched_for="state")
    world.memory = lost
    world.run(300)
    assert world.state == "failed"


def test_a_held_pair_that_answers_correctly_is_routed_to() -> None:
    world = serving_world()
    _held(world)
    for role in ROLES:
        world.nodes[role].container = None
    world.run(30)
    assert _route(world) == 503
    began = world.t
    _deploy(world)
    world.run(20)
    assert _route(world) == 503, "it loads, and nothing has answered yet"
    world.run_until(lambda w: w.state == "serving", 120)
    assert _route(world) == 200
    assert world.memory.epoch == "deploy-2"
    assert world.disruptive(since=began) == []
    assert world.did("run_gate", since=began) == []
    world.end("worker")
    world.run(10)
    assert _route(world) == 503
    assert world.disruptive(since=began) == []


def test_a_hold_with_drain_keeps_a_pair_that_answers_out_of_the_route() -> None:
    world = serving_world()
    _held(world, drain=True)
    _deploy(world)
    world.run(150)
    assert (world.state, _route(world)) == ("serving", 404)


@pytest.mark.parametrize("fault", ["garbled", "release", "epoch", "frozen"])
def test_a_held_pair_is_not_routed_to_without_a_correct_answer_of_one_wanted_start(fault: str) -> None:
    world = serving_world()
    _held(world)
    _deploy(world)
    if fault == "epoch":
        world.nodes["head"].container = Container("deploy-3", release="r-2", since=world.t)
    if fault == "release":
        world.wanted = Wanted(release="r-9")
    world.garbled, world.frozen = fault == "garbled", fault == "frozen"
    world.run(300)
    assert (world.state, _route(world)) == ("cooling", 503)


def test_an_answer_of_before_proves_nothing_under_a_hold() -> None:
    world = serving_world()
    assert world.canary is not None
    assert world.canary.verdict == "correct"
    _held(world)
    _deploy(world)
    world.look()
    world.look()
    assert world.state == "cooling"


def test_a_held_spent_pair_serves_once_a_deployment_under_the_hold_answers() -> None:
    world = _gave_up()
    _held(world)
    _deploy(world)
    world.run_until(lambda w: w.state == "serving", 200)
    assert (_route(world), world.memory.latched) == (200, None)


def test_a_pair_that_dies_under_a_hold_is_told_to_a_person() -> None:
    world = serving_world()
    _held(world)
    world.end("worker")
    world.run(SETTINGS.stuck_page_s + 10)
    assert "held-down" in world.alerts()
