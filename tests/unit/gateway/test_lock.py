"""The router's lock: what a patch release of Python alone needs is in it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PLACE = Path(__file__).parents[3] / "templates/gateway"


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gateway_lock", PLACE / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("marker", "on_311", "on_312"),
    [
        ("python_full_version < '3.11.3'", True, False),
        ("python_full_version >= '3.11.3'", True, True),
        ("python_version >= '3.12'", False, True),
        ("sys_platform == 'win32'", False, False),
    ],
)
def test_a_package_is_wanted_where_any_patch_release_wants_it(
    lock: ModuleType, marker: str, on_311: bool, on_312: bool
) -> None:
    package = {"name": "p", "version": "1", "marker": marker}
    assert lock.wanted_on(package, (3, 11), "aarch64") is on_311
    assert lock.wanted_on(package, (3, 12), "aarch64") is on_312


def test_the_router_starts_on_debians_python() -> None:
    """Its 3.11.2 has no asyncio.timeout that redis would take, which LiteLLM imports."""
    lines = (PLACE / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("async-timeout==")]
