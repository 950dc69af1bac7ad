"""`doctor HEAD WORKER`: look for what serves, then read both nodes as the doctor does. Two round trips a node."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dspark_ops.config import discover
from dspark_ops.config.discover import InitRequest, NodeSeen, check_request, look_at
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Profile, Role
from dspark_ops.doctor.foreign import facts as foreign_facts
from dspark_ops.doctor.foreign import sighting
from dspark_ops.doctor.foreign.model import FoundNode, FoundPair
from dspark_ops.doctor.foreign.provisional import build
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.facts import docker_engine
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.transport.base import Command, NodeReading, Probe, RecordedRunner
from dspark_ops.transport.ssh import SshRunner, read_nodes, resolve_target

_IMAGES = Command("find.images", ("docker", "image", "ls", "--no-trunc", "--format", "{{json .}}"), root=True)
#: The first round trip: what runs, and what the cables join.
FIRST: tuple[Probe, ...] = (*sighting.PROBES, _IMAGES, *discover.PROBES)
_OTHER: dict[Role, Role] = {"head": "worker", "worker": "head"}


@dataclass(frozen=True)
class ForeignRequest:
    """Two hosts by name, and how they are reached. user: instead of the one that the SSH configuration names."""

    head: str
    worker: str
    ssh_config: Path | None = None
    user: str | None = None
    connect_timeout_s: float = 10.0

    def check(self) -> None:
        """Everything that is wrong with it alone.

        Raises:
            ConfigError: a name is none, or both are one; nothing was contacted.
        """
        check_request(self.init())
        if self.user is not None and (not self.user or self.user.startswith("-") or not self.user.isprintable()):
            raise ConfigError(f"--user {self.user!r}: expected a login name")

    def init(self) -> InitRequest:
        return InitRequest(self.head, self.worker, self.ssh_config, self.connect_timeout_s)


@dataclass(frozen=True)
class Look:
    """What was found and read. readings: both round trips in one; probes: what the second one asked."""

    loaded: LoadedSite
    pair: FoundPair
    readings: Mapping[Role, NodeReading]
    probes: Mapping[Role, Sequence[Probe]]
    facts: PairFacts


def runners_of(request: ForeignRequest) -> dict[Role, SshRunner]:
    """A runner for each node; nothing is contacted yet."""
    found = {}
    for role, host in (("head", request.head), ("worker", request.worker)):
        target = resolve_target(host, request.ssh_config, request.connect_timeout_s)
        if request.user is not None:
            target = dataclasses.replace(target, user=request.user)
        found[_role(role)] = SshRunner(node=role, target=target)
    return found


def look(request: ForeignRequest, *, active: bool = False) -> Look:
    """Read both nodes over SSH; nothing is changed. A node that is not reached is a fact, not an error.

    Raises:
        ConfigError: the request is wrong; nothing was contacted.
    """
    request.check()
    runners = runners_of(request)
    try:
        first = read_nodes(runners, dict.fromkeys(ROLES, FIRST))
        found = prepare(request, first)
        loaded, pair, asked, order = found.loaded, found.pair, found.probes(active), found.order
        reachable = {role: runners[order[role]] for role in ROLES if first[order[role]].reachable}
        second = read_nodes(reachable, asked) if reachable else {}
    finally:
        for runner in runners.values():
            runner.close()
    return combine(loaded, pair, {r: first[order[r]] for r in ROLES}, second, asked)


@dataclass(frozen=True)
class Prepared:
    """After the first round trip. order: which of the two hosts, by the role that it was given, has which role."""

    loaded: LoadedSite
    pair: FoundPair
    order: Mapping[Role, Role]

    def probes(self, active: bool) -> dict[Role, tuple[Probe, ...]]:
        """What the second round trip asks."""
        profile: Profile | None = self.loaded.profile if active else None
        return {
            role: foreign_facts.probes_after(self.loaded.site, role, self.pair.of(role).server, active=profile)
            for role in ROLES
        }


def prepare(request: ForeignRequest, first: Mapping[Role, NodeReading]) -> Prepared:
    """What the first round trip says: who serves as which rank, over which rails. Pure."""
    named = {"head": request.head, "worker": request.worker}
    found = {role: sighting.find(role, named[role], first[role]) for role in ROLES}
    swapped = _ranks_are_swapped(found)
    order: dict[Role, Role] = dict(_OTHER) if swapped else {role: role for role in ROLES}
    placed = {role: found[order[role]].model_copy(update={"role": role}) for role in ROLES}
    readings = {role: first[order[role]].model_copy(update={"node": role}) for role in ROLES}
    hosts = {role: named[order[role]] for role in ROLES}
    seen, problem = _seen(InitRequest(hosts["head"], hosts["worker"]), readings)
    loaded, pair = build(
        hosts,
        placed,
        seen,
        {role: _image_of(placed[role], readings[role]) for role in ROLES},
        ssh_config=request.ssh_config.absolute() if request.ssh_config is not None else None,
        connect_timeout_s=request.connect_timeout_s,
        swapped=swapped,
    )
    notes = [*pair.notes, *([problem] if problem else [])]
    if swapped:
        notes.insert(0, f"{hosts['head']} runs rank 0 and is judged as the head, though it was named second")
    return Prepared(loaded, pair.model_copy(update={"notes": tuple(notes)}), order)


def combine(
    loaded: LoadedSite,
    pair: FoundPair,
    first: Mapping[Role, NodeReading],
    second: Mapping[Role, NodeReading],
    probes: Mapping[Role, Sequence[Probe]],
) -> Look:
    """Both round trips as one reading, and the facts in it. Pure."""
    readings = {
        role: foreign_facts.merge(first[role], second.get(role)).model_copy(update={"node": role}) for role in ROLES
    }
    facts = foreign_facts.facts_from(pair, loaded, readings)
    known = foreign_facts.with_image(loaded, facts)
    return Look(known, pair, readings, probes, facts)


def _role(text: str) -> Role:
    return "head" if text == "head" else "worker"


def _ranks_are_swapped(found: Mapping[Role, FoundNode]) -> bool:
    ranks = {role: None if (server := found[role].server) is None else server.node_rank for role in ROLES}
    headless = {role: (server := found[role].server) is not None and server.headless for role in ROLES}
    if ranks["head"] is not None and ranks["worker"] is not None:
        return ranks["head"] > ranks["worker"]
    return headless["head"] and not headless["worker"] and found["worker"].server is not None


def _seen(request: InitRequest, first: Mapping[Role, NodeReading]) -> tuple[dict[Role, NodeSeen] | None, str | None]:
    if not all(first[role].reachable for role in ROLES):
        return None, None
    try:
        return look_at(request, {role: RecordedRunner(first[role]) for role in ROLES}), None
    except NoVerdictError as error:
        return None, error.message


def _image_of(node: FoundNode, reading: NodeReading) -> str | None:
    """The id of the image that the container was started from, by its name."""
    name = node.server.image if node.server is not None else None
    if name is None:
        return None
    if name.startswith("sha256:") and len(name) == 71:
        return name
    images = docker_engine.parse_images(reading.get("find.images").text()) or ()
    return next((image.id for image in images if name in image.references), None)
