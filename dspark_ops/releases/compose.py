"""One start of a release as a record, from what was asked, what was read back, and what the verb measured. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.facts.rank import LABEL
from dspark_ops.releases.effective import ReadBack, compare
from dspark_ops.releases.model import (
    CacheOfRelease,
    GateResult,
    ImageOfRelease,
    ModelOfRelease,
    Release,
    ReleaseStatus,
    StartOfRelease,
    site_digest,
    without_epoch,
)
from dspark_ops.report.models import Phase
from dspark_ops.weights.spec import mount_of


def compose(
    loaded: LoadedSite,
    documents: Mapping[Role, Mapping[str, Any]],
    seen: ReadBack | None,
    *,
    status: ReleaseStatus,
    started_at: datetime,
    ready_at: datetime | None = None,
    ended_at: datetime | None = None,
    phases: Iterable[Phase] = (),
    gate: GateResult | None = None,
    reason: str | None = None,
) -> Release:
    """The record of one start. documents: with the epoch of this start. seen None: nothing was read back."""
    site = loaded.site
    labels = documents["head"]["labels"]
    return Release(
        id=str(labels[f"{LABEL}release"]),
        site=site.name,
        profile=loaded.profile.name,
        image=ImageOfRelease(
            id=site.image.id, reference=site.image.reference, per_rank=dict(seen.images) if seen else {}
        ),
        model=_model(site),
        documents={role: without_epoch(documents[role]) for role in ROLES},
        effective=dict(seen.effective) if seen else {},
        differences=compare(documents, seen.effective) if seen else None,
        cache=_cache(documents["head"]),
        site_digest=site_digest(site),
        hosts=dict(seen.hosts) if seen else {},
        start=StartOfRelease(
            epoch=str(labels[f"{LABEL}epoch"]),
            status=status,
            reason=reason,
            started_at=started_at,
            ready_at=ready_at,
            ended_at=ended_at,
            phases_s={phase.name: phase.elapsed_s for phase in phases if phase.status == "done"},
            gate=gate,
        ),
    )


def again(
    release: Release,
    epoch: str,
    seen: ReadBack | None,
    *,
    status: ReleaseStatus,
    started_at: datetime,
    ready_at: datetime | None = None,
    ended_at: datetime | None = None,
    phases: Iterable[Phase] = (),
    gate: GateResult | None = None,
    reason: str | None = None,
) -> Release:
    """The record of another start of a kept release: what it is stays, what was seen and measured is this start's.

    seen None: nothing was read back at this start, so nothing is said of it.
    """
    start = StartOfRelease(
        epoch=epoch,
        status=status,
        reason=reason,
        started_at=started_at,
        ready_at=ready_at,
        ended_at=ended_at,
        phases_s={phase.name: phase.elapsed_s for phase in phases if phase.status == "done"},
        gate=gate,
    )
    return release.model_copy(
        update={
            "start": start,
            "earlier": release.starts,
            # What an earlier start was seen with says nothing of this one.
            "image": release.image.model_copy(update={"per_rank": dict(seen.images) if seen else {}}),
            "effective": dict(seen.effective) if seen else {},
            "differences": compare(release.documents, seen.effective) if seen else None,
            "hosts": dict(seen.hosts) if seen else {},
        }
    )


def _model(site: Site) -> ModelOfRelease:
    hub = site.model.hub
    return ModelOfRelease(
        path=str(mount_of(site)[1]),
        served_name=site.model.served_name,
        repo=hub.repo if hub else None,
        revision=hub.revision if hub else None,
    )


def _cache(document: Mapping[str, Any]) -> CacheOfRelease:
    volume = next(iter(document.get("volumes") or ()), None)
    return CacheOfRelease(volume=volume["name"], root=volume["target"]) if volume else CacheOfRelease()
