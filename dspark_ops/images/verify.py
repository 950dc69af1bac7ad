"""`image verify`: the image looked into where it will run, on both nodes or on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, ImageSite, Profile, Role
from dspark_ops.deploy.spec import render_argv
from dspark_ops.errors import NoVerdictError
from dspark_ops.images.docker_cli import DockerCli
from dspark_ops.images.engine_judgement import judge_engine, parse_engine_check
from dspark_ops.images.inspection import ImageFacts, look_command, parse_files_check, parse_image_inspect
from dspark_ops.images.judgement import Seen, Wanted, judge_image
from dspark_ops.images.stages import load_stages
from dspark_ops.paths import data_dir
from dspark_ops.report.models import Finding, NodeReport, Report, judge
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.base import Command, NodeReading, ProbeResult
from dspark_ops.transport.ssh import SshRunner, open_runner, read_nodes

#: Hashing some twenty gigabytes from a cold disk; importing vLLM on a slow machine.
_FILES_S, _ENGINE_S = 900.0, 300.0
_INSPECT_S = 30.0


def wanted_of(profile: Profile, image: ImageSite | None) -> Wanted:
    """What an image is held against: the profile and this installation's stages."""
    stages = load_stages(profile.image.lane, directory=data_dir("images") / "stages")
    return Wanted(profile, stages, image)


def verify_site(loaded: LoadedSite, progress: Progress, *, quick: bool = False) -> Report:
    """Look into the site's image on both nodes: which release, which stages, every file, the engine's own parser.

    quick: large compiled libraries are not hashed.
    """
    recorder = Recorder("image verify", loaded.site.name, progress)
    runners = {role: open_runner(loaded.site, role) for role in ROLES}
    try:
        with recorder.phase("look into the image") as note:
            nodes, findings = look_at_nodes(loaded, runners, quick=quick, engine=True)
            recorder.nodes = nodes
            recorder.findings = list(findings)
            note.detail = f"{loaded.site.image.reference} on both nodes"
    finally:
        for runner in runners.values():
            runner.close()
    return _closed(recorder)


def look_at_nodes(
    loaded: LoadedSite, runners: Mapping[Role, SshRunner], *, quick: bool, engine: bool
) -> tuple[tuple[NodeReport, ...], tuple[Finding, ...]]:
    """The site's image on every node of `runners`, one round trip each."""
    site, profile = loaded.site, loaded.profile
    wanted = wanted_of(profile, site.image)
    probes = {role: _probes(loaded, role, quick=quick, engine=engine) for role in runners}
    readings = read_nodes(runners, probes, timeout_s=_FILES_S + _ENGINE_S)
    nodes = tuple(
        NodeReport(
            role=role,
            host=site.nodes.of(role).host,
            reachable=reading.reachable,
            error=reading.error,
            round_trip_s=round(reading.elapsed_s, 3),
        )
        for role, reading in readings.items()
    )
    found: list[Finding] = []
    for role, reading in readings.items():
        if reading.reachable:
            found += _judged(wanted, role, reading, engine=engine)
    return nodes, tuple(found)


def verify_local(
    profile: Profile, reference: str, docker: DockerCli, progress: Progress, *, quick: bool = False, engine: bool = True
) -> Report:
    """Look into one image of the local Engine, as a build or a CI does. engine False: its files and stages only."""
    recorder = Recorder("image verify", reference, progress)
    docker.require_engine()
    with recorder.phase("look into the image") as note:
        note.detail = reference
        found = docker.image(reference)
        if found is None:
            raise NoVerdictError(
                f"the Engine has no image {reference}", hint=f"`dspark-ops image build {profile.name}`"
            )
        image = parse_image_inspect(json.dumps([found]))
        troubles: dict[str, str] = {}
        files = None
        if image.label("lock") is not None:
            words = look_command(image.id, "files_check.py", *(("--quick",) if quick else ()))
            done = docker.attempt(*words, timeout_s=_FILES_S)
            if done.returncode == 0:
                files = parse_files_check(done.stdout.decode("utf-8", "replace"))
            else:
                troubles["image.files"] = done.stderr.decode("utf-8", "replace").strip()[-300:]
        seen = Seen("pair", image, None, files, troubles)
        recorder.findings = judge_image(wanted_of(profile, None), seen)
        if engine and image.label("contents") == "full":
            words = look_command(image.id, "engine_check.py", _question(None))
            done = docker.attempt(*words, timeout_s=_ENGINE_S)
            told = done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
            trouble = done.stderr.decode("utf-8", "replace").strip()[-300:]
            check = parse_engine_check(told) if told is not None else None
            recorder.findings += judge_engine(profile, wanted_of(profile, None).stages, "pair", check, trouble)
    return _closed(recorder)


def _closed(recorder: Recorder) -> Report:
    verdict, code = judge(recorder.findings, recorder.nodes)
    bad = [finding for finding in recorder.findings if finding.status == "fail"]
    if bad:
        message = "; ".join(f"{finding.node}: {finding.observed} [{finding.id}]" for finding in bad)
    elif code:
        message = "no verdict: not everything could be looked at"
    else:
        message = "the image is what it should be"
    return recorder.report(verdict, code, message)


def _probes(loaded: LoadedSite, role: Role, *, quick: bool, engine: bool) -> Sequence[Command]:
    image = loaded.site.image
    files = look_command(image.id, "files_check.py", *(("--quick",) if quick else ()))
    inspect = ("docker", "image", "inspect")
    probes = [
        Command("image.by_id", (*inspect, image.id), _INSPECT_S, root=True),
        Command("image.by_name", (*inspect, image.reference), _INSPECT_S, root=True),
        Command("image.files", ("docker", *files), _FILES_S, root=True),
    ]
    if engine:
        argv = render_argv(loaded.site, loaded.profile, role)
        words = look_command(image.id, "engine_check.py", _question(argv))
        probes.append(Command("image.engine", ("docker", *words), _ENGINE_S, root=True))
    return probes


def _question(argv: Sequence[str] | None) -> str:
    return json.dumps({"argv": None if argv is None else list(argv)}, separators=(",", ":"))


def _judged(wanted: Wanted, role: Role, reading: NodeReading, *, engine: bool) -> list[Finding]:
    troubles: dict[str, str] = {}
    by_id, by_name = reading.get("image.by_id"), reading.get("image.by_name")
    image = _inspected(by_id, "image.present", troubles)
    named = _inspected(by_name, "image.present", troubles)
    files = None
    if image is not None:
        result = reading.get("image.files")
        if result.ok:
            files = parse_files_check(result.stdout or "")
        else:
            troubles["image.files"] = _why(result)
    found = judge_image(wanted, Seen(role, image, named, files, troubles))
    base_is_bad = any(finding.id == "image.base" and finding.status == "fail" for finding in found)
    if engine and image is not None and not base_is_bad:
        result = reading.get("image.engine")
        check = parse_engine_check(result.stdout or "") if result.ok else None
        found += judge_engine(wanted.profile, wanted.stages, role, check, _why(result))
    return found


def _inspected(result: ProbeResult, concerns: str, troubles: dict[str, str]) -> ImageFacts | None:
    if result.ok:
        return parse_image_inspect(result.stdout or "")
    if "no such image" not in (result.stderr or "").lower():
        troubles[concerns] = _why(result)
    return None


def _why(result: ProbeResult) -> str:
    lines = [line for line in (result.stderr or "").splitlines() if line.strip()]
    return result.error or (lines[-1][-300:] if lines else f"ended with {result.rc}")
