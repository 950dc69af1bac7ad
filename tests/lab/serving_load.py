"""Load on the rehearsal's engine that must never be taken for a wedge: the longest prompts, more than it can take.

The tiny model reads its longest prompt in a fraction of a second, so one after the other stands in for one that takes
minutes; a single prefill of 20 minutes is played in virtual time (tests/unit/supervise/core/test_fault_matrix.py).
"""

from __future__ import annotations

from typing import Literal

Load = Literal["prefill", "saturation"]
_UNIT, _PROGRAM = "serving-load", "/run/serving-load.py"
#: Asks on loopback until it is ended. prefill: prompts as long as the context takes, no two alike, one token each.
#: saturation: more requests at once than run at once, with long answers, so that a queue stands all the time.
_TEXT = r"""
import json, random, sys, threading, time, urllib.request
url, kind = "http://127.0.0.1:8000", sys.argv[1]
with urllib.request.urlopen(url + "/v1/models", timeout=20) as answer:
    model = json.load(answer)["data"][0]
room = int(model["max_model_len"])
def ask():
    while True:
        if kind == "prefill":
            words = {"prompt": [random.randrange(10, 200) for _ in range(room - 8)], "max_tokens": 1}
        else:
            words = {"prompt": [random.randrange(10, 200) for _ in range(16)], "max_tokens": room - 64}
        body = json.dumps({"model": model["id"], "temperature": 0, "ignore_eos": True, **words}).encode()
        asked = urllib.request.Request(url + "/v1/completions", body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(asked, timeout=900).read()
        except OSError:
            time.sleep(1)
for _ in range(8 if kind == "prefill" else 48):
    threading.Thread(target=ask).start()
"""


def start(kind: Load) -> str:
    """A script for the head that begins the load; it fails when the load could not begin."""
    run = f"systemd-run --quiet --collect --unit={_UNIT} -- python3 {_PROGRAM} {kind}"
    return f"cat > {_PROGRAM} <<'LOAD'\n{_TEXT}\nLOAD\n{run}\nsleep 5\nsystemctl is-active --quiet {_UNIT}"


def stop() -> str:
    """A script that ends it, and does no harm where none runs."""
    return f"systemctl kill --signal=KILL {_UNIT} 2> /dev/null || true\nrm -f {_PROGRAM}"
