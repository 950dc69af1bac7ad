"""A site on the rehearsal profile for the tenants' tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dspark_ops.config.load import LoadedSite, load_site
from tests.unit.deploy.conftest import SITE


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., LoadedSite]:
    """The site `desk`, with overrides."""

    def make(*overrides: str) -> LoadedSite:
        path = tmp_path / "site.yml"
        path.write_text(SITE)
        (tmp_path / "image.tar").write_bytes(b"x" * 1024)
        return load_site(path, overrides=overrides, environ={})

    return make


@pytest.fixture
def loaded(make_site: Callable[..., LoadedSite]) -> LoadedSite:
    """The site `desk`: who holds 2 GiB or more is a tenant."""
    return make_site()
