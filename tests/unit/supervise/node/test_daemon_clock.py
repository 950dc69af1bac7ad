"""A wall clock that jumps moves nothing: not a hold, not a backoff, not the pair. In the process of the test."""

from __future__ import annotations

import threading
import time

import pytest

from dspark_ops.supervise.node.config import load_config
from dspark_ops.supervise.node.control import request
from dspark_ops.supervise.node.daemon import Daemon
from dspark_ops.supervise.node.eyes import Clock
from dspark_ops.supervise.node.places import Places
from tests.unit.supervise.node.stand_in import Pair

pytestmark = pytest.mark.timeout(600)


@pytest.mark.soak
def test_an_hour_to_and_fro_neither_ends_a_hold_nor_restarts_anything(
    fresh_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = fresh_pair
    for name, value in pair.environment.items():
        monkeypatch.setenv(name, value)
    ahead_s = [0.0]
    places = Places(pair.root / "supervise.json", pair.root / "state", pair.root / "run")
    for directory in (places.state_dir, places.run_dir):
        directory.mkdir()
    (pair.root / "daemon.log").touch()
    daemon = Daemon(places, load_config(places.config), clock=Clock(wall=lambda: time.time() + ahead_s[0]))
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        epoch = pair.until_serving()
        request(places.socket, "hold", reason="r", owner="o", for_s=600.0)
        for jump_s in (3600.0, -3600.0, 3600.0):
            ahead_s[0] += jump_s
            step = pair.status()["monotonic_s"]
            pair.until(lambda since=step: pair.status()["monotonic_s"] > since + 2, "some rounds later")  # type: ignore[misc]
            status = pair.status()
            assert (status["state"], status["held"], status["epoch"]) == ("serving", True, epoch)
            assert 500 < status["hold"]["left_s"] <= 600
            assert abs(status["hold"]["expires"] - time.time() - ahead_s[0] - 590) < 60
        assert pair.epochs() == (epoch, epoch)
        assert pair.calls("head") == [f"create {epoch}", f"start {epoch}"]
    finally:
        daemon.stop()
        thread.join(60)
    assert not thread.is_alive()
