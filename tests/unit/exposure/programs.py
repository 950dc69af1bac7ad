"""The programs that the tests of the packet filter take from the machine: the real nft, and who knocks at it.

usage: python -m tests.unit.exposure.programs

Installs what is missing. It is done before the tests: their workers run beside each other, and apt has one lock.
"""

from __future__ import annotations

import os

from dspark_ops.lab.prerequisites import Prerequisite, ensure_all

WANTED = (
    Prerequisite("nft", "nftables"),
    Prerequisite("ip", "iproute2"),
    Prerequisite("ping", "iputils-ping"),
)
VERB = "python -m tests.unit.exposure.programs"


def require(*, install: bool) -> None:
    """Everything is there, or was installed because `install` allows it.

    Raises:
        ConfigError: it is not, with the command that would install it.
    """
    ensure_all(WANTED, install=install, verb=VERB, progress=lambda text: print(text, flush=True))  # noqa: T201


if __name__ == "__main__":
    if os.geteuid() == 0:  # network namespaces need root, and so does apt
        require(install=True)
