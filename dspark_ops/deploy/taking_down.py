"""Both ranks down, whatever state the nodes are in: a node that is away for a moment is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import StepFailedError

# A Spark restarts in about a minute; a node that stays away longer is for a person.
PATIENCE_S = 150.0
_PAUSE_S = 3.0


class EndRanks(Protocol):
    """`Applier.remove` or `Applier.stop`: of both ranks head first, or of one node alone."""

    def __call__(self, role: Role | None = None, /) -> object: ...


def take_down(
    end: EndRanks,
    progress: Callable[[str], None],
    *,
    patience_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """End the ranks of this site: head first. One that cannot be reached does not keep the other alive.

    patience_s: how long a node that is away is waited for; None is the time that a restart takes.

    Raises:
        StepFailedError: a node did not come back, or its rank could not be ended; the message names it.
    """
    try:
        end()
    except StepFailedError as failure:
        progress(f"{failure.message}; trying each node by itself")
    else:
        return
    left: dict[Role, str] = dict.fromkeys(ROLES, "")
    until = clock() + (PATIENCE_S if patience_s is None else patience_s)
    while True:
        for role in tuple(left):
            try:
                end(role)
                del left[role]
            except StepFailedError as failure:
                left[role] = failure.message
        if not left:
            return
        if clock() >= until:
            raise StepFailedError("; ".join(left.values()))
        progress(f"waiting for {' and '.join(left)}")
        sleep(_PAUSE_S)
