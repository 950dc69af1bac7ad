"""Room for a start: what is free against what is needed, and who has to leave for it. Decided before consent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Profile, Role, Site
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.memory.gate import MemoryRefusal, memory_refusals
from dspark_ops.report.models import Finding
from dspark_ops.report.recorder import Recorder
from dspark_ops.tenants.model import Tenant
from dspark_ops.tenants.policy import may_evict
from dspark_ops.tenants.sight import look_at_tenants
from dspark_ops.transport.ssh import SshRunner

_KIB_PER_GIB = 1024**2


@dataclass(frozen=True)
class Clearing:
    """What happens before the ranks are touched: who leaves, and where the page cache is given up."""

    evict: tuple[Tenant, ...] = ()
    reclaim: tuple[Role, ...] = ()

    def lines(self) -> list[str]:
        """The part of the plan for people: each eviction with how it ends and how it comes back."""
        told = [
            f"  evict {t.node}: {t.key} ({t.what}, {_size(t)}): {t.stops_by}; comes back by {t.comes_back_by}"
            for t in self.evict
        ]
        if self.reclaim:
            told.append(f"  drop  the page cache on {' and '.join(self.reclaim)} and compact memory")
        return told


def look_around(
    loaded: LoadedSite,
    runners: Mapping[Role, SshRunner],
    recorder: Recorder,
    pair: PairFacts,
    *,
    consent: bool,
) -> Clearing:
    """Look at the tenants of both nodes and decide who has to leave.

    Raises:
        RefusedError: there is no room, with who holds it and what would make room.
        NoVerdictError: memory could not be read, or it is short and who holds it could not be seen.
    """
    with recorder.phase("tenants") as note:
        sight = look_at_tenants(loaded, runners)
        seen = {role: sight.of(role) for role in ROLES}
        found = plan_clearing(loaded.site, loaded.profile, pair, seen, consent=consent)
        if isinstance(found, Clearing):
            if sight.problems:
                recorder.findings.append(_not_all_seen(sight.problems))
            held = ", ".join(f"{t.node}/{t.key}" for t in sight.all) or "nobody else"
            note.detail = held + (f"; {len(found.evict)} to evict" if found.evict else "")
            return found
    if sight.problems:
        lines = [refusal.observed for refusal in found] + list(sight.problems)
        raise NoVerdictError(
            "memory is short, and who holds it could not be seen:\n" + "\n".join(f"  - {line}" for line in lines),
            hint="`dspark-ops tenants list`",
        )
    refuse(found)
    return Clearing()


def plan_clearing(
    site: Site,
    profile: Profile,
    pair: PairFacts,
    tenants: Mapping[Role, Sequence[Tenant]],
    *,
    consent: bool,
) -> Clearing | list[MemoryRefusal]:
    """Who has to leave, or why there is no room. Pure.

    Those that the site lists under `evict-listed` leave always. Where memory is short still, the largest that may be
    evicted leave until it fits, and no more; a desktop session is never chosen.
    """
    leave: list[Tenant] = [t for role in ROLES for t in tenants[role] if _listed(site, t)]
    refusals = _refusals(site, profile, pair, tenants, leave)
    for refusal in refusals:
        leave += _until_it_fits(site, tenants[refusal.role], leave, refusal, consent=consent)
    after = _refusals(site, profile, pair, tenants, leave)
    if after:
        return [_with_a_way_out(site, refusal, tenants[refusal.role], leave, consent=consent) for refusal in after]
    order = {t.key: index for index, t in enumerate(sorted(leave, key=lambda t: -(t.held_kib or 0)))}
    return Clearing(
        evict=tuple(sorted(leave, key=lambda t: (t.node, order[t.key]))),
        reclaim=ROLES if site.guards.reclaim else (),
    )


def refuse(refusals: Sequence[MemoryRefusal]) -> None:
    """Raise what the refusals come to; nothing when there is none.

    Raises:
        RefusedError: memory is short on a node.
        NoVerdictError: on no node is it known to be short, on one it could not be read.
    """
    if not refusals:
        return
    told = "\n".join(f"  - {refusal.observed} [{refusal.check}]" for refusal in refusals)
    hint = "; ".join(dict.fromkeys(refusal.remedy for refusal in refusals))
    if all(refusal.could_not_tell for refusal in refusals):
        raise NoVerdictError(f"no verdict on memory:\n{told}", hint=hint)
    raise RefusedError(f"refused, there is no room for a start:\n{told}", hint=hint)


def _listed(site: Site, tenant: Tenant) -> bool:
    return site.tenants.policy == "evict-listed" and may_evict(site, tenant, consent=False) is None


def _refusals(
    site: Site,
    profile: Profile,
    pair: PairFacts,
    tenants: Mapping[Role, Sequence[Tenant]],
    leave: Sequence[Tenant],
) -> list[MemoryRefusal]:
    back: dict[Role, int | None] = {}
    for role in ROLES:
        held = [t.held_kib for t in leave if t.node == role]
        back[role] = None if None in held else sum(kib for kib in held if kib is not None)
    staying = {role: [t for t in tenants[role] if t not in leave] for role in ROLES}
    return memory_refusals(site, profile, pair, given_back_kib=back, holders=staying)


def _until_it_fits(
    site: Site, tenants: Sequence[Tenant], leave: Sequence[Tenant], refusal: MemoryRefusal, *, consent: bool
) -> list[Tenant]:
    if refusal.could_not_tell or refusal.never_fits or refusal.missing_gib is None:
        return []
    missing_kib, chosen = refusal.missing_gib * _KIB_PER_GIB, []
    for tenant in _candidates(tenants, leave):
        if missing_kib <= 0:
            break
        if may_evict(site, tenant, consent=consent) is None:
            chosen.append(tenant)
            missing_kib -= tenant.held_kib or 0
    return chosen


def _candidates(tenants: Sequence[Tenant], leave: Sequence[Tenant]) -> list[Tenant]:
    """Who could leave, the largest first: not whose memory is unknown, nor a container that its stop deletes."""
    able = [t for t in tenants if t not in leave and t.kind != "desktop" and t.held_kib]
    able = [t for t in able if not any(member.auto_remove for member in t.members)]
    return sorted(able, key=lambda t: -(t.held_kib or 0))


def _with_a_way_out(
    site: Site, refusal: MemoryRefusal, tenants: Sequence[Tenant], leave: Sequence[Tenant], *, consent: bool
) -> MemoryRefusal:
    """The same refusal; where consent alone would make the room, it says whose."""
    if consent or refusal.never_fits or refusal.missing_gib is None:
        return refusal
    enough = _until_it_fits(site, tenants, leave, refusal, consent=True)
    if sum(t.held_kib or 0 for t in enough) < refusal.missing_gib * _KIB_PER_GIB:
        return refusal
    names = ", ".join(t.key for t in enough)
    return MemoryRefusal(
        refusal.check,
        refusal.observed,
        f"`--evict` consents to stop {names} on {refusal.role} first; `tenants restore` brings it back",
        role=refusal.role,
        missing_gib=refusal.missing_gib,
    )


def _size(tenant: Tenant) -> str:
    held = tenant.held_kib
    return "memory unknown" if held is None else f"{held / _KIB_PER_GIB:.1f} GiB"


def _not_all_seen(problems: Sequence[str]) -> Finding:
    return Finding(
        id="tenant.seen",
        node="pair",
        status="unknown",
        severity="advised",
        title="Who else is on the nodes",
        observed="; ".join(problems),
        expected="all tenants of both nodes can be read",
    )
