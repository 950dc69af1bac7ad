"""Reading a recording back: whole and of this version, or one error that says what is wrong with it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.doctor.foreign.model import FoundPair
from dspark_ops.doctor.recording.model import (
    MANIFEST,
    NODE_FILES,
    REPORT_FILE,
    SCHEMA_ID,
    SITE_FILE,
    Manifest,
    RecordedNode,
    RecordedSite,
)
from dspark_ops.errors import ConfigError
from dspark_ops.facts.snapshot import PairFacts, pair_from
from dspark_ops.report.models import Report
from dspark_ops.transport.base import NodeReading

_LIMIT_BYTES = 256 << 20
_HINT = "record the pair anew with `dspark-ops doctor --record DIR`"
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Recording:
    """A recorded pair. report: what the doctor said then; None where it was recorded without one."""

    directory: Path
    manifest: Manifest
    loaded: LoadedSite
    readings: dict[Role, NodeReading]
    facts: PairFacts
    found: dict[str, Any] | None = None
    report: Report | None = None


def load(directory: Path) -> Recording:
    """The recording in a directory.

    Raises:
        ConfigError: there is none, it is of another version, or a file of it is missing, changed or no such document.
    """
    manifest = _manifest(directory)
    wanted = {*NODE_FILES.values(), SITE_FILE}
    missing = sorted(wanted - manifest.files.keys())
    if missing:
        raise ConfigError(f"{directory / MANIFEST}: names no {', '.join(missing)}", hint=_HINT)
    nodes = {role: _model(directory, manifest, NODE_FILES[role], RecordedNode) for role in ROLES}
    recorded = _model(directory, manifest, SITE_FILE, RecordedSite)
    report = _model(directory, manifest, REPORT_FILE, Report) if REPORT_FILE in manifest.files else None
    readings = {role: nodes[role].reading for role in ROLES}
    swapped = [role for role in ROLES if readings[role].node != role]
    if swapped:
        raise ConfigError(f"{directory / NODE_FILES[swapped[0]]}: is the reading of {readings[swapped[0]].node}")
    read = pair_from(recorded.site, readings)
    try:
        facts = PairFacts.model_validate({**dict(read), **recorded.remembered})
        if recorded.found is not None:
            FoundPair.model_validate(recorded.found)
    except ValidationError as error:
        raise ConfigError(f"{directory / SITE_FILE}: {_first(error)}", hint=_HINT) from None
    return Recording(
        directory=directory,
        manifest=manifest,
        loaded=LoadedSite(recorded.site, recorded.profile, Path(recorded.path), {}),
        readings=readings,
        facts=facts,
        found=recorded.found,
        report=report,
    )


def _manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST
    text = _read(path)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str):
        raise ConfigError(f"{path}: is no manifest of a recording", hint=_HINT)
    if schema != SCHEMA_ID:
        raise ConfigError(
            f"{path}: is {schema[:80]}, and this version reads {SCHEMA_ID}",
            hint="use the dspark-ops that recorded it; its version is in tool_version",
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first(error)}", hint=_HINT) from None


def _model(directory: Path, manifest: Manifest, name: str, model: type[_Model]) -> _Model:
    path = directory / name
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != manifest.files[name].sha256:
        raise ConfigError(
            f"{path}: is not as it was recorded ({len(content)} bytes, {manifest.files[name].bytes} were written)",
            hint="copy the recording again, whole, or record anew",
        )
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first(error)}", hint=_HINT) from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            content = handle.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint="name a directory that `dspark-ops doctor --record DIR` made",
        ) from None
    if len(content) > _LIMIT_BYTES:
        raise ConfigError(f"{path}: is larger than {_LIMIT_BYTES >> 20} MiB, which no recording is")
    return content


def _first(error: ValidationError) -> str:
    entry = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in entry["loc"]) or "the document"
    return f"{place[:200]}: {entry['msg']}"
