"""Where the supervisor's key and what it pins are on the head; the role pair_supervisor has the same."""

from __future__ import annotations

from typing import Final

KEY: Final = "/etc/dspark/supervise_key"
KNOWN_HOSTS: Final = "/etc/dspark/supervise_known_hosts"
#: The name under which the worker's host keys are pinned, whichever address is used.
HOST_ALIAS: Final = "dspark-worker"
