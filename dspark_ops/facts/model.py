"""The base of every fact: immutable, JSON both ways, and None where nothing was seen."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Fact(BaseModel):
    """Something read on a node. A field that is None was not seen; it is never 0, never empty, never healthy."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def whole_number(text: str | None) -> int | None:
    """The integer that the text is, or None: also for `[N/A]`, an empty file, a read that gave EINVAL."""
    if text is None:
        return None
    try:
        return int(text.strip())
    except ValueError:
        return None
