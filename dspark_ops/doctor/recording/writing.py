"""Recording a pair: everything that was read, redacted, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.doctor.recording.model import (
    MANIFEST,
    NODE_FILES,
    REPORT_FILE,
    SITE_FILE,
    Manifest,
    RecordedFile,
    RecordedNode,
    RecordedSite,
)
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.evidence.documents import (
    learn_document,
    learn_reading,
    redact_document,
    redact_reading,
    redact_site,
)
from dspark_ops.evidence.redaction import Names, Redactor
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.report.models import Report
from dspark_ops.transport.base import NodeReading, Probe


@dataclass(frozen=True)
class Recorded:
    """One look at the pair, as it was: what was asked, what came back, what was known beside it, what was said of it.

    found: of a foreign pair, what was found, as a JSON document.
    """

    loaded: LoadedSite
    probes: Mapping[Role, Sequence[Probe]]
    readings: Mapping[Role, NodeReading]
    facts: PairFacts
    recorded_at: datetime
    report: Report | None = None
    active: bool = False
    found: dict[str, Any] | None = None


def names_of(loaded: LoadedSite, readings: Mapping[Role, NodeReading]) -> Names:
    """The names of hosts and users of a pair, and of who runs this, to be hidden.

    An address is no name: the same digits stand in routes and listeners, where only an address can stand.
    """
    hosts: dict[str, list[str]] = {
        role: [name for name in (loaded.site.nodes.of(role).host, readings[role].hostname) if name and _is_name(name)]
        for role in ROLES
    }
    users = [user for role in ROLES if (user := readings[role].user)]
    return Names.of(hosts, [*users, *_here()])


def _is_name(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def _here() -> list[str]:
    """The user of this machine, whose home is in the paths of site and SSH configuration."""
    try:
        return [pwd.getpwuid(os.geteuid()).pw_name]
    except KeyError:
        return []


def files_of(recorded: Recorded, redactor: Redactor) -> dict[str, bytes]:
    """The files of a recording by name, the manifest last. redactor: learns from all of it first."""
    site, profile = recorded.loaded.site, recorded.loaded.profile
    remembered = recorded.facts.model_dump(mode="json", exclude={"head", "worker"})
    said = None if recorded.report is None else recorded.report.model_dump(mode="json", by_alias=True)
    for role in ROLES:
        learn_reading(redactor, recorded.readings[role])
    for document in (site.model_dump(mode="json"), remembered, said, recorded.found):
        learn_document(redactor, document)
    shown_site = redact_site(redactor, site, profile)
    files: dict[str, bytes] = {}
    for role in ROLES:
        node = RecordedNode(
            probes=tuple(_wire(redactor, probe) for probe in recorded.probes[role]),
            reading=redact_reading(redactor, recorded.readings[role]),
        )
        files[NODE_FILES[role]] = _bytes(node.model_dump_json(indent=1))
    shown = RecordedSite(
        site=shown_site,
        profile=profile,
        path=redactor.text(str(recorded.loaded.path)),
        remembered=redact_document(redactor, remembered),
        found=redact_document(redactor, recorded.found),
    )
    files[SITE_FILE] = _bytes(shown.model_dump_json(indent=1))
    if said is not None:
        files[REPORT_FILE] = _bytes(Report.model_validate(redact_document(redactor, said)).to_json())
    manifest = Manifest(
        recorded_at=recorded.recorded_at,
        site=site.name,
        active=recorded.active,
        foreign=recorded.found is not None,
        redacted=redactor.taken_out(),
        files={
            name: RecordedFile(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in files.items()
        },
    )
    return {**files, MANIFEST: _bytes(manifest.model_dump_json(indent=1, by_alias=True))}


def refuse_occupied(directory: Path) -> None:
    """Stop before anything is contacted when the recording could not be written there.

    Raises:
        ConfigError: the directory holds something, or is none.
    """
    try:
        if not directory.exists() and not directory.is_symlink():
            return
        if not directory.is_dir():
            raise ConfigError(f"{directory}: is no directory", hint="name a new or an empty one")
        if any(directory.iterdir()):
            raise ConfigError(
                f"{directory}: is not empty; a recording is not mixed with other files", hint="name a new one"
            )
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be looked into: {error.strerror or error}") from error


def write(recorded: Recorded, directory: Path, *, redactor: Redactor | None = None) -> Manifest:
    """Write the recording: the directory is there whole, or not at all. Files can be read by their owner alone.

    Raises:
        ConfigError: the directory holds something.
        NoVerdictError: it cannot be written.
    """
    refuse_occupied(directory)
    files = files_of(recorded, redactor or Redactor())
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
        try:
            for name, content in files.items():
                with (fresh / name).open("wb") as out:
                    os.fchmod(out.fileno(), 0o600)
                    out.write(content)
                    out.flush()
                    os.fsync(out.fileno())
            fresh.replace(directory)  # over an empty directory too; one that was filled meanwhile stays
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    except OSError as error:
        raise NoVerdictError(
            f"the recording cannot be written to {directory}: {error.strerror or error}", hint="name another directory"
        ) from error
    return Manifest.model_validate_json(files[MANIFEST])


def _wire(redactor: Redactor, probe: Probe) -> dict[str, Any]:
    document = probe.wire()
    shown: dict[str, Any] = redact_document(redactor, {k: v for k, v in document.items() if k not in ("id", "kind")})
    return {"kind": document["kind"], "id": document["id"], **shown}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace") + b"\n"
