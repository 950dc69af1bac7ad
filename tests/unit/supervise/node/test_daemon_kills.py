"""The daemon is ended without a word in every state; the next one goes on, and never starts anything twice."""

from __future__ import annotations

import pytest

from tests.unit.supervise.node.stand_in import Pair

pytestmark = pytest.mark.timeout(600)


def kill_in(pair: Pair, state: str) -> None:
    """End the daemon as soon as the state is on disk, which is before anything is done about it, and start the next."""
    pair.until(lambda: pair.saved().get("state") == state, f"state {state}")
    pair.kill()
    pair.start()


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
    pair.start()
    for state in ("starting", "gate"):
        kill_in(pair, state)
    first = pair.until_serving()
    kill_in(pair, "serving")
    assert pair.until_serving() == first, "a daemon that comes back leaves a pair that serves alone"
    pair.die("head")
    kill_in(pair, "stopping")
    kill_in(pair, "cooling")
    second = pair.until_serving()
    assert second != first
    pair.engine.mode = "errors"
    kill_in(pair, "suspect")
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
