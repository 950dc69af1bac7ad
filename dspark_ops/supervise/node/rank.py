"""The node's end of the link: one request as JSON, one answer as JSON. The head uses it in its own process too.

On the worker it is the forced command of the supervisor's key, so that the key can do this and nothing else.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dspark_ops.supervise.node import containers, evidence, sight
from dspark_ops.supervise.node.places import RANK_CONTAINER
from dspark_ops.supervise.node.strict import DocumentError, Fields, parse_object

VERSION = 1
_LARGEST_REQUEST = 1 << 20
Answer = dict[str, Any]


class RankError(Exception):
    """A request was not done; the text says why."""


def perform(request: Answer) -> Any:
    """Do what a request says and give its result.

    Raises:
        RankError: it was not done.
    """
    try:
        fields = Fields(request, "the request")
        version = fields.whole("v", high=1000)
        if version != VERSION:
            raise DocumentError(f"the request is of version {version}, this end speaks {VERSION}; install it again")
        verb = fields.text("verb", one_of=_VERBS)
        return _VERBS[verb](fields)
    except (DocumentError, containers.ContainerError) as error:
        raise RankError(str(error)) from None
    except Exception as error:
        raise RankError(f"unexpected: {error!r}") from error


def answer(request: Answer) -> Answer:
    """Do what a request says. Never raises: the answer has `ok`, and `error` when it is false."""
    try:
        return {"ok": True, "v": VERSION, "result": perform(request)}
    except RankError as error:
        return {"ok": False, "v": VERSION, "error": str(error)}


def main() -> int:
    """The forced command: answers the one request on standard input."""
    raw = sys.stdin.buffer.read(_LARGEST_REQUEST + 1)
    try:
        if len(raw) > _LARGEST_REQUEST:
            raise DocumentError(f"the request is larger than {_LARGEST_REQUEST} bytes")
        said = answer(parse_object(raw.decode("utf-8"), "the request"))
    except (DocumentError, UnicodeDecodeError) as error:
        said = {"ok": False, "v": VERSION, "error": str(error)}
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
    return 0


def _ports(fields: Fields) -> list[int]:
    ports = fields.raw("ports") if fields.has("ports") else []
    if not isinstance(ports, list) or not all(type(port) is int for port in ports):
        raise DocumentError("the request.ports is not a list of ports")
    return ports


def _look(fields: Fields) -> Any:
    ports, slow, gone = _ports(fields), fields.flag("slow", False), fields.text_or_none("gone_id")
    fields.done()
    return sight.look_here(ports=ports, slow=slow, gone_id=gone)


def _start(fields: Fields) -> Any:
    spec = fields.raw("spec")
    fields.done()
    if not isinstance(spec, dict):
        raise DocumentError("the request.spec is not an object")
    return containers.start(spec)


def _stop(fields: Fields) -> Any:
    site, epoch, grace_s = fields.text("site"), fields.text_or_none("epoch"), fields.whole("grace_s", 10, high=600)
    fields.done()
    return containers.stop(site, grace_s, epoch)


def _kill(fields: Fields) -> Any:
    site, epoch = fields.text("site"), fields.text_or_none("epoch")
    fields.done()
    return containers.kill(site, epoch)


def _remove(fields: Fields) -> Any:
    site, epoch = fields.text("site"), fields.text_or_none("epoch")
    fields.done()
    return containers.remove(site, epoch)


def _logs(fields: Fields) -> Any:
    tail = fields.whole("tail", 2000, low=1, high=20_000)
    fields.done()
    return containers.logs(tail=tail)


def _evidence(fields: Fields) -> Any:
    limit_s = fields.number("limit_s", 20.0, low=1.0, high=60.0)
    fields.done()
    return evidence.gather_here(limit_s)


def _memory(fields: Fields) -> Any:
    fields.done()
    return {"mem_available_bytes": sight.mem_available(sight.read_meminfo())}


def _ports_verb(fields: Fields) -> Any:
    ports = _ports(fields)
    fields.done()
    return {"taken": sight.taken_ports(ports)}


def _watch(fields: Fields) -> Any:
    limit_s = fields.number("limit_s", 30.0, low=0.0, high=300.0)
    fields.done()
    return {"died": watch_for_death(limit_s)}


_VERBS: dict[str, Callable[[Fields], Any]] = {
    "look": _look,
    "start": _start,
    "stop": _stop,
    "kill": _kill,
    "remove": _remove,
    "logs": _logs,
    "evidence": _evidence,
    "memory": _memory,
    "ports": _ports_verb,
    "watch": _watch,
}


def events_argv() -> list[str]:
    """The docker command that prints a line as soon as a container of our name dies."""
    argv = ["docker", "events", "--format", "{{json .}}", "--filter", "type=container", "--filter", "event=die"]
    return [*argv, "--filter", f"container={RANK_CONTAINER}"]


def watch_for_death(limit_s: float) -> dict[str, Any] | None:
    """Wait until the container of our name dies, at most so long. None: it did not, or Docker went away meanwhile.

    Raises:
        ContainerError: Docker's events cannot be read.
    """
    try:
        process = subprocess.Popen(
            events_argv(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise containers.ContainerError(f"docker events could not be started: {error.strerror or error}") from None
    try:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        deadline = time.monotonic() + limit_s
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([process.stdout], [], [], min(left, 5.0))
            if not ready:
                continue
            line = process.stdout.readline()
            if not line:
                if left > 1.0:
                    time.sleep(1.0)  # an Engine that is down must not be asked in a tight loop
                raise containers.ContainerError("docker events ended: the Engine went away")
            died = parse_event(line.decode("utf-8", "replace"))
            if died is not None:
                return died
        return None
    finally:
        with suppress(OSError):
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def parse_event(line: str) -> dict[str, Any] | None:
    """A line of `docker events`: the container's id and how it ended; None for anything but a death."""
    try:
        event = json.loads(line)
        if event.get("Action") != "die":
            return None
        attributes = event["Actor"]["Attributes"]
        code = str(attributes.get("exitCode", ""))
        return {
            "id": str(event["Actor"]["ID"]),
            "exit_code": int(code) if code.isdecimal() else None,
            "epoch": attributes.get("io.dspark-ops.epoch"),
            "site": attributes.get("io.dspark-ops.site"),
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
