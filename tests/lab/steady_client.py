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

from tests.lab.serving_timeline import Ask, Verdict

TEXT = "The quick brown fox jumps over the lazy dog."
#: Asks one completion after the other, at most for a time, and prints one line each: how it ended, and when.
_PROGRAM = r"""
import json, ssl, sys, time, urllib.request
url, model, until, key_file = sys.argv[1], sys.argv[2], time.time() + float(sys.argv[3]), sys.argv[4]
body = json.dumps({"model": model, "temperature": 0, "max_tokens": 32, "chat_template_kwargs": {"thinking": False},
                   "messages": [{"role": "user", "content": "hello"}]}).encode()
headers = {"Content-Type": "application/json"}
if key_file != "-":
    with open(key_file) as key:
        headers["Authorization"] = "Bearer " + key.read().strip()
trust = ssl.create_default_context()
trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # the edge on this very loopback
while time.time() < until:
    sent = time.time()
    request = urllib.request.Request(url + "/v1/chat/completions", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20, context=trust) as answer:
            text = json.load(answer)["choices"][0]["message"]["content"]
            line = {"text": text, "backend": answer.headers.get("x-dspark-backend")}
    except Exception as error:
        line = {"error": type(error).__name__}
    print(json.dumps(dict(line, sent=sent, at=time.time())), flush=True)
    time.sleep(0.25)
"""


@dataclass
class SteadyClient:
    """What it heard: the times of right answers, the texts of wrong ones, how many asks found nobody; every ask in its
    order. What a cloud answered is neither right nor wrong."""

    right_at: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unanswered: int = 0
    asks: list[Ask] = field(default_factory=list)

    def hear(self, line: str) -> None:
        said = json.loads(line)
        verdict: Verdict = "lost"
        if "error" in said:
            self.unanswered += 1
        elif said["backend"] == "cloud":
            verdict = "cloud"
        elif TEXT in (said["text"] or ""):
            verdict = "right"
            self.right_at.append(said["at"])
        else:
            verdict = "wrong"
            self.wrong.append(said["text"])
        self.asks.append(Ask(sent=said["sent"], ended=said["at"], verdict=verdict))

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
def steady_client(
    ssh_config: Path, *, url: str = "http://127.0.0.1:8000", key_file: str | None = None, at_most_s: float = 600
) -> Iterator[SteadyClient]:
    """Ask on the head's own loopback until the block ends, at most for a time. key_file: on the head."""
    client = SteadyClient()
    argv = ["ssh", "-F", str(ssh_config), "spark-head", *(("sudo", "-n") if key_file else ()), "python3", "-u", "-"]
    argv += [url, "dspark-rehearsal", str(at_most_s), key_file or "-"]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
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
