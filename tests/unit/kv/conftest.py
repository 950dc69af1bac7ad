"""Sites to plan for, and the real boot logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dspark_ops.config.load import LoadedSite, load_site

LOGS = Path(__file__).resolve().parents[2] / "fixtures" / "vllm-kv-log"
ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "inventories" / "example" / "site.yml"

Load = Callable[..., LoadedSite]


@pytest.fixture
def current() -> Load:
    """The example site (profile current) with overrides."""
    return lambda *overrides: load_site(EXAMPLE, overrides=overrides, environ={})


@pytest.fixture
def rehearsal() -> Load:
    """A site of the tiny model: 64 MiB on each of two ranks."""
    fixed = (
        "profile=rehearsal",
        "image.reference=dspark-engine-rehearsal:abc",
    )
    return lambda *overrides: load_site(EXAMPLE, overrides=(*fixed, *overrides), environ={})
