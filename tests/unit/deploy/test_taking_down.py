"""Both ranks go, whatever one node is doing."""

from __future__ import annotations

import pytest

from dspark_ops.config.models import Role
from dspark_ops.deploy.apply import StepFailedError
from dspark_ops.deploy.taking_down import take_down


class Nodes:
    """Nodes that answer from a moment on; `removed` is the order in which ranks went."""

    def __init__(self, back_at_s: dict[Role, float]) -> None:
        self.back_at_s, self.now_s = back_at_s, 0.0
        self.removed: list[Role] = []

    def remove(self, role: Role | None = None) -> None:
        for one in ("head", "worker") if role is None else (role,):
            if self.now_s < self.back_at_s.get(one, 0.0):
                raise StepFailedError(f"stop: {one} could not be reached any more")
            if one not in self.removed:
                self.removed.append(one)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def down(nodes: Nodes) -> list[str]:
    said: list[str] = []
    take_down(nodes.remove, said.append, clock=lambda: nodes.now_s, sleep=nodes.sleep)
    return said


def test_head_first_where_both_answer() -> None:
    nodes = Nodes({})
    assert down(nodes) == []
    assert nodes.removed == ["head", "worker"]


def test_a_node_that_is_away_does_not_keep_the_other_rank_alive() -> None:
    nodes = Nodes({"head": 20.0})
    said = down(nodes)
    assert nodes.removed == ["worker", "head"]
    assert any("waiting for head" in line for line in said)


def test_a_node_that_stays_away_is_named_and_the_other_rank_is_gone() -> None:
    nodes = Nodes({"worker": 1e9})
    with pytest.raises(StepFailedError, match="worker could not be reached"):
        down(nodes)
    assert nodes.removed == ["head"]
