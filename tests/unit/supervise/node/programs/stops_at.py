"""Run a packed program that stops itself (SIGSTOP) as soon as the state in $STAND_IN_DIR/stop-at is on disk.

A state of a moment can so be met surely, however busy the machine is.
"""

# ruff: noqa: PTH118, PTH119, PTH123

import json
import os
import runpy
import signal
import sys

HERE = os.environ["STAND_IN_DIR"]
_replace = os.replace


def replace(source, target, **where):
    _replace(source, target, **where)
    if os.path.basename(target) != "state.json":
        return
    with open(os.path.join(HERE, "stop-at")) as at, open(target) as saved:
        if json.load(saved)["state"]["state"] == at.read():
            os.kill(os.getpid(), signal.SIGSTOP)


os.replace = replace
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
