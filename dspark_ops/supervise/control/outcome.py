"""How a verb left the pair, which decides what the supervisor is told at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dspark_ops.config.load import LoadedSite
from dspark_ops.supervise.control.document import Adopted

#: How a verb left the pair. as-before: what the supervisor was told is still true. unclear: nobody can tell.
Outcome = Literal["adopted", "as-before", "unclear"]


@dataclass(frozen=True)
class Left:
    """What a verb leaves behind. adopted, loaded: where the outcome is `adopted`, and under which site it runs."""

    outcome: Outcome
    adopted: Adopted | None = None
    loaded: LoadedSite | None = None


AS_BEFORE = Left("as-before")
UNCLEAR = Left("unclear")
