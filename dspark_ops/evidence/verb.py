"""`dspark-ops evidence`: judge the pair, read the ends of its logs, take out what is secret, and pack it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.doctor.foreign.look import ForeignRequest, runners_of
from dspark_ops.doctor.recording import session
from dspark_ops.doctor.recording.writing import Recorded, files_of, names_of
from dspark_ops.doctor.run import Request
from dspark_ops.evidence import bundle, control, logs
from dspark_ops.evidence.documents import redact_document
from dspark_ops.evidence.redaction import Redactor
from dspark_ops.evidence.supervisor_kept import read_kept
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.rank import RANK_CONTAINER, rank_known
from dspark_ops.report.models import Report
from dspark_ops.report.text import render
from dspark_ops.transport.ssh import SshRunner, open_runner

Progress = Callable[[str], None]

README = """Evidence of a dspark-ops pair.

Read it before you pass it on. Secrets, serial numbers, hardware addresses and public addresses were replaced; what a
program wrote into a log in a form that nobody foresaw may still be here. manifest.json lists the files with their
sha256, what is missing and why, and what was replaced by kind and number.

doctor.txt, doctor.json   what the doctor said
recording/                what both nodes answered; judge it again with: dspark-ops doctor --simulate recording
incident.txt              the first cause of what went wrong, where it could be told
head/, worker/            the ends of the logs: the rank's, the kernel's, the system's warnings
supervisor/               where there is one: its state, its journal, the evidence of its last incident
control/                  site file, last reports, unfinished run, releases
"""


@dataclass(frozen=True)
class EvidenceRequest:
    """What is packed, and where to. foreign: two hosts instead of the site. output None: named by site and time."""

    wishes: Request
    foreign: ForeignRequest | None = None
    output: Path | None = None
    hide_names: bool = False


@dataclass(frozen=True)
class Packed:
    """The archive as it was written."""

    path: Path
    size_bytes: int
    manifest: bundle.Manifest
    exit_code: ExitCode

    def document(self) -> dict[str, Any]:
        """As JSON."""
        document = self.manifest.model_dump(mode="json", by_alias=True)
        return {**document, "path": str(self.path), "bytes": self.size_bytes, "exit_code": int(self.exit_code)}


def evidence(request: EvidenceRequest, *, progress: Progress = lambda _: None) -> Packed:
    """Make the archive. A node that is down is said to be, and the rest is packed all the same.

    Raises:
        ConfigError: the request is wrong or the file exists; nothing was contacted.
        NoVerdictError: the archive cannot be written.
    """
    if request.output is not None:
        bundle.refuse_existing(request.output)
    progress("reading and judging both nodes")
    found = _look(request)
    progress("reading the ends of the logs")
    ends, kept = read_logs(request, found)
    progress("taking out what is secret")
    files, manifest = collect(request, found, ends, kept)
    stamp = found.recorded_at.strftime("%Y%m%dT%H%M%SZ")
    folder = f"dspark-evidence-{found.loaded.site.name}-{stamp}"
    path = request.output or Path(f"{folder}.tar.gz")
    content = bundle.pack(files, manifest, folder)
    bundle.write(path, content)
    reached = any(found.readings[role].reachable for role in ROLES)
    return Packed(path, len(content), bundle.read_manifest(content), ExitCode.OK if reached else ExitCode.NO_VERDICT)


def read_logs(
    request: EvidenceRequest, found: Recorded
) -> tuple[dict[tuple[Role, str], logs.LogEnd], tuple[dict[str, str], list[str]]]:
    """Of the nodes that were reached: the ends of the logs; what the supervisor keeps, and what of it is missing."""
    runners = _runners(request, found)
    try:
        reachable = {role: runner for role, runner in runners.items() if found.readings[role].reachable}
        kept: tuple[dict[str, str], list[str]] = read_kept(reachable["head"]) if "head" in reachable else ({}, [])
        return logs.read_ends(reachable, _containers(found)), kept
    finally:
        for runner in runners.values():
            runner.close()


def collect(
    request: EvidenceRequest,
    found: Recorded,
    ends: Mapping[tuple[Role, str], logs.LogEnd],
    kept_by_supervisor: tuple[Mapping[str, str], Sequence[str]],
) -> tuple[dict[str, bytes], bundle.Manifest]:
    """The files of the archive without secrets, and its manifest. Pure, but for what the control host has kept."""
    site = found.loaded.site
    redactor = Redactor(names=names_of(found.loaded, found.readings) if request.hide_names else None)
    missing = [
        f"{role}: not reached: {found.readings[role].error}" for role in ROLES if not found.readings[role].reachable
    ]
    missing += [*_without_log(found), *logs.problems_of(ends), *kept_by_supervisor[1]]
    texts: dict[str, str] = {f"{role}/{name}": end.text for (role, name), end in ends.items() if end.text}
    texts |= kept_by_supervisor[0]
    if request.foreign is None:
        text, problem = control.site_text(found.loaded.path)
        texts |= {"control/site.yml": text} if text is not None else {}
        missing += [problem] if problem else []
    for name, text, problem in control.kept_of(site.name):
        texts |= {f"control/{name}": text} if text is not None else {}
        missing += [problem] if problem else []
    incident, problem = _incident(found)
    texts |= incident
    missing += [problem] if problem else []
    for text in texts.values():
        redactor.learn(text)
    recording = files_of(found, redactor)
    report = _report(recording["report.json"])
    files = {f"recording/{name}": content for name, content in recording.items()}
    files |= {name: _redacted(redactor, name, text) for name, text in texts.items()}
    files["doctor.json"] = recording["report.json"]
    files["doctor.txt"] = (render(report, verbose=True) + "\n").encode("utf-8", "replace")
    files["README.txt"] = README.encode()
    kept, cut = bundle.bounded(files)
    manifest = bundle.Manifest(
        made_at=found.recorded_at,
        site=site.name,
        verdict=report.verdict,
        versions=control.versions(),
        missing=tuple(redactor.text(line) for line in [*missing, *cut]),
        redacted=redactor.taken_out(),
        names_hidden=request.hide_names,
    )
    return kept, manifest


def _redacted(redactor: Redactor, name: str, text: str) -> bytes:
    """A text without secrets; a JSON document stays one."""
    if name.endswith(".json"):
        try:
            text = json.dumps(redact_document(redactor, json.loads(text)), indent=1, ensure_ascii=False) + "\n"
        except (ValueError, RecursionError):
            text = redactor.text(text)
    else:
        text = redactor.text(text)
    return text.encode("utf-8", "replace")


def render_packed(packed: Packed) -> str:
    """What is in it, for people."""
    manifest = packed.manifest
    width = max(len(item.name) for item in manifest.files)
    lines = [f"  {item.name:<{width}}  {item.bytes:>9} bytes" for item in manifest.files]
    lines += [f"missing: {line}" for line in manifest.missing]
    hidden = ", ".join(f"{item.values} {item.kind} ({item.places} places)" for item in manifest.redacted)
    lines.append(f"replaced or hidden: {hidden or 'nothing'}")
    if not manifest.names_hidden:
        lines.append("host and user names are in it; --hide-names replaces them")
    lines.append(f"[ok] {packed.path}: {packed.size_bytes} bytes, the doctor says: {manifest.verdict}")
    lines.append("Read it before you mail it: no list of secrets is complete.")
    return "\n".join(lines)


def _look(request: EvidenceRequest) -> Recorded:
    if request.foreign is not None:
        return session.look_at(request.foreign, request.wishes)
    return session.recorded(request.wishes)


def _runners(request: EvidenceRequest, found: Recorded) -> dict[Role, SshRunner]:
    site = found.loaded.site
    if request.foreign is None:
        return {role: open_runner(site, role) for role in ROLES}
    placed = dataclasses.replace(request.foreign, head=site.nodes.head.host, worker=site.nodes.worker.host)
    return runners_of(placed)


def _containers(found: Recorded) -> dict[Role, str | None]:
    """The container whose log is the rank's, on each node."""
    if found.found is not None:
        return {role: ((found.found.get(role) or {}).get("server") or {}).get("container") for role in ROLES}
    there = {role: found.readings[role].get("rank.inspect").ok for role in ROLES}
    known = {role: rank_known(found.readings[role]) for role in ROLES}
    return {role: RANK_CONTAINER if there[role] or not known[role] else None for role in ROLES}


def _without_log(found: Recorded) -> list[str]:
    """The ranks whose log cannot be read, since what serves is in no container of Docker."""
    servers = {role: ((found.found or {}).get(role) or {}).get("server") for role in ROLES}
    return [
        f"{role} rank.log: process {server['pid']} runs outside of a container of Docker; where it logs is not known"
        for role, server in servers.items()
        if server is not None and server["container"] is None
    ]


def _incident(found: Recorded) -> tuple[dict[str, str], str | None]:
    """The first cause, from what was read; nothing where this installation has no such part."""
    try:
        from dspark_ops.doctor.incident.gather import case_of
        from dspark_ops.doctor.incident.report import render as told
        from dspark_ops.doctor.incident.report import report_on
    except ImportError:
        return {}, None
    try:
        report = report_on(case_of(found.readings), _site(found), taken_at=found.recorded_at, since=None)
        return {"incident.txt": told(report, verbose=True) + "\n"}, None
    except Exception as error:  # the one broad catch here: evidence of a bug must not be lost to another one
        return {}, f"incident: {type(error).__name__}: {error}"


def _site(found: Recorded) -> LoadedSite | None:
    return found.loaded if found.found is None else None


def _report(content: bytes) -> Report:
    return Report.model_validate(json.loads(content))
