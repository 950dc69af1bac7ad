"""What a fetch or a mirror will bring, make and need, and what forbids it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dspark_ops.config.models import ROLES, HubSite, RailSite, Role, Site
from dspark_ops.errors import ConfigError, RefusedError
from dspark_ops.images.sync_plan import why_down
from dspark_ops.weights.meter import amount
from dspark_ops.weights.model import INCOMPLETE, Manifest, WeightFile
from dspark_ops.weights.reading import NodeWeights
from dspark_ops.weights.state import Digests, blob_states, missing_bytes, settled

_GIB = 1 << 30


@dataclass(frozen=True)
class WeightsPlan:
    """The steps, before anything is done.

    fetch: files that the head takes from the hub, or proves. mirror: files that the worker takes from the head, or
    proves. settle: nodes whose snapshot, ref or record must be made. need_bytes: what each disk must still take;
    move_bytes: what is left to move, at the most.
    """

    manifest: Manifest
    fetch: tuple[WeightFile, ...]
    mirror: tuple[WeightFile, ...]
    settle: tuple[Role, ...]
    need_bytes: Mapping[Role, int]
    move_bytes: Mapping[Role, int]
    rails: tuple[RailSite, ...]
    down: tuple[str, ...]

    @property
    def changes(self) -> bool:
        return bool(self.fetch or self.mirror or self.settle)

    def render(self, site: Site) -> str:
        """The plan for people."""
        manifest = self.manifest
        total = f"{len(manifest.files)} files, {amount(manifest.total_bytes)}"
        lines = [f"plan for site {site.name}: {manifest.repo} at {manifest.revision[:12]} ({total})"]
        if self.fetch:
            size = amount(self.move_bytes["head"])
            lines.append(f"  fetch   {len(self.fetch)} files to the head ({site.nodes.head.host}), {size} at the most")
        if self.mirror:
            over = ", ".join(rail.name for rail in self.rails)
            size = amount(self.move_bytes["worker"])
            lines.append(
                f"  mirror  {len(self.mirror)} files to the worker ({site.nodes.worker.host}) over {over}, "
                f"{size} at the most"
            )
        lines += [f"  not over {reason}" for reason in self.down if self.mirror]
        lines += [f"  make    the snapshot on the {role}" for role in self.settle]
        if not self.changes:
            lines.append("  nothing to change")
        return "\n".join(lines)


def require_hub(site: Site) -> HubSite:
    """The site's pinned repository.

    Raises:
        ConfigError: the site names none.
    """
    if site.model.hub is None:
        raise ConfigError(
            f"the site {site.name} names no model.hub: its weights are not kept by this tool",
            hint="set model.hub.repo and model.hub.revision (a commit) in the site file",
        )
    return site.model.hub


def plan_fetch(
    site: Site, manifest: Manifest, nodes: Mapping[Role, NodeWeights], digests: Mapping[Role, Digests] | None
) -> WeightsPlan:
    """What the head must take from the hub and the worker from the head. digests None: sizes alone are looked at.

    Raises:
        RefusedError: no room, or no rail; nothing was changed.
    """
    fetch = _not_whole(manifest, nodes["head"], None if digests is None else digests["head"])
    return _plan(site, manifest, nodes, digests, fetch)


def plan_sync(site: Site, nodes: Mapping[Role, NodeWeights], digests: Mapping[Role, Digests] | None) -> WeightsPlan:
    """What the worker must take from the head.

    Raises:
        RefusedError: the head does not have the weights whole, no room, or no rail; nothing was changed.
    """
    head = nodes["head"]
    manifest = require_record(head)
    broken = [state for state in blob_states(manifest, head, None) if not state.whole]
    if broken:
        told = "\n".join(f"  - {state.file.name}: {state.why}" for state in broken[:5])
        more = f"\n  and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise RefusedError(
            f"the head ({head.host}) does not have {manifest.repo} whole:\n{told}{more}\nnothing was changed "
            f"[weights.whole]",
            hint="`dspark-ops model fetch` brings what is missing",
        )
    return _plan(site, manifest, nodes, digests, ())


def require_record(head: NodeWeights) -> Manifest:
    """The head's record of what whole weights are.

    Raises:
        RefusedError: it has none, or none that can be used.
    """
    if head.record is None:
        why = head.record_error or "there is no record of what whole weights are"
        raise RefusedError(
            f"the head ({head.host}) does not have the pinned revision: {why}; nothing was changed [weights.record]",
            hint="`dspark-ops model fetch` brings it, and proves what is there already",
        )
    return head.record


def _not_whole(manifest: Manifest, node: NodeWeights, digests: Digests | None) -> tuple[WeightFile, ...]:
    return tuple(state.file for state in blob_states(manifest, node, digests) if not state.whole)


def _plan(
    site: Site,
    manifest: Manifest,
    nodes: Mapping[Role, NodeWeights],
    digests: Mapping[Role, Digests] | None,
    fetch: tuple[WeightFile, ...],
) -> WeightsPlan:
    mirror = _not_whole(manifest, nodes["worker"], None if digests is None else digests["worker"])
    need: Mapping[Role, int] = {
        "head": missing_bytes(fetch, nodes["head"]),
        "worker": missing_bytes(mirror, nodes["worker"]),
    }
    _refuse_full(site, nodes, need)
    rails, down = _rails(site, nodes)
    if mirror and not rails:
        raise RefusedError(
            "no rail is up, and the weights go over none other:\n"
            + "\n".join(f"  - {reason}" for reason in down)
            + "\nnothing was changed [weights.no_rail]",
            hint="`dspark-ops fabric verify` names what is wrong, `dspark-ops fabric apply` configures the rails",
        )
    ends = {"head": bool(fetch), "worker": bool(mirror)}
    settle = tuple(role for role in ROLES if ends[role] or not settled(manifest, nodes[role]))
    move: Mapping[Role, int] = {"head": _left(fetch, nodes["head"]), "worker": _left(mirror, nodes["worker"])}
    return WeightsPlan(manifest, fetch, mirror, settle, need, move, rails, down)


def _refuse_full(site: Site, nodes: Mapping[Role, NodeWeights], need: Mapping[Role, int]) -> None:
    floor_gib = site.guards.disk_floor_gib
    told = []
    for role in ROLES:
        free = nodes[role].free_bytes
        where = f"{role} ({nodes[role].host})"
        if not need[role]:
            continue
        if free is None:
            told.append(f"{where}: the free space cannot be read [host.disk_free]")
        elif free < need[role] + floor_gib * _GIB:
            told.append(
                f"{where}: {free / _GIB:.1f} GiB free, the weights need {need[role] / _GIB:.1f} GiB more and the floor "
                f"is {floor_gib:g} GiB [host.disk_free]"
            )
    if told:
        raise RefusedError(
            "\n".join(told) + "\nnothing was written on either node",
            hint="free space there, or lower guards.disk_floor_gib",
        )


def _rails(site: Site, nodes: Mapping[Role, NodeWeights]) -> tuple[tuple[RailSite, ...], tuple[str, ...]]:
    up, down = [], []
    for rail in site.fabric.rails:
        ends = ((role, nodes[role].link(rail.of(role).netdev)) for role in ROLES)
        reason = next((why for role, link in ends if (why := why_down(rail, role, link)) is not None), None)
        if reason is None:
            up.append(rail)
        else:
            down.append(reason)
    return tuple(up), tuple(down)


def hashable(manifest: Manifest, node: NodeWeights) -> tuple[WeightFile, ...]:
    """The files that are worth hashing on a node: there, in their size, with a sha256 to compare."""
    blobs = node.blobs or {}
    return tuple(f for f in manifest.files if f.sha256 is not None and blobs.get(f.blob) == f.size)


def _left(files: tuple[WeightFile, ...], node: NodeWeights) -> int:
    """What is left of these files, less what an earlier run has brought."""
    kept = node.blobs or {}
    return sum(size - min(size, kept.get(b + INCOMPLETE, 0)) for b, size in {f.blob: f.size for f in files}.items())
