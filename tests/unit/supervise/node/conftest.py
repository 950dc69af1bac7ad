"""The stand-in pair of the daemon's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.supervise.node.stand_in import Pair, stand_in_pair


@pytest.fixture
def fresh_pair(tmp_path: Path) -> Iterator[Pair]:
    """A pair that was never started; the daemon does not run yet."""
    with stand_in_pair(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def kept_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """One pair for the tests of a module: to start one costs more than most of what is tested."""
    with stand_in_pair(tmp_path_factory.mktemp("pair")) as made:
        yield made


@pytest.fixture
def pair(kept_pair: Pair) -> Pair:
    """A pair that serves."""
    kept_pair.mend()
    return kept_pair
