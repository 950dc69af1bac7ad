"""A stand-in cloud beside the rehearsal pair: it runs in this process, and the head reaches it by its own loopback."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gateway.stand_in import StandIn, wait_until
from tests.lab.edge_client import CLOUD_WORD
from tests.lab.operator_cli import HOSTS, Operator
from tests.openai_server.answers import Solution
from tests.openai_server.setup import KnownRate, ServerSetup

_MODEL, _CONTEXT = "vendor/flash", 200_000


@dataclass(frozen=True)
class Cloud:
    """key_file: on this machine, as an operator has it."""

    stand_in: StandIn
    key_file: Path

    def words(self, **more: Any) -> tuple[str, str]:
        """The site's section as words for a verb. It costs much, so that a budget can be met."""
        section = {
            "base_url": f"{self.stand_in.url}/v1",
            "model": _MODEL,
            "key_file": str(self.key_file),
            "max_context": _CONTEXT,
            "input_usd_per_million": 1000,
            "output_usd_per_million": 1000,
            "day_usd": 1000,
            "hour_usd": 1000,
            "request_usd": 0.4,
            "repeats": 1000,
        }
        return "--set", f"gateway.cloud={json.dumps(section | more)}"


@contextmanager
def cloud_beside(operator: Operator, folder: Path) -> Iterator[Cloud]:
    """Answer as the cloud until the block ends. The way from the head is a forward of ssh, on the same port."""
    key = "ck-" + secrets.token_hex(24)
    setup = ServerSetup(
        model=_MODEL,
        context_length=_CONTEXT,
        known_rate=KnownRate(ttft_s=0.005, step_s=0.002),
        prose_tokens=12,
        metrics="lean",
        api_key=key,
    )
    stand_in = StandIn(setup, solver=lambda _: Solution(" ".join([CLOUD_WORD] * 12)))
    way = f"127.0.0.1:{stand_in.port}:127.0.0.1:{stand_in.port}"
    argv = ["ssh", "-F", str(operator.ssh_config), "-N", "-o", "ExitOnForwardFailure=yes", "-R", way, HOSTS["head"]]
    forward = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(
            lambda: bool(operator.on("head", "ss", "-Hltn", f"'sport = :{stand_in.port}'").strip()),
            "the head reaches the stand-in",
        )
        key_file = folder / "cloud.key"
        key_file.write_text(key + "\n")
        key_file.chmod(0o600)
        yield Cloud(stand_in, key_file)
    finally:
        forward.terminate()
        forward.wait(timeout=20)
        stand_in.close()
