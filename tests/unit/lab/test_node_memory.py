"""What a node is held to: by the machine's size alone, so that a lab that is up is not made anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dspark_ops.lab import node_memory

GIB = 1 << 30


@pytest.mark.parametrize(("machine_gib", "node_gib"), [(4, 6), (16, 6), (20, 8), (23.5, 9), (24, 9), (128, 9)])
def test_a_node_gets_half_of_what_the_machine_can_spare_between_6_and_9_gib(machine_gib: float, node_gib: int) -> None:
    assert node_memory.limit_bytes(int(machine_gib * GIB)) == node_gib * GIB


def test_the_machine_is_asked_and_answers_the_same_twice() -> None:
    assert node_memory.machine_limit_bytes() == node_memory.machine_limit_bytes() >= 6 * GIB


def container(labels: dict[str, str], held: int | None) -> Any:
    return SimpleNamespace(labels=labels, attrs={"HostConfig": {} if held is None else {"Memory": held}})


def test_an_older_container_was_made_with_no_known_limit() -> None:
    assert node_memory.made_with(container({}, None)) is None
    assert node_memory.made_with(container({node_memory.MEMORY_LABEL: str(9 * GIB)}, None)) == 9 * GIB


def test_a_limit_that_the_engine_dropped_is_no_limit() -> None:
    wanted = {node_memory.MEMORY_LABEL: str(9 * GIB)}
    assert node_memory.held_to_gib(container(wanted, 0)) is None
    assert node_memory.held_to_gib(container(wanted, None)) is None
    assert node_memory.held_to_gib(container(wanted, 9 * GIB)) == 9.0
