"""Wanted minus observed: what a deploy will load, stop and start, and what forbids it. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.deploy.observed import CanaryAnswer, Observed, RankState
from dspark_ops.deploy.spec import CONTAINER, RankSpec
from dspark_ops.errors import NoVerdictError, RefusedError

Action = Literal["keep", "wait", "start"]


@dataclass(frozen=True)
class DeployPlan:
    """The steps, before anything is done.

    action: keep (it serves what is wanted), wait (it is starting with what is wanted), start (stop what differs, then
    worker, then head). epoch: the one to keep, or a new one. reasons: why it is not `keep`.
    """

    specs: dict[Role, RankSpec]
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
        release = self.specs["head"].release
        lines = [f"plan for site {site.name}: release {release} ({site.image.reference}, {site.model.served_name})"]
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
    specs: Mapping[Role, RankSpec],
    observed: Mapping[Role, Observed],
    canary: CanaryAnswer | None,
    *,
    now: datetime,
) -> DeployPlan:
    """Decide what to do, or refuse.

    canary: the head's answer, None when it was not asked.

    Raises:
        NoVerdictError: a node is unreachable or a needed fact is unknown.
        RefusedError: a guard forbids it (foreign container, port taken, memory, disk, fabric not bootstrapped).
    """
    require_known(site, observed)
    ranks = {role: observed[role].rank for role in ROLES}
    reasons, action, epoch = _decide(site, specs, ranks, canary, now)
    load = tuple(role for role in ROLES if not observed[role].image_present)
    plan = DeployPlan(
        specs=dict(specs),
        load_image=load,
        action=action,
        epoch=epoch,
        stops=tuple(role for role in ROLES if ranks[role] is not None) if action == "start" else (),
        reasons=tuple(reasons),
    )
    refusals = _foreign(site, ranks)
    if plan.changes:
        refusals += _guards(site, plan, observed)
    if refusals:
        raise RefusedError(
            "refused before anything was changed:\n" + "\n".join(f"  - {text}" for text, _ in refusals),
            hint="; ".join(dict.fromkeys(hint for _, hint in refusals)),
        )
    return plan


def require_known(site: Site, observed: Mapping[Role, Observed]) -> None:
    """Both nodes must have answered, and Docker on both, before anything is decided.

    Raises:
        NoVerdictError: naming the node and what is missing; nothing was changed on either.
    """
    failures: list[tuple[str, str]] = []
    for role in ROLES:
        node, host = observed[role], site.nodes.of(role).host
        if not node.reachable:
            failures.append((f"{role}: {node.error}", node.hint or "look at the node"))
        elif node.sudo is False:
            failures.append((f"{role} ({host}): sudo asks for a password", "allow this user password-less sudo there"))
        elif not node.docker:
            why = node.problems[0] if node.problems else "no answer"
            failures.append((f"{role} ({host}): the Docker Engine does not answer: {why}", "`dspark-ops bootstrap`"))
    if failures:
        raise NoVerdictError(
            "\n".join(text for text, _ in failures) + "\nnothing was changed on either node",
            hint="; ".join(dict.fromkeys(hint for _, hint in failures)),
        )


def _decide(
    site: Site,
    specs: Mapping[Role, RankSpec],
    ranks: Mapping[Role, RankState | None],
    canary: CanaryAnswer | None,
    now: datetime,
) -> tuple[list[str], Action, str]:
    reasons: list[str] = []
    for role in ROLES:
        rank, spec = ranks[role], specs[role]
        if rank is None:
            reasons.append(f"no rank container on {role}")
        elif not rank.running:
            reasons.append(f"the rank on {role} is {rank.status} (exit code {rank.exit_code})")
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


def _age_s(rank: RankState, now: datetime) -> float | None:
    return None if rank.started_at is None else max(0.0, (now - rank.started_at).total_seconds())


def _foreign(site: Site, ranks: Mapping[Role, RankState | None]) -> list[tuple[str, str]]:
    out = []
    for role in ROLES:
        rank = ranks[role]
        if rank is not None and rank.label("site") != site.name:
            owner = rank.label("site")
            whose = f"belongs to site {owner!r}" if owner else "carries no label of ours"
            out.append(
                (
                    f"{role}: a container named {CONTAINER} {whose} [tenant.foreign_name]",
                    "rename or remove it there; only our own containers are ever stopped",
                )
            )
    return out


def _guards(site: Site, plan: DeployPlan, observed: Mapping[Role, Observed]) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    guards = site.guards
    for role in ROLES:
        node = observed[role]
        if role in plan.load_image:
            out += _image_guards(site, role, node)
        if plan.action != "start":
            continue
        out += _rail_guards(site, role, node)
        free = node.memory_available_gib
        if free is None:
            out.append((f"{role}: MemAvailable cannot be read [mem.headroom]", "`dspark-ops doctor`"))
        elif free < guards.memory_floor_gib and node.rank is None:
            out.append(
                (
                    f"{role}: {free:.1f} GiB of memory available, the floor is {guards.memory_floor_gib:g} GiB [mem.headroom]",
                    "stop what holds it (`dspark-ops doctor` names it), or lower guards.memory_floor_gib",
                )
            )
        ours = node.rank is not None and node.rank.running
        wanted = {site.serve.api_port, site.serve.master_port} if role == "head" else set()
        for port in sorted(wanted & node.listening):
            if not ours:
                out.append(
                    (
                        f"{role}: port {port} is taken [tenant.port]",
                        "stop its owner, or choose another port in the site",
                    )
                )
    return out


def _image_guards(site: Site, role: Role, node: Observed) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    archive = site.image.archive
    if archive is None:
        out.append(
            (
                f"{role}: image {site.image.id} is absent and the site names no archive [image.present]",
                "set image.archive",
            )
        )
        return out
    if not archive.is_file():
        out.append(
            (f"the image archive {archive} does not exist [image.present]", "build the image, or mend image.archive")
        )
        return out
    # docker load keeps the layers only, but containerd's temporary copy needs the archive's size once more.
    need = 2 * archive.stat().st_size / (1 << 30) + site.guards.disk_floor_gib
    if node.disk_free_gib is None:
        out.append((f"{role}: free disk space cannot be read [host.disk_free]", "`dspark-ops doctor`"))
    elif node.disk_free_gib < need:
        out.append(
            (
                f"{role}: {node.disk_free_gib:.1f} GiB free for Docker, the image needs {need:.1f} GiB with the floor "
                f"[host.disk_free]",
                f"free space on {site.nodes.of(role).host} (docker image prune there), or lower guards.disk_floor_gib",
            )
        )
    return out


def _rail_guards(site: Site, role: Role, node: Observed) -> list[tuple[str, str]]:
    out = []
    for rail in site.fabric.rails:
        end = rail.of(role)
        if str(end.address) not in node.addresses.get(end.netdev, frozenset()):
            out.append(
                (f"{role}: {end.netdev} has no {end.address} [fabric.address_planned]", "`dspark-ops bootstrap`")
            )
        elif node.mtu.get(end.netdev) != site.fabric.mtu:
            out.append(
                (
                    f"{role}: {end.netdev} has MTU {node.mtu.get(end.netdev)}, wanted {site.fabric.mtu} [fabric.mtu]",
                    "`dspark-ops bootstrap`",
                )
            )
    return out
