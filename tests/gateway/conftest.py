"""The bench is started once for each module; every test finds it as new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.bench import Bench

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is of the gateway, and the first test of a machine waits for two minutes of pip."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.gateway)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="package")
def running_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """LiteLLM, both HAProxies, engine, cloud and status port."""
    with Bench(tmp_path_factory.mktemp("gateway")) as bench:
        yield bench


@pytest.fixture
def bench(running_bench: Bench) -> Iterator[Bench]:
    """All alive, no trouble, nothing written down; afterwards, every answer had said where it came from and why."""
    running_bench.reset()
    running_bench.unlabelled.clear()
    yield running_bench
    running_bench.reset()
    assert running_bench.unlabelled == []
