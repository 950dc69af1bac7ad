"""One run of the doctor: the request is checked, the pair is read once, and what was read is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.control import read_control
from dspark_ops.doctor.engine import run_checks
from dspark_ops.doctor.selection import expand, select
from dspark_ops.fabric import counter_record
from dspark_ops.fabric.gid_record import recall
from dspark_ops.facts import snapshot
from dspark_ops.facts.snapshot import PairFacts, Seen
from dspark_ops.report.models import Report, now

Source = Callable[[LoadedSite, bool], PairFacts]


@dataclass(frozen=True)
class Request:
    """What one run is asked to do. only, skip, ignore: ids or globs; overrides: KEY=VALUE as on the command line."""

    site: Path
    overrides: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    active: bool = False
    strict: bool = False


def read_live(loaded: LoadedSite, active: bool, *, seen: Seen | None = None) -> PairFacts:
    """Both nodes over SSH, one round trip each, and what we remember of their GIDs. seen: gets the raw readings."""
    profile = loaded.profile if active else None
    if seen is None:
        facts = snapshot.gather_pair(loaded.site, active_profile=profile)
    else:
        facts = snapshot.gather_pair(loaded.site, active_profile=profile, seen=seen)
    name = loaded.site.name
    earlier = {"gid_record": recall(name), "counter_record": counter_record.recall(name)}
    counter_record.remember(name, facts)
    return facts.model_copy(update={**earlier, "control": read_control(loaded)})


def diagnose(request: Request, *, source: Source = read_live) -> Report:
    """Judge the pair that `source` reads. Everything that can be wrong with the request is told before it is called.

    Raises:
        ConfigError: the site or an id is wrong; nothing was contacted.
    """
    loaded = load_site(request.site, overrides=request.overrides)
    catalogue = load_catalogue()
    select(catalogue, request.only, request.skip, active=request.active)
    expand(catalogue, request.ignore)
    began = now()
    return run_checks(
        source(loaded, request.active),
        loaded,
        only=request.only,
        skip=request.skip,
        ignore=request.ignore,
        active=request.active,
        strict=request.strict,
        started_at=began,
    )
