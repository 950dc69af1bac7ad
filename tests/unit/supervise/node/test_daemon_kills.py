"""The daemon is ended without a word in every state; the next one goes on, and never starts anything twice."""

from __future__ import annotations

import pytest

from tests.unit.supervise.node.stand_in import Pair

pytestmark = pytest.mark.timeout(600)


def kill_in(pair: Pair, state: str, then: str = "") -> None:
    """End the daemon in this state, in which it was told to stand still or stays anyway, and start the next.

    then: the state in which the next one is to stand still.
    """
    pair.until(lambda: pair.saved().get("state") == state, f"state {state}")
    pair.kill()
    pair.start(stop_at=then)


def no_epoch_twice(pair: Pair) -> None:
    """No start was made twice on a node, nor one on the head whose worker was never there."""
    for role in ("head", "worker"):
        for verb in ("create", "start"):
            made = [call for call in pair.calls(role) if call.startswith(verb)]
            assert len(made) == len(set(made)), f"{role}: {made}"
    started = {call for call in pair.calls("worker") if call.startswith("start")}
    assert {call for call in pair.calls("head") if call.startswith("start")} <= started


def test_killed_in_every_state_on_the_way_up_and_down(fresh_pair: Pair) -> None:
    pair = fresh_pair
    pair.configure(settings={"drain_s": 2.0})
    pair.start(stop_at="starting")
    kill_in(pair, "starting", then="gate")
    kill_in(pair, "gate")
    first = pair.until_serving()
    kill_in(pair, "serving")
    assert pair.until_serving() == first, "a daemon that comes back leaves a pair that serves alone"
    pair.stop_at("stopping")
    pair.die("head")
    kill_in(pair, "stopping", then="cooling")
    kill_in(pair, "cooling")
    second = pair.until_serving()
    assert second != first
    pair.stop_at("suspect")
    pair.engine.mode = "errors"
    kill_in(pair, "suspect", then="draining")
    pair.engine.mode = "dead"
    kill_in(pair, "draining")
    pair.until(lambda: pair.saved()["state"] in ("stopping", "cooling"), "going down")
    pair.engine.mode = "ok"
    assert pair.until_serving() != second
    no_epoch_twice(pair)


@pytest.mark.soak
def test_killed_while_latched_it_stays_latched_until_a_person_resumes(fresh_pair: Pair) -> None:
    pair = fresh_pair
    pair.configure(settings={"budget": 1})
    pair.start()
    pair.until_serving()
    pair.die("worker")
    kill_in(pair, "failed")
    pair.until(lambda: bool(pair.status()), "the next daemon answers")
    assert pair.saved()["state"] == "failed"
    assert pair.get("/route")[0] == 503
    assert pair.epochs() == (None, None)
    assert pair.ask("resume").returncode == 0
    pair.until_serving()
    no_epoch_twice(pair)
