"""A client on the head that never stops asking: every answer is judged, every gap is measured."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TEXT = "The quick brown fox jumps over the lazy dog."
#: Asks one completion after the other, at most for a time, and prints one line each: how it ended, and when.
_PROGRAM = r"""
import json, sys, time, urllib.request
port, model, until = int(sys.argv[1]), sys.argv[2], time.time() + float(sys.argv[3])
body = json.dumps({"model": model, "temperature": 0, "max_tokens": 32, "chat_template_kwargs": {"thinking": False},
                   "messages": [{"role": "user", "content": "hello"}]}).encode()
while time.time() < until:
    request = urllib.request.Request("http://127.0.0.1:%d/v1/chat/completions" % port, data=body,
                                     headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = json.load(answer)["choices"][0]["message"]["content"]
    except Exception as error:
        line = {"error": type(error).__name__}
    else:
        line = {"text": text}
    print(json.dumps(dict(line, at=time.time())), flush=True)
    time.sleep(0.25)
"""


@dataclass
class SteadyClient:
    """What it heard: the times of right answers, the texts of wrong ones, how many asks found nobody."""

    right_at: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unanswered: int = 0

    def hear(self, line: str) -> None:
        said = json.loads(line)
        if "error" in said:
            self.unanswered += 1
        elif TEXT in (said["text"] or ""):
            self.right_at.append(said["at"])
        else:
            self.wrong.append(said["text"])

    def outages_s(self, *, longer_than_s: float = 3.0) -> list[float]:
        """The gaps between two right answers that a person would notice, in seconds."""
        gaps = [later - earlier for earlier, later in zip(self.right_at, self.right_at[1:], strict=False)]
        return [round(gap, 1) for gap in gaps if gap > longer_than_s]

    def wait_right(self, timeout_s: float = 30) -> None:
        """Wait for one more right answer."""
        count, limit = len(self.right_at), time.monotonic() + timeout_s
        while len(self.right_at) == count:
            assert time.monotonic() < limit, f"no right answer within {timeout_s} s; wrong: {self.wrong[-3:]}"
            time.sleep(0.1)


@contextmanager
def steady_client(ssh_config: Path, *, port: int = 8000, at_most_s: float = 600) -> Iterator[SteadyClient]:
    """Ask on the head's own loopback until the block ends, at most for a time."""
    client = SteadyClient()
    argv = ["ssh", "-F", str(ssh_config), "spark-head", "python3", "-u", "-", str(port), "dspark-rehearsal"]
    process = subprocess.Popen(
        [*argv, str(at_most_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines = process.stdout
    process.stdin.write(_PROGRAM)
    process.stdin.close()

    def listen() -> None:
        for line in lines:
            client.hear(line)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        client.wait_right()
        yield client
    finally:
        process.terminate()
        process.wait(timeout=20)
        listener.join(timeout=20)
