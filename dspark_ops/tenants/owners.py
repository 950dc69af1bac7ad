"""Whose a process is, by its control group: a container, a unit of systemd, a login session, or nobody's."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

_CONTAINER = re.compile(r"(?:^|/)(?:docker[-/])?([0-9a-f]{64})(?:\.scope)?(?=/|$)")
_USER_MANAGER = re.compile(r"^user@(\d{1,10})\.service$")
_USER_SLICE = re.compile(r"(?:^|/)user-(\d{1,10})\.slice(?:/|$)")
_SESSION = re.compile(r"^session-\w+\.scope$")


@dataclass(frozen=True)
class Container:
    """In a container of the node's own Engine."""

    id: str


@dataclass(frozen=True)
class Unit:
    """In a service. uid None: of the system manager, else of that user's own."""

    name: str
    uid: int | None = None


@dataclass(frozen=True)
class Session:
    """In a login session, or in a scope: nobody starts it again. name None: in no unit at all."""

    name: str | None = None
    uid: int | None = None


Owner = Container | Unit | Session


def owner_of(cgroups: Sequence[str], containers: Collection[str] | None) -> Owner:
    """The owner by control group paths.

    containers: ids that the Engine knows; the first of them in a path counts, so that what runs inside a tenant's own
    Engine belongs to the tenant, and a node that is a container itself is none. None: the Engine could not be asked;
    then the last id in the path counts.
    """
    for path in cgroups:
        ids = _CONTAINER.findall(path)
        known = ids[-1:] if containers is None else [one for one in ids if one in containers]
        if known:
            return Container(known[0])
    for path in cgroups:
        found = _unit(path)
        if found is not None:
            return found
    return Session()


def _unit(path: str) -> Owner | None:
    user: int | None = None
    slices = _USER_SLICE.search(path)
    owner = int(slices[1]) if slices else None
    for part in path.split("/"):
        manager = _USER_MANAGER.match(part)
        if manager:
            user = int(manager[1])
        elif part.endswith(".service"):
            return Unit(part, user)
        elif part.endswith(".scope"):
            # A scope holds processes that something else started: it can be ended, and not be started again.
            return Session(part, user if user is not None else owner)
    return Session(None, user) if user is not None else None


def is_login(session: Session) -> bool:
    """A session that logind opened: a login at a screen or over ssh."""
    return session.name is not None and _SESSION.match(session.name) is not None
