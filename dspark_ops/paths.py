"""Where the tool's data and the operator's state live: a checkout and an installed wheel look the same."""

from __future__ import annotations

import os
from pathlib import Path

from dspark_ops.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def data_dir(name: str) -> Path:
    """The directory `name` (playbooks, images, templates, checks, inventories) of this installation."""
    for base in (_PACKAGE / "data", _PACKAGE.parent):
        candidate = base / name
        if candidate.is_dir():
            return candidate
    raise ConfigError(
        f"the installation has no {name!r} directory beside {_PACKAGE}",
        hint="reinstall dspark-ops; the wheel carries its data directories",
    )


def state_dir() -> Path:
    """Run-time state (lab, locks, reports): `$XDG_STATE_HOME/dspark-ops`. Not created here."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "dspark-ops"


def cache_dir() -> Path:
    """Rebuildable artefacts (Debian roots, engine images): `$XDG_CACHE_HOME/dspark-ops`. Not created here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dspark-ops"
