"""Runs a function that a model wrote, in a process of its own: no network, no files, little time and memory.

It guards against an answer that loops, eats memory or does something foolish. The process has an audit hook that ends
it at sockets, other programs and files opened for writing, limits of the kernel, no environment, an empty folder, and
nobody's rights where we are root; where the kernel allows it, no network devices either. It is no jail for an attacker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from dspark_ops.openai_api.model import Record

# The CPU's time decides; the wall's is for one that sleeps, and long enough for a busy machine.
CPU_S, WALL_S, MEMORY_MIB, OUTPUT_BYTES = 2, 30.0, 512, 1 << 20

# The modules that such functions use are there before the rights are given up: nobody may not be able to read them.
_RUNNER = r"""
import bisect, collections, copy, ctypes, functools, heapq, itertools, json, math, operator, os, re, string, sys, typing
asked = json.loads(sys.stdin.buffer.read())
channel = os.dup(1)
null = os.open(os.devnull, os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(null, number)
try:
    import resource
    for name, value in (("CPU", asked["cpu_s"]), ("AS", asked["memory"]), ("FSIZE", asked["output"]), ("CORE", 0)):
        with_limit = getattr(resource, "RLIMIT_" + name)
        try:
            resource.setrlimit(with_limit, (value, value))
        except (ValueError, OSError):
            pass
except ImportError:
    pass
try:
    ctypes.CDLL(None).unshare(0x10000000 | 0x40000000 if os.getuid() else 0x40000000)
except (OSError, AttributeError):
    pass
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
banned = (
    "socket.", "subprocess.", "shutil.", "ctypes.", "pty.", "ftplib.", "urllib.", "http.", "webbrowser.",
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.kill", "os.remove", "os.rename", "os.mkdir",
    "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate", "signal.pthread_kill",
    "sys.addaudithook",
)
def hook(event, args):
    if event.startswith(banned):
        os._exit(97)
    if event == "open" and isinstance(args[1], str) and any(c in args[1] for c in "wax+"):
        os._exit(97)
    if event == "open" and args[1] is None and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        os._exit(97)
sys.addaudithook(hook)
def say(value):
    os.write(channel, json.dumps(value).encode())
    os._exit(0)
try:
    names = {"__name__": "answer"}
    exec(compile(asked["code"], "<answer>", "exec"), names)
    function = names.get(asked["function"])
    if not callable(function):
        say({"error": "it defines no function " + asked["function"]})
    results = []
    for arguments in asked["arguments"]:
        try:
            value = function(*arguments)
            json.dumps(value)
            results.append({"value": value})
        except BaseException as failure:
            results.append({"error": type(failure).__name__ + ": " + str(failure)[:200]})
    say({"results": results})
except BaseException as failure:
    say({"error": type(failure).__name__ + ": " + str(failure)[:200]})
"""


class CodeOutcome(Record):
    """What running gave. error: why there are no results. results: per call its value, or the text of its error."""

    error: str | None = None
    values: tuple[Any, ...] = ()
    errors: tuple[str | None, ...] = ()


def run_code(code: str, function: str, arguments: Sequence[Sequence[Any]]) -> CodeOutcome:
    """Call `function` of `code` once per set of arguments. Blocks for at most WALL_S; never raises for what it does."""
    asked = {
        "code": code,
        "function": function,
        "arguments": [list(one) for one in arguments],
        "cpu_s": CPU_S,
        "memory": MEMORY_MIB << 20,
        "output": OUTPUT_BYTES,
    }
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _RUNNER],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            # What it says goes to a file: it cannot fill our memory, and the kernel stops it at OUTPUT_BYTES.
            process.communicate(json.dumps(asked).encode(), timeout=WALL_S)
        except subprocess.TimeoutExpired:
            return CodeOutcome(error=f"no end within {WALL_S:g} s")
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return _outcome(output.read(OUTPUT_BYTES), process.returncode)


def _outcome(said: bytes, rc: int) -> CodeOutcome:
    if rc == 97:
        return CodeOutcome(error="it reached for a file, a socket or another program and was ended")
    if rc < 0:
        return CodeOutcome(error=f"it was ended by signal {-rc}: more time, memory or output than it may have")
    try:
        document = json.loads(said)
    except ValueError:
        return CodeOutcome(error=f"it ended with {rc} and gave no results")
    if "error" in document:
        return CodeOutcome(error=document["error"])
    results = document["results"]
    return CodeOutcome(
        values=tuple(one.get("value") for one in results), errors=tuple(one.get("error") for one in results)
    )
