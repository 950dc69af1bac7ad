"""Wanted minus observed: what a deploy will load, stop and start, and what forbids it. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.deploy.guards import foreign_containers, image_guards, moved_tags, start_guards
from dspark_ops.deploy.observed import CanaryAnswer, Observation, describe_exit, started_at
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.facts.rank import RankFacts
from dspark_ops.facts.snapshot import NodeFacts, PairFacts

Action = Literal["keep", "wait", "start"]


class Wanted(Protocol):
    """What one rank should run, as far as a running container can be compared with it."""

    @property
    def release(self) -> str: ...

    def digest(self) -> str: ...


@dataclass(frozen=True)
class DeployPlan:
    """The steps, before anything is done.

    action: keep (it serves what is wanted), wait (it is starting with what is wanted), start (stop what differs, then
    worker, then head). epoch: the one to keep, or a new one. reasons: why it is not `keep`.
    """

    release: str
    load_image: tuple[Role, ...]
    action: Action
    epoch: str
    stops: tuple[Role, ...]
    reasons: tuple[str, ...]

    @property
    def changes(self) -> bool:
        return bool(self.load_image) or self.action == "start"

    def render(self, site: Site) -> str:
        """The plan for people."""
        what = f"release {self.release} of profile {site.profile}"
        lines = [f"plan for site {site.name}: {what} ({site.image.reference}, {site.model.served_name})"]
        lines += [
            f"  load  image {site.image.id[:19]} on {role} ({site.nodes.of(role).host}) from {site.image.archive}"
            for role in self.load_image
        ]
        if self.action == "start":
            lines += [f"  stop  rank container on {role} ({site.nodes.of(role).host})" for role in self.stops]
            lines.append(f"  start worker ({site.nodes.worker.host}), then head ({site.nodes.head.host})")
            lines.append(f"  wait  until the completion is correct, at most {site.guards.ready_timeout_s} s")
        elif self.action == "wait":
            lines.append(f"  wait  for the ranks that are already starting, at most {site.guards.ready_timeout_s} s")
        if not self.changes:
            lines.append("  nothing to change")
        lines += [f"  why   {reason}" for reason in self.reasons]
        return "\n".join(lines)


def plan_deploy(
    site: Site,
    wanted: Mapping[Role, Wanted],
    seen: Observation,
    *,
    now: datetime,
) -> DeployPlan:
    """Decide what to do, or refuse.

    Raises:
        NoVerdictError: a node is unreachable or a needed fact is unknown.
        RefusedError: a guard forbids it (foreign container, port taken, disk, fabric not bootstrapped).
    """
    require_known(seen.pair)
    ranks = {role: seen.pair.of(role).rank for role in ROLES}
    reasons, action, epoch = _decide(site, wanted, ranks, seen.canary, now)
    load = tuple(role for role in ROLES if not _has_image(seen.pair.of(role), site.image.id))
    plan = DeployPlan(
        release=wanted["head"].release,
        load_image=load,
        action=action,
        epoch=epoch,
        stops=tuple(role for role in ROLES if ranks[role] is not None) if action == "start" else (),
        reasons=tuple(reasons),
    )
    refusals = foreign_containers(site, seen.pair)
    refusals += moved_tags(site, seen.pair)
    refusals += image_guards(site, load, seen.pair)
    if action == "start":
        refusals += start_guards(site, seen.pair)
    if refusals:
        raise RefusedError(
            "refused before anything was changed:\n" + "\n".join(f"  - {r.observed} [{r.check}]" for r in refusals),
            hint="; ".join(dict.fromkeys(r.remedy for r in refusals)),
        )
    return plan


def require_known(pair: PairFacts) -> None:
    """Both nodes must have answered, Docker on both and what of ours runs there, before anything is decided.

    Raises:
        NoVerdictError: naming the node and what is missing; nothing was changed on either.
    """
    failures: list[tuple[str, str]] = []
    for node in pair.nodes:
        where = f"{node.role} ({node.host})"
        if not node.reachable:
            failures.append((f"{node.role}: {node.error}", node.hint or "look at the node"))
        elif node.sudo is False:
            failures.append((f"{where}: sudo asks for a password", "allow this user password-less sudo there"))
        elif node.docker is None or not node.docker.answers:
            why = (node.docker.error if node.docker else None) or "no answer"
            failures.append((f"{where}: the Docker Engine does not answer: {why}", "`dspark-ops bootstrap` starts it"))
        elif not node.rank_known or node.images is None:
            failures.append((f"{where}: its containers and images cannot be read", "`dspark-ops doctor`"))
    if failures:
        raise NoVerdictError(
            "\n".join(text for text, _ in failures) + "\nnothing was changed on either node",
            hint="; ".join(dict.fromkeys(hint for _, hint in failures)),
        )


def _has_image(node: NodeFacts, image_id: str) -> bool:
    return any(image.id == image_id for image in node.images or ())


def _decide(
    site: Site,
    wanted: Mapping[Role, Wanted],
    ranks: Mapping[Role, RankFacts | None],
    canary: CanaryAnswer | None,
    now: datetime,
) -> tuple[list[str], Action, str]:
    reasons: list[str] = []
    for role in ROLES:
        rank, spec = ranks[role], wanted[role]
        if rank is None:
            reasons.append(f"no rank container on {role}")
        elif not rank.running:
            reasons.append(f"the rank on {role} is {rank.state} ({describe_exit(rank)})")
        elif rank.label("spec") != spec.digest() or rank.label("release") != spec.release:
            reasons.append(f"the rank on {role} runs release {rank.label('release')}, not {spec.release}")
    head, worker = ranks["head"], ranks["worker"]
    if not reasons and head is not None and worker is not None:
        epoch = head.label("epoch")
        if epoch is None or epoch != worker.label("epoch"):
            reasons.append("the ranks were not started together (their epochs differ)")
        elif canary is not None and canary.correct:
            return [], "keep", epoch
        else:
            age_s = _age_s(head, now)
            text = canary.text if canary is not None else None
            error = canary.error if canary is not None else "not asked"
            if text is None and age_s is not None and age_s < site.guards.ready_timeout_s:
                return [f"started {age_s:.0f} s ago and not ready yet: {error}"], "wait", epoch
            reasons.append(f"both ranks run but the completion is not correct: {error}")
    return reasons, "start", uuid.uuid4().hex


def _age_s(rank: RankFacts, now: datetime) -> float | None:
    began = started_at(rank)
    return None if began is None else max(0.0, (now - began).total_seconds())
