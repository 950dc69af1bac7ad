"""The words of the program's own commands on the head, and who a hold belongs to."""

from __future__ import annotations

import getpass
import socket

#: A hold of a verb; a person's has the person's name in this place.
RUN = "run"


def run_owner() -> str:
    """Whoever runs verbs on this control host. The site's lock lets one run at a time, so the next may take over."""
    return f"{RUN}@{socket.gethostname()}"


def person() -> str:
    """The operator, for a hold that outlives a verb."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no entry for this uid
        name = "unknown"
    return f"{name}@{socket.gethostname()}"


def of_a_run(owner: str) -> bool:
    return owner.startswith(f"{RUN}@")


def hold_words(reason: str, owner: str, for_s: float, *, drain: bool = False) -> list[str]:
    """Take the hold, or renew one of the same owner."""
    words = ["hold", "--reason", reason, "--owner", owner, "--for-s", f"{for_s:.0f}"]
    return [*words, "--drain"] if drain else words


def resume_words() -> list[str]:
    """End any hold, and what it waits for a person with."""
    return ["resume"]


def give_back_words(owner: str) -> list[str]:
    """End the hold of this owner. A latch stays, as nothing was done about its cause."""
    return ["resume", "--owner", owner]
