"""`gateway install`, `gateway remove`, and the list of clients on the head: one playbook, planned before it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import ConfigError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.gateway.certificate import check_pair
from dspark_ops.gateway.program import zipapp
from dspark_ops.gateway.render import CONFIGURATION, UNITS, render_all
from dspark_ops.gateway.settings import GatewaySettings, Places, places_of, settings_of
from dspark_ops.paths import cache_dir, data_dir, state_dir
from dspark_ops.report.models import Change, Report, Verdict
from dspark_ops.report.recorder import Progress, Recorder

PLAYBOOK = "gateway.yml"
CLIENT_MAPS = ("clients.map", "local-only.map")
#: The first installation carries about 170 MB of wheels to the head and builds an environment of 0.7 GB.
_TIMEOUT_S = 3600.0
Consent = Callable[[str], None]


def install(
    loaded: LoadedSite, *, consent: Consent, progress: Progress, check: bool = False, diff: bool = False
) -> Report:
    """Bring the gateway to the head, or up to date; a second run changes nothing.

    Raises:
        ConfigError: the section does not hold together, a file that it names is not there, or a key of another
            certificate.
        RefusedError: declined.
    """
    settings = settings_of(loaded)
    for name, path in named_files(settings).items():
        if not path.is_file():
            raise ConfigError(f"gateway.{name}: {path} is no file", hint="put it there, or change the site file")
    if settings.site.certificate is not None and settings.site.certificate_key is not None:
        check_pair(settings.site.certificate, settings.site.certificate_key)
    variables = install_variables(settings, places_of(loaded))
    return _change("gateway install", loaded, settings, variables, consent, progress, check=check, diff=diff)


def remove(
    loaded: LoadedSite, *, consent: Consent, progress: Progress, check: bool = False, diff: bool = False
) -> Report:
    """Take the gateway away. The ledger of what the cloud has cost, the users and the packages stay.

    Raises:
        RefusedError: declined.
    """
    variables: dict[str, object] = {"gateway_state": "absent"}
    return _change("gateway remove", loaded, None, variables, consent, progress, check=check, diff=diff)


def bring_clients(loaded: LoadedSite, *, progress: Progress) -> Report:
    """Put the list of clients on the head, where there is a gateway; running requests go on."""
    settings = settings_of(loaded)
    rendered = render_all(settings, places_of(loaded))
    recorder = Recorder("gateway key", loaded.site.name, progress)
    variables = {"gateway_clients": {name: rendered[name] for name in CLIENT_MAPS}}
    with site_lock(loaded.site.name, on_wait=progress), recorder.phase("apply") as note:
        result = run_playbook(PLAYBOOK, loaded, variables=variables, tags=("clients",), timeout_s=120)
        note.detail = f"{len(result.changes)} changes" if result.ok else "failed"
    recorder.changes.extend(result.changes)
    if not result.ok:
        again = "the list on this machine is changed; `dspark-ops gateway install` brings it to the head"
        return recorder.report("failed", ExitCode.NO_VERDICT, why_failed(result), next_step=again)
    verdict: Verdict = "changed" if result.changes else "unchanged"
    words = f"the gateway knows {len(settings.clients)} clients"
    if not result.changes:
        words = "nothing to change on the head: its gateway has this list already, or there is none yet"
    return recorder.report(verdict, ExitCode.OK, words)


def named_files(settings: GatewaySettings) -> dict[str, Path]:
    """The files on the control host that the section names."""
    site = settings.site
    cloud = site.cloud
    named = {
        "certificate": site.certificate,
        "certificate_key": site.certificate_key,
        "cloud.key_file": cloud.key_file if cloud is not None else None,
    }
    return {name: path for name, path in named.items() if path is not None}


def install_variables(settings: GatewaySettings, places: Places) -> dict[str, object]:
    """What the role is told. Secrets are in none of it, only the files that hold them. The program is written out."""
    rendered = render_all(settings, places)
    site = settings.site
    cloud = site.cloud
    return {
        "gateway_state": "present",
        "gateway_configuration": {name: rendered[name] for name in CONFIGURATION if name not in CLIENT_MAPS},
        "gateway_clients": {name: rendered[name] for name in CLIENT_MAPS},
        "gateway_units": {name: rendered[name] for name in UNITS},
        "gateway_router_port": site.router_port,
        "gateway_edge_port": site.port,
        "gateway_edge_address": str(site.address),
        "gateway_program": str(_program()),
        "gateway_lock": str(data_dir("templates") / "gateway" / "requirements.lock"),
        "gateway_cloud_key_file": str(cloud.key_file) if cloud is not None else "",
        "gateway_certificate": str(site.certificate or ""),
        "gateway_certificate_key": str(site.certificate_key or ""),
        "gateway_names": list(site.names),
        "gateway_wheels_command": [sys.executable, "-m", "dspark_ops.gateway.wheels"],
        "gateway_wheels_dir": str(cache_dir() / "gateway"),
    }


def _program() -> Path:
    folder = state_dir() / "gateway"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "gateway.pyz"
    beside = path.with_suffix(".new")
    beside.write_bytes(zipapp())
    beside.replace(path)
    return path


def _change(
    verb: str,
    loaded: LoadedSite,
    settings: GatewaySettings | None,
    variables: Mapping[str, object],
    consent: Consent,
    progress: Progress,
    *,
    check: bool,
    diff: bool,
) -> Report:
    recorder = Recorder(verb, loaded.site.name, progress)
    with site_lock(loaded.site.name, on_wait=progress):
        with recorder.phase("plan") as note:
            result = _play(loaded, variables, check=True, diff=diff)
            planned = list(result.changes)
            note.detail = f"{len(planned)} changes" if result.ok else "failed"
        if not result.ok:
            return recorder.report("failed", ExitCode.NO_VERDICT, f"nothing was changed: {why_failed(result)}")
        if check:
            recorder.changes.extend(planned)
            words = f"{len(planned)} changes would be made; nothing was changed"
            return recorder.report("planned", ExitCode.OK, words)
        if planned:
            consent(plan_words(loaded, settings, planned))
        with recorder.phase("apply"):
            result = _play(loaded, variables, check=False, diff=diff)
        recorder.changes.extend(result.changes)
        if not result.ok:
            return recorder.report(
                "restore-incomplete",
                ExitCode.RESTORE_INCOMPLETE,
                why_failed(result),
                next_step=f"dspark-ops {verb}, when the reason is gone; or dspark-ops gateway remove",
                left=("files below /etc/dspark/gateway and the units dspark-edge and dspark-gateway on the head",),
            )
    verdict: Verdict = "changed" if result.changes else "unchanged"
    return recorder.report(verdict, ExitCode.OK, _end_words(loaded, settings))


def plan_words(loaded: LoadedSite, settings: GatewaySettings | None, planned: list[Change]) -> str:
    """The plan for people."""
    lines = [f"plan for the head ({loaded.site.nodes.head.host}):"]
    lines += [f"  {change.what}" for change in planned]
    if settings is None:
        lines.append("  clients get no answer any more; what the cloud has cost stays written down")
    elif settings.site.cloud is not None:
        cloud = settings.site.cloud
        budget = f"at most {cloud.hour_usd:g} USD an hour and {cloud.day_usd:g} USD a day"
        lines.append(f"  what the pair cannot answer goes to {cloud.base_url}, {budget}")
    if settings is not None and not settings.clients:
        lines.append("  there is no client yet: `dspark-ops gateway key add NAME` makes a key")
    return "\n".join(lines)


def why_failed(result: PlayResult) -> str:
    """The first reason of a run that failed."""
    if result.unreachable:
        return "the head could not be reached"
    if result.failures:
        return f"{result.failures[0].task}: {result.failures[0].message}"
    return f"ansible-playbook ended with {result.rc}; its log: {result.log}"


def _end_words(loaded: LoadedSite, settings: GatewaySettings | None) -> str:
    if settings is None:
        return "there is no gateway on the head"
    second = "the cloud second" if settings.site.cloud is not None else "no second backend"
    return f"https://{loaded.site.nodes.head.host}:{settings.site.port}/v1: the pair first, {second}"


def _play(loaded: LoadedSite, variables: Mapping[str, object], *, check: bool, diff: bool) -> PlayResult:
    return run_playbook(
        PLAYBOOK, loaded, variables=variables, check=check, diff=diff, tags=("gateway",), timeout_s=_TIMEOUT_S
    )
