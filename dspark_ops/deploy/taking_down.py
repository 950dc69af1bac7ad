"""Both ranks gone, whatever state the nodes are in: a node that is away for a moment is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import Applier, StepFailedError

# A Spark restarts in about a minute; a node that stays away longer is for a person.
PATIENCE_S = 150.0
_PAUSE_S = 3.0


def take_down(
    applier: Applier,
    progress: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Remove the ranks of this site: head first. One that cannot be reached does not keep the other alive.

    Raises:
        StepFailedError: a node did not come back, or its rank could not be removed; the message names it.
    """
    try:
        applier.remove()
    except StepFailedError as failure:
        progress(f"{failure.message}; trying each node by itself")
    else:
        return
    left: dict[Role, str] = dict.fromkeys(ROLES, "")
    until = clock() + PATIENCE_S
    while True:
        for role in tuple(left):
            try:
                applier.remove(role)
                del left[role]
            except StepFailedError as failure:
                left[role] = failure.message
        if not left:
            return
        if clock() >= until:
            raise StepFailedError("; ".join(left.values()))
        progress(f"waiting for {' and '.join(left)}")
        sleep(_PAUSE_S)
