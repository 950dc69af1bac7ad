"""The words of the program's own commands on the head, and who a hold belongs to."""

from __future__ import annotations

import getpass
import socket

#: Of a hold of a verb; a person's begins with the person's name, which has no blank.
RUN = "run of "


def run_owner() -> str:
    """Whoever runs verbs here: this user of this control host, as the site's lock is this user's.

    It lets one run at a time, so the next may take over what a killed one holds. Another user's run may still live.
    """
    return f"{RUN}{person()}"


def person() -> str:
    """The operator, for a hold that outlives a verb."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no entry for this uid
        name = "unknown"
    return f"{name}@{socket.gethostname()}"


def of_a_run(owner: str) -> bool:
    return owner.startswith(RUN)


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
