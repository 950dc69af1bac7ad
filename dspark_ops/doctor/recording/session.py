"""The doctor's other ways to a pair: live and kept on disk, from the disk alone, or found without a site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import Role
from dspark_ops.doctor import run
from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.engine import Retell, run_checks
from dspark_ops.doctor.foreign.facts import facts_from
from dspark_ops.doctor.foreign.look import ForeignRequest, Look, look
from dspark_ops.doctor.foreign.model import FoundPair
from dspark_ops.doctor.foreign.retelling import finish, retell_with
from dspark_ops.doctor.recording.model import Manifest
from dspark_ops.doctor.recording.reading import Recording, load
from dspark_ops.doctor.recording.writing import Recorded, names_of, refuse_occupied, write
from dspark_ops.doctor.run import Request
from dspark_ops.doctor.selection import expand, select
from dspark_ops.errors import ConfigError
from dspark_ops.evidence.redaction import Redactor
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.report.models import Report, now
from dspark_ops.transport.base import NodeReading, Probe


def recorded(request: Request) -> Recorded:
    """Judge a pair live, and keep what was read.

    Raises:
        ConfigError: the site or an id is wrong; nothing was contacted.
    """
    kept: list[tuple[LoadedSite, PairFacts]] = []
    asked: dict[Role, Sequence[Probe]] = {}
    answered: dict[Role, NodeReading] = {}

    def seen(probes: Mapping[Role, Sequence[Probe]], readings: Mapping[Role, NodeReading]) -> None:
        asked.update(probes)
        answered.update(readings)

    def source(loaded: LoadedSite, active: bool) -> PairFacts:
        facts = run.read_live(loaded, active, seen=seen)
        kept.append((loaded, facts))
        return facts

    began = datetime.now(UTC)
    report = run.diagnose(request, source=source)
    loaded, facts = kept[0]
    return Recorded(loaded, asked, answered, facts, began, report, request.active)


def record(request: Request, directory: Path, *, hide_names: bool = False) -> tuple[Report, Manifest]:
    """Judge a pair live and write what was read to a directory.

    Raises:
        ConfigError: the request is wrong, or the directory holds something; nothing was contacted.
        NoVerdictError: it cannot be written.
    """
    refuse_occupied(directory)
    found = recorded(request)
    return _report_of(found), write(found, directory, redactor=redactor_for(found, hide_names=hide_names))


def simulate(request: Request, directory: Path) -> Report:
    """The same judgement from a recording; no node is contacted, and the report says that it is a replay.

    Raises:
        ConfigError: an id is wrong, or there is no whole recording of this version.
    """
    recording = load(directory)
    if request.active and not recording.manifest.active:
        raise ConfigError(f"{directory}: was recorded without --active, so there is no traffic to judge")
    report = replay(recording, request)
    when = recording.manifest.recorded_at.strftime("%Y-%m-%d %H:%M UTC")
    told = f"replay of {directory}, recorded {when} by dspark-ops {recording.manifest.tool_version}; no node was asked"
    return report.model_copy(update={"verb": "doctor simulate", "message": f"{told}: {report.message}"})


def replay(recording: Recording, request: Request) -> Report:
    """Judge a recording as it would have been judged then."""
    if recording.found is None:
        return _judge(recording.facts, recording.loaded, request, active=recording.manifest.active)
    pair = FoundPair.model_validate(recording.found)
    facts = facts_from(pair, recording.loaded, recording.readings)
    retell = retell_with(pair, recording.loaded.site, recording.readings["head"])
    report = _judge(facts, recording.loaded, request, active=recording.manifest.active, retell=retell)
    return finish(report, pair, recording.loaded)


def look_at(request: ForeignRequest, wishes: Request) -> Recorded:
    """Find and judge a pair without a site.

    Raises:
        ConfigError: the request or an id is wrong; nothing was contacted.
    """
    request.check()
    _check(wishes)
    began = datetime.now(UTC)
    return judged(look(request, active=wishes.active), wishes, began)


def judged(seen: Look, wishes: Request, began: datetime) -> Recorded:
    """The judgement of a look at a foreign pair. Pure."""
    retell = retell_with(seen.pair, seen.loaded.site, seen.readings["head"])
    report = _judge(seen.facts, seen.loaded, wishes, active=wishes.active, retell=retell)
    report = finish(report, seen.pair, seen.loaded)
    found = seen.pair.model_dump(mode="json")
    return Recorded(seen.loaded, seen.probes, seen.readings, seen.facts, began, report, wishes.active, found)


def foreign(
    request: ForeignRequest, wishes: Request, directory: Path | None = None, *, hide_names: bool = False
) -> tuple[Report, Manifest | None]:
    """Find and judge a pair without a site, and keep what was read where a directory is named.

    Raises:
        ConfigError: the request is wrong, or the directory holds something; nothing was contacted.
        NoVerdictError: the recording cannot be written.
    """
    if directory is not None:
        refuse_occupied(directory)
    found = look_at(request, wishes)
    if directory is None:
        return _report_of(found), None
    return _report_of(found), write(found, directory, redactor=redactor_for(found, hide_names=hide_names))


def redactor_for(found: Recorded, *, hide_names: bool) -> Redactor:
    """A redactor of its own for one recording; hide_names: host and user names too."""
    return Redactor(names=names_of(found.loaded, found.readings) if hide_names else None)


def _report_of(found: Recorded) -> Report:
    assert found.report is not None  # noqa: S101 - both ways to a recording judge first
    return found.report


def _check(request: Request) -> None:
    catalogue = load_catalogue()
    select(catalogue, request.only, request.skip, active=request.active)
    expand(catalogue, request.ignore)


def _judge(
    facts: PairFacts, loaded: LoadedSite, request: Request, *, active: bool, retell: Retell | None = None
) -> Report:
    _check(request)
    judge = partial(run_checks, facts, loaded, only=request.only, skip=request.skip, ignore=request.ignore)
    return judge(active=active, strict=request.strict, started_at=now(), retell=retell)
