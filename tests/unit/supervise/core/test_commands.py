"""Hold, resume, the route and the words: what a person and HAProxy are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dspark_ops.supervise.core import machine
from dspark_ops.supervise.core.explain import explain
from dspark_ops.supervise.core.model import Hold, Instant, Memory, Observation, Wanted
from tests.unit.supervise.core.world import SETTINGS, Container, World, one_epoch, serving_world

NOW = Observation(wall_s=1.7e9, monotonic_s=1000.0, boot_id="b")


def _held(world: World, for_s: float = 3600.0, *, drain: bool = False) -> None:
    assert world.last is not None
    world.memory = machine.hold(
        world.memory, world.last, reason="a deployment", owner="run-7", for_s=for_s, drain=drain
    )


def _resume(world: World) -> None:
    assert world.last is not None
    world.memory = machine.resume(world.memory, world.last)


def test_a_held_supervisor_watches_and_does_nothing() -> None:
    world = serving_world()
    _held(world)
    world.end("worker")
    began = world.t
    world.run(1800)
    assert world.did(since=began) == ["alert"] * len(world.did(since=began))
    assert world.state == "cooling"
    assert machine.route(SETTINGS, world.memory, 0.0) == 503


def test_a_held_pair_that_freezes_is_suspect_and_says_what_it_would_do() -> None:
    world = serving_world(load="decode")
    _held(world)
    began = world.t
    world.frozen = True
    world.run(400)
    assert world.state == "suspect"
    assert "held-would-act" in world.alerts()
    assert world.disruptive(since=began) == []


def test_a_deployment_under_a_hold_is_taken_over_without_a_restart() -> None:
    world = serving_world()
    _held(world)
    for role in ("head", "worker"):
        world.nodes[role].container = None  # type: ignore[index]
    world.run(30)
    for role in ("head", "worker"):
        world.nodes[role].container = Container("deploy-2", release="r-2", since=world.t)  # type: ignore[index]
    world.run(100)
    world.wanted = Wanted(release="r-2")
    began = world.t
    _resume(world)
    world.run_until(lambda w: w.state == "serving", 60)
    assert one_epoch(world) == world.memory.epoch == "deploy-2"
    assert world.disruptive(since=began) == []


def test_a_deployment_between_two_looks_is_taken_over_too() -> None:
    world = serving_world()
    for role in ("head", "worker"):
        world.nodes[role].container = Container("deploy-2", since=0.0)  # type: ignore[index]
    began = world.t
    world.recovers(60)
    assert world.memory.epoch == "deploy-2"
    assert world.disruptive(since=began) == []


def test_a_hold_that_expires_gives_the_pair_back_and_says_so() -> None:
    world = serving_world()
    _held(world, for_s=600.0)
    world.end("worker")
    world.run(500)
    assert "hold-ends" not in world.alerts()
    world.run(60)
    assert "hold-ends" in world.alerts()
    assert world.starts() == []
    world.run_until(lambda w: w.state == "serving", 400)
    assert any(action.alert == "hold-expired" for _, action in world.log)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_jump_of_the_clock_neither_ends_nor_prolongs_a_hold(jump_s: float) -> None:
    world = serving_world()
    _held(world, for_s=600.0)
    world.wall_offset += jump_s
    world.run(590)
    assert world.memory.hold is not None
    world.run(20)
    assert world.memory.hold is None


def test_a_hold_is_its_owners_until_it_expires() -> None:
    memory = machine.hold(Memory(seed="s"), NOW, reason="work", owner="a", for_s=60.0)
    with pytest.raises(ValueError, match="held by a for 60 s more"):
        machine.hold(memory, NOW, reason="other work", owner="b", for_s=60.0)
    assert machine.hold(memory, NOW, reason="more work", owner="a", for_s=90.0).hold is not None
    later = replace(NOW, monotonic_s=1061.0)
    taken = machine.hold(memory, later, reason="other work", owner="b", for_s=60.0)
    assert taken.hold is not None
    assert taken.hold.owner == "b"


@pytest.mark.parametrize("for_s", [0.0, -1.0, float("nan")])
def test_a_hold_without_time_is_refused(for_s: float) -> None:
    with pytest.raises(ValueError, match="expected more than 0"):
        machine.hold(Memory(seed="s"), NOW, reason="work", owner="a", for_s=for_s)


def test_a_resume_gives_a_fresh_budget() -> None:
    world = serving_world()
    world.bad_image = True
    world.end("worker")
    world.run_until(lambda w: w.state == "failed", 8 * 3600)
    _resume(world)
    assert world.memory.attempts == ()
    world.run_until(lambda w: w.state == "failed", 8 * 3600)
    assert len(world.starts()) == 8


@pytest.mark.parametrize(
    ("state", "drain", "age_s", "answer"),
    [
        ("serving", None, 1.0, 200),
        ("suspect", None, 1.0, 200),
        ("draining", None, 1.0, 404),
        ("serving", False, 1.0, 200),
        ("serving", True, 1.0, 404),
        ("cooling", True, 1.0, 503),
        ("stopping", None, 1.0, 503),
        ("cooling", None, 1.0, 503),
        ("starting", None, 1.0, 503),
        ("gate", None, 1.0, 503),
        ("failed", None, 1.0, 503),
        ("serving", None, 21.0, 503),
    ],
)
def test_the_route(state: str, drain: bool | None, age_s: float, answer: int) -> None:
    at = Instant(monotonic_s=0.0, wall_s=0.0)
    held = None if drain is None else Hold(reason="r", owner="o", since=at, for_s=60.0, drain=drain)
    memory = Memory(seed="s", state=state, hold=held)  # type: ignore[arg-type]
    assert machine.route(SETTINGS, memory, age_s) == answer


def _words(world: World) -> str:
    assert world.last is not None
    return explain(world.settings, world.memory, world.last)


def test_the_words_say_state_reason_and_what_would_make_it_act() -> None:
    text = _words(serving_world())
    assert text.startswith("State serving for 60 s: it serves. Why: the gate passed.")
    assert "two independent signs" in text
    assert "Starts in 6 h: 0 of 4" in text
    rows = dict(line.split(None, 1) for line in text.splitlines()[3:])
    assert set(rows) == {"process", "counters", "canary", "api", "engine", "node", "power"}
    assert rows["power"].startswith("cannot tell")


def test_the_words_say_what_a_start_waits_for() -> None:
    world = serving_world()
    world.nodes["worker"].hog_gib = 60.0
    world.end("worker")
    world.run(120)
    assert "It waits until: 97 GiB are available on worker (MemAvailable 58.0 GiB" in _words(world)


def test_the_words_say_who_holds() -> None:
    world = serving_world()
    _held(world, for_s=1800.0)
    world.run(10)
    assert "Held by run-7 for 30 min more (a deployment): it watches and does nothing." in _words(world)


def test_an_incident_is_measured_from_its_first_sign_to_serving() -> None:
    world = serving_world(load="decode")
    world.frozen = True
    world.run_until(lambda w: w.state == "draining", 300)
    world.load = "idle"
    world.run_until(lambda w: w.state == "serving", 300)
    incident = world.memory.incident
    assert incident is not None
    assert 235 <= incident.detect_s <= 245
    assert incident.recover_s is not None
    assert 60 < incident.recover_s < 150
    assert incident.stopped is not None
    assert incident.started is not None


def test_a_new_supervisor_starts_its_waiting_when_it_first_looks() -> None:
    world = World(wanted=None)
    world.run(10)
    assert world.memory.since.monotonic_s > 1000
