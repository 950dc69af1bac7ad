"""What a rule across fields says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from dspark_ops.config.models import Profile, Site


@dataclass(frozen=True)
class Problem:
    """A broken rule (error: the site is refused) or something allowed but worth saying (note).

    key: dotted key whose line is shown. where: `file:line` once the loader has attached it.
    """

    id: str
    key: str
    message: str
    level: Literal["error", "note"] = "error"
    where: str | None = None


Invariant = Callable[[Site, Profile], Iterator[Problem]]
