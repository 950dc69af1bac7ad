"""Reading the supervisor over SSH: the way to the worker, whether it answers, what it explains. Writes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import NoVerdictError
from dspark_ops.facts import supervisor
from dspark_ops.facts.supervisor import SupervisorFacts, read_supervisor
from dspark_ops.supervise.control.document import Door, kept_site, refuse_another
from dspark_ops.transport.base import Command, NodeReading
from dspark_ops.transport.readonly import PROGRAM
from dspark_ops.transport.ssh import SshRunner, open_runner

_CONNECTION = Command("supervise.door", ("printenv", "SSH_CONNECTION"))
_EXPLAIN = Command("supervise.explain", ("python3", PROGRAM, "explain"), root=True, timeout_s=20.0)
#: systemd has seen it ready; the first look at the worker takes a login, or the limits of two paths.
_ANSWER_S = 60.0
_POLL_S = 1.0


def find_door(worker: SshRunner) -> Door:
    """The worker's sshd by the address that this very login came to: how the head reaches it on the management network.

    Raises:
        NoVerdictError: sshd does not tell.
    """
    words = (worker.read([_CONNECTION]).get(_CONNECTION.id).text() or "").split()
    # A link-local address of IPv6 has a zone, which is that of this very node.
    if len(words) != 4 or not words[3].isdecimal() or "%" in words[2] or _is_loopback(words[2]):
        raise NoVerdictError(
            "the worker's management address could not be told: SSH_CONNECTION there is "
            f"{' '.join(words) or 'not set'!r}, expected an address that the head reaches, and a port",
            hint="log in to the worker by its address (nodes.worker.host), and look at its login shell's start files",
        )
    return Door(words[2], int(words[3]))


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return True


def look_at_supervisor(loaded: LoadedSite) -> tuple[NodeReading, SupervisorFacts]:
    """One round trip to the head."""
    runner = open_runner(loaded.site, "head")
    try:
        reading = runner.read(supervisor.PROBES)
    finally:
        runner.close()
    return reading, read_supervisor(reading)


def read_again(head: SshRunner) -> SupervisorFacts:
    """The supervisor as it is now, over a runner that is open."""
    return read_supervisor(head.read(supervisor.PROBES))


def status_document(reading: NodeReading) -> dict[str, Any] | None:
    """The supervisor's own words, whole; None when it did not answer."""
    try:
        document = json.loads(reading.get("supervise.status").text() or "")
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def explain(loaded: LoadedSite) -> str:
    """What it says of its state, why, and what it waits for.

    Raises:
        NoVerdictError: there is none, or it cannot be asked.
    """
    runner = open_runner(loaded.site, "head")
    try:
        reading = runner.read((*supervisor.PROBES, _EXPLAIN))
    finally:
        runner.close()
    seen = read_supervisor(reading)
    require_reached(reading, seen)
    refuse_another(loaded.site.name, kept_site(seen))
    said = reading.get(_EXPLAIN.id)
    text = said.text()
    if text is None:
        why = said.error or (said.stderr or "").strip() or f"exit code {said.rc}"
        raise NoVerdictError(
            f"the supervisor on the head cannot be asked: {why}",
            hint="`systemctl status dspark-supervisor` and `journalctl -u dspark-supervisor` there",
        )
    return text.rstrip()


def require_reached(reading: NodeReading, seen: SupervisorFacts) -> None:
    """The head was read and has a supervisor.

    Raises:
        NoVerdictError: saying which is not so.
    """
    if not reading.reachable:
        raise NoVerdictError(f"head: {reading.error}", hint=reading.hint)
    if seen.installed is None:
        raise NoVerdictError(f"it could not be told whether there is a supervisor: {seen.problem}")
    if not seen.installed:
        raise NoVerdictError("no supervisor is installed on the head", hint="`dspark-ops supervise install`")


def wait_for_answer(
    head: SshRunner,
    *,
    limit_s: float = _ANSWER_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str | None, str | None]:
    """Until it answers and has reached its end on the worker: (what is wrong or None, its state)."""
    until = clock() + limit_s
    while True:
        reading = head.read(supervisor.PROBES)
        seen = read_supervisor(reading)
        problem = reading.error if not reading.reachable else _not_proven(seen, status_document(reading))
        if problem is None:
            return None, seen.state
        if clock() >= until:
            return problem, seen.state
        sleep(_POLL_S)


def _not_proven(seen: SupervisorFacts, document: Mapping[str, Any] | None) -> str | None:
    if not seen.answers or document is None:
        return f"the supervisor does not answer: {seen.problem}"
    return worker_problem(document)


def worker_problem(document: Mapping[str, Any]) -> str | None:
    """Why the worker's end has not answered yet, None when it has."""
    nodes = document.get("nodes")
    worker = nodes.get("worker") if isinstance(nodes, Mapping) else None
    reachable = worker.get("reachable") if isinstance(worker, Mapping) else None
    if reachable is True:
        return None
    problems = document.get("problems")
    more = [str(item) for item in problems] if isinstance(problems, list) else []
    said = "was not reached" if reachable is False else "has not been looked at yet"
    return "; ".join([f"its end on the worker {said}: does sshd there let root in with a key?", *more])
