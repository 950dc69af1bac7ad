"""What one template gives: the question, what a right answer shows, and a tool where there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dspark_ops.bench.corpus.model import Expected


@dataclass(frozen=True)
class Asked:
    """text: of the user's message. length: how much longer than usual its answer may be."""

    text: str
    expected: Expected
    tools: tuple[dict[str, Any], ...] = field(default=())
    length: float = 1.0
