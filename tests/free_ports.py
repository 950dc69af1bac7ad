"""Ports of loopback for a program that binds them later, and again after it was down."""

from __future__ import annotations

import itertools
import os
import random
import socket

#: Below the range from which the kernel gives ports to whoever asks for any (32768 and up by default), so that no
#: connection of somebody else can be there meanwhile; and a part of its own for each worker of pytest-xdist.
_FIRST, _PART, _PARTS = 15000, 1000, 16
_counted = itertools.count(random.SystemRandom().randrange(_PART))


def free_port() -> int:
    """A port that nobody has now and that this process has not given out for long.

    Raises:
        RuntimeError: none of the worker's part is free.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = _FIRST + _PART * (int(worker) % _PARTS)
    for _ in range(_PART):
        port = first + next(_counted) % _PART
        with socket.socket() as probe:
            # As servers do: a connection that ended a moment ago is nobody.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError(f"no port from {first} to {first + _PART - 1} is free")
