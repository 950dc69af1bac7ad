"""A small sound site, and ways to load a changed one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.errors import ConfigError

SITE = """\
version: 1
name: lab
profile: rehearsal
nodes:
  head: {host: spark-head}
  worker: {host: spark-worker}
fabric:
  rails:
    - name: p0a
      head: {netdev: enp1s0f0np0, hca: rocep1s0f0, address: 10.77.0.1/24}
      worker: {netdev: enp1s0f0np0, hca: rocep1s0f0, address: 10.77.0.2/24}
    - name: p0b
      head: {netdev: enP2p1s0f0np0, hca: roceP2p1s0f0, address: 10.77.1.1/24}
      worker: {netdev: enP2p1s0f0np0, hca: roceP2p1s0f0, address: 10.77.1.2/24}
image:
  reference: dspark-engine-rehearsal:abc
  id: sha256:1111111111111111111111111111111111111111111111111111111111111111
serve:
  api_port: 8000
"""

Load = Callable[..., LoadedSite]
Refused = Callable[..., ConfigError]


@pytest.fixture
def site_text() -> str:
    """19 lines; `  api_port: 8000` is the last one."""
    return SITE


@pytest.fixture
def site_path(tmp_path: Path) -> Path:
    return tmp_path / "site.yml"


@pytest.fixture
def load(site_path: Path) -> Load:
    """Load a text (or bytes) as the site file, in an empty environment."""

    def load_text(text: str | bytes = SITE, environ: dict[str, str] | None = None, **more: Any) -> LoadedSite:
        site_path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_site(site_path, environ=environ or {}, **more)

    return load_text


@pytest.fixture
def refused(load: Load) -> Refused:
    """The ConfigError of loading a text; exit code 2 and plain words are checked here once for all."""

    def refuse(*args: Any, **more: Any) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            load(*args, **more)
        assert caught.value.exit_code == 2
        assert caught.value.hint or "--set" in caught.value.message or "DSPARK__" in caught.value.message
        for jargon in ("pydantic", "https://", "Input should", "validation error", "type="):
            assert jargon not in caught.value.message
        return caught.value

    return refuse
