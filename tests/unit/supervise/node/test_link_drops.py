"""A connection that breaks while the worker's end carries a start out: the rank is started once."""

from __future__ import annotations

import pytest

from tests.unit.supervise.node.stand_in import Pair

pytestmark = pytest.mark.timeout(300)


def made(pair: Pair) -> list[str]:
    return [call for call in pair.calls("worker") if call.startswith(("create", "remove"))]


def _begin(pair: Pair, *dropping: str) -> str:
    (pair.root / "worker/create-takes-s").write_text("3")
    for address in dropping:
        (pair.root / f"drops-start-{address}").touch()
    pair.start()
    epoch = pair.until_serving()
    assert not [address for address in dropping if (pair.root / f"drops-start-{address}").exists()], "it broke"
    return epoch


def test_the_same_start_over_the_other_path_waits_for_the_first(fresh_pair: Pair) -> None:
    """The name is taken and no container is there yet: the Engine is still making it for the first request."""
    epoch = _begin(fresh_pair, "mgmt.worker")
    assert made(fresh_pair) == [f"create {epoch}"]
    assert fresh_pair.saved()["number"] == 1
    assert not [entry for entry in fresh_pair.journal() if entry.get("failed")]


def test_a_start_whose_answer_was_lost_on_both_paths_is_no_refusal(fresh_pair: Pair) -> None:
    epoch = _begin(fresh_pair, "mgmt.worker", "fab.worker")
    assert made(fresh_pair) == [f"create {epoch}"]
    assert fresh_pair.saved()["number"] == 1
