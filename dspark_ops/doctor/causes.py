"""Which result follows from which: from a bad result over its dependencies to the root. Pure, and of no order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from dspark_ops.config.models import ROLES
from dspark_ops.doctor.catalogue import Check
from dspark_ops.report.models import Node, Status

REACH = "reach.ssh"
Place = tuple[str, Node]
_Bad = Literal["fail", "warn", "unknown"]

# What a bad result can be the reason of. What is wrong for sure never hides behind what is merely unknown or unwise.
_EXPLAINS: dict[_Bad, tuple[Status, ...]] = {
    "fail": ("fail", "warn", "unknown"),
    "unknown": ("unknown",),
    "warn": ("warn", "unknown"),
}


def root_causes(checks: Mapping[str, Check], statuses: Mapping[Place, Status]) -> dict[Place, str]:
    """The id of the root of every bad result that has one; a result that is a root itself is not in it.

    checks: the whole catalogue. statuses: each result by check and node; a check that has none was not judged.

    The way from a result to its causes goes over dependencies that are bad, were skipped or were not judged; one that
    is ok ends it. A failure outranks an unknown, which outranks a warning; among equals the first that is named wins.
    """
    roots: dict[Place, str] = {}
    for place, status in statuses.items():
        if status not in _EXPLAINS:
            continue
        # Explaining is transitive, so that a bad result always has a root that explains it, or is one.
        causes = [c for c in _bad_ancestors(place, checks, statuses) if status in _explained_by(c, statuses)]
        own = [c for c in causes if not _has_cause(c, checks, statuses)]
        for wanted in _EXPLAINS:
            best = next((c for c in own if statuses[c] == wanted), None)
            if best is not None:
                roots[place] = best[0]
                break
    return roots


def with_dependencies(chosen: Iterable[Check], checks: Mapping[str, Check]) -> tuple[Check, ...]:
    """The chosen checks and what they depend on over any number of steps, each once. An idle active one is left out."""
    found = {check.id: check for check in chosen}
    waiting = [*found.values()]
    while waiting:
        for identity in dependencies(waiting.pop()):
            check = checks.get(identity)
            if check is not None and identity not in found:
                waiting.append(check)
                if not check.active:
                    found[identity] = check
    return tuple(found.values())


def dependencies(check: Check) -> tuple[str, ...]:
    """What a check depends on; every one on its node being reached."""
    if check.id == REACH or REACH in check.depends_on:
        return check.depends_on
    return (*check.depends_on, REACH)


def _explained_by(cause: Place, statuses: Mapping[Place, Status]) -> tuple[Status, ...]:
    status = statuses[cause]
    return _EXPLAINS[status] if status in ("fail", "warn", "unknown") else ()


def _has_cause(place: Place, checks: Mapping[str, Check], statuses: Mapping[Place, Status]) -> bool:
    ancestors = _bad_ancestors(place, checks, statuses)
    return any(statuses[place] in _explained_by(cause, statuses) for cause in ancestors)


def _bad_ancestors(place: Place, checks: Mapping[str, Check], statuses: Mapping[Place, Status]) -> Iterator[Place]:
    """The bad results that this one depends on, nearest first, each once."""
    seen = {place}
    waiting = [place]
    while waiting:
        here = waiting.pop(0)
        for before in _before(here, checks):
            if before in seen:
                continue
            seen.add(before)
            status = statuses.get(before)
            if status == "ok":
                continue
            if status in _EXPLAINS:
                yield before
            waiting.append(before)


def _before(place: Place, checks: Mapping[str, Check]) -> Iterator[Place]:
    """Where the dependencies of a result are judged."""
    identity, node = place
    if identity not in checks:
        return
    check = checks[identity]
    for dependency in dependencies(check):
        if dependency not in checks:
            continue
        if checks[dependency].scope == "pair":
            yield dependency, "pair"
            continue
        own: tuple[Node, ...] = ROLES if node == "pair" else (node,)
        yield from ((dependency, where) for where in own)
        if check.with_peer:
            yield from ((dependency, where) for where in ROLES if where not in own)
