"""What `releases` and `releases show` say: a table, one release in full, and their JSON documents. No secrets."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops.config.models import ROLES
from dspark_ops.releases.model import EffectiveRank, Release, ReleaseStatus, StartOfRelease
from dspark_ops.releases.store import Kept, current_of, previous_of


class ReleaseRow(BaseModel):
    """One release of the list. served_s: how long it served, or has served until now; None: it never did.

    gate None: there was none. effective: what ran was as asked; None: it was not compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    mark: Literal["current", "previous"] | None
    status: ReleaseStatus
    reason: str | None
    profile: str
    image: str
    image_id: str
    model: str
    revision: str | None
    started_at: datetime
    ready_at: datetime | None
    served_s: float | None
    gate: str | None
    effective: bool | None
    starts: int


class UnreadableRow(BaseModel):
    """A file among the releases that is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    why: str


class ReleaseList(BaseModel):
    """The document of `releases`. current: what the control host remembers; what runs is for `status` to say."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/releases/v1"] = Field(default="dspark-ops/releases/v1", alias="schema")
    site: str
    current: str | None
    previous: str | None
    releases: tuple[ReleaseRow, ...]
    unreadable: tuple[UnreadableRow, ...]


def list_releases(site: str, kept: Kept, now: datetime) -> ReleaseList:
    """The rows of what is kept, the last started first."""
    current, previous = current_of(kept.releases), previous_of(kept.releases)
    ids = (current.id if current else None, previous.id if previous else None)
    return ReleaseList(
        site=site,
        current=ids[0],
        previous=ids[1],
        releases=tuple(_row(release, kept.releases, ids, now) for release in kept.releases),
        unreadable=tuple(UnreadableRow(path=str(item.path), why=item.why) for item in kept.unreadable),
    )


def render_list(found: ReleaseList) -> str:
    """The table for people; the mark says which one serves and to which one a rollback leads."""
    if not found.releases and not found.unreadable:
        return f"site {found.site}: no release is kept on this machine; `dspark-ops deploy` makes the first"
    head = ("", "release", "profile", "image", "model", "served since", "for", "gate", "status")
    rows = [head]
    for row in found.releases:
        since = _moment(row.ready_at) if row.ready_at else f"never ({_moment(row.started_at)})"
        status = row.status + ("" if row.effective is not False else ", not as asked")
        rows.append(
            (
                {"current": "*", "previous": "<"}.get(row.mark or "", ""),
                row.id,
                row.profile,
                row.image,
                row.model + (f"@{row.revision[:7]}" if row.revision else ""),
                since,
                duration(row.served_s) if row.served_s is not None else "-",
                row.gate or "none",
                status,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"[ ? ]  {item.path}: not a readable release: {item.why}" for item in found.unreadable]
    lines.append("* the last that served   < where `dspark-ops rollback` leads")
    return "\n".join(lines)


def show_document(release: Release) -> dict[str, Any]:
    """The JSON document of `releases show`: the record without its secrets."""
    document: dict[str, Any] = release.shown().model_dump(mode="json", by_alias=True)
    return document


def render_show(release: Release) -> str:
    """One release in full, for people."""
    start = release.start
    pinned = f" ({release.model.repo}@{release.model.revision})" if release.model.repo else " (no revision is pinned)"
    lines = [
        f"release {release.id} of site {release.site}, profile {release.profile}",
        f"  status   {start.status}" + (f": {start.reason}" if start.reason else ""),
        f"  image    {release.image.reference}  {release.image.id}",
        *(
            f"    {role:<6} runs {seen or 'an image that could not be read'}"
            for role in ROLES
            if role in release.image.per_rank and (seen := release.image.per_rank[role]) != release.image.id
        ),
        f"  model    {release.model.served_name}: {release.model.path}{pinned}",
        f"  cache    {release.cache.volume or 'none'}" + (f" at {release.cache.root}" if release.cache.root else ""),
        f"  site     sha256 {release.site_digest[:12]}, dspark-ops {release.tool_version}",
    ]
    for role in ROLES:
        host = release.hosts.get(role)
        if host is not None:
            memory = "unknown" if host.mem_total_kib is None else f"{host.mem_total_kib / (1 << 20):.1f} GiB"
            lines.append(
                f"  {role:<8} {host.host} ({host.hostname or 'unknown'}): kernel {host.kernel or 'unknown'}, "
                f"driver {host.driver or 'unknown'}, docker {host.docker or 'unknown'}, MemTotal {memory}"
            )
    lines += _gate_lines(start)
    lines += ["starts", *(f"  {_start_line(item)}" for item in release.starts)]
    for role in ROLES:
        lines.append(f"arguments of the {role}")
        lines += [f"  {word}" for word in release.argv(role)]
        lines.append(f"environment of the {role}")
        lines += [f"  {name}={value}" for name, value in sorted(release.env(role).items())] or ["  nothing"]
        lines += _effective_lines(release.effective.get(role))
    lines += _verdict_lines(release)
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds in two units at most: 42 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    whole = int(max(0.0, seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _row(release: Release, kept: tuple[Release, ...], ids: tuple[str | None, str | None], now: datetime) -> ReleaseRow:
    start = release.start
    gate = start.gate
    return ReleaseRow(
        id=release.id,
        mark="current" if release.id == ids[0] else "previous" if release.id == ids[1] else None,
        status=start.status,
        reason=start.reason,
        profile=release.profile,
        image=release.image.reference,
        image_id=release.image.id,
        model=release.model.served_name,
        revision=release.model.revision,
        started_at=start.started_at,
        ready_at=start.ready_at,
        served_s=_served_s(start, kept, now),
        gate=gate.outcome if gate else None,
        effective=None if release.differences is None else not release.differences,
        starts=len(release.starts),
    )


def _served_s(start: StartOfRelease, kept: tuple[Release, ...], now: datetime) -> float | None:
    """From ready until it was undone, another release became ready, or now."""
    if start.ready_at is None:
        return None
    later = [s.ready_at for release in kept for s in release.starts if s.ready_at and s.ready_at > start.ready_at]
    end = min([*later, *([start.ended_at] if start.ended_at else []), max(now, start.ready_at)])
    return max(0.0, (end - start.ready_at).total_seconds())


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%SZ")


def _start_line(start: StartOfRelease) -> str:
    took = f", ready after {duration((start.ready_at - start.started_at).total_seconds())}" if start.ready_at else ""
    gate = f", gate {start.gate.outcome}" if start.gate else ""
    reason = f": {start.reason.splitlines()[0]}" if start.reason else ""
    return f"{_moment(start.started_at)}  {start.status}{took}{gate}{reason}"


def _gate_lines(start: StartOfRelease) -> list[str]:
    if start.gate is None:
        return ["  gate     none"]
    return [
        f"  gate     {start.gate.outcome} after {start.gate.elapsed_s:.1f} s: {start.gate.message}",
        *(f"           | {line}" for line in start.gate.tail),
    ]


def _effective_lines(rank: EffectiveRank | None) -> list[str]:
    if rank is None:
        return ["  (its processes were not read back)"]
    return [f"  runs as {rank.argv[0]}", *(f"  process {item.pid}: {item.title}" for item in rank.processes)]


def _verdict_lines(release: Release) -> list[str]:
    if release.differences is None:
        return ["effective: not compared with what was asked"]
    if not release.differences:
        return ["effective: arguments, environment and image of both ranks are as asked"]
    return [f"effective: {len(release.differences)} differences", *(f"  {d.sentence()}" for d in release.differences)]
