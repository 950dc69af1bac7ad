"""Monitoring on the pair: installing and removing it, by playbook, with a plan and consent first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.reach import reach
from dspark_ops.doctor.timer import TEXTFILES, unit_name
from dspark_ops.errors import NoVerdictError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.fabric.proven_change import counted, judged, render_plan
from dspark_ops.facts.supervisor import UNIT_FILE
from dspark_ops.observe.exporter_config import exporter_configs
from dspark_ops.observe.monitoring import check_secrets, monitoring_host_variables, monitoring_variables
from dspark_ops.observe.zipapp import write_exporter
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.base import Files
from dspark_ops.transport.ssh import read_pair

PLAYBOOK: Final = "monitoring.yml"
SUPERVISOR_UNIT: Final = UNIT_FILE
GATEWAY_UNIT: Final = "/etc/systemd/system/dspark-gateway.service"
Wanted = Literal["present", "absent"]
_TIMEOUT_S = 1800


@dataclass(frozen=True)
class OnHead:
    """What else is on the head to be asked. doctor_textfile: None where the doctor's timer is elsewhere."""

    supervisor: bool = False
    gateway: bool = False
    doctor_textfile: str | None = None


def change_stack(
    loaded: LoadedSite,
    wanted: Wanted,
    *,
    consent: Callable[[str], None],
    progress: Progress,
    check: bool = False,
) -> Report:
    """Install monitoring on both nodes, bring it up to date, or remove it; a second run changes nothing.

    Raises:
        ConfigError: a file with a secret cannot be used; nothing was contacted.
        NoVerdictError: a node is unreachable or without sudo. RefusedError: somebody else has a port, or declined.
    """
    site = loaded.site
    if wanted == "present":
        check_secrets(site)
    recorder = Recorder(f"monitor {'install' if wanted == 'present' else 'remove'}", site.name, progress)
    with site_lock(site.name, on_wait=progress):
        with recorder.phase("reach"):
            reach(site, recorder)
            beside = look_on_head(loaded) if wanted == "present" else OnHead()
        with recorder.phase("plan") as note:
            planned = judged(_play(loaded, wanted, beside, check=True)).changes
            note.detail = counted(len(planned))
        if check:
            recorder.changes.extend(planned)
            words = f"{counted(len(planned))} would be made; nothing was changed"
            return recorder.report("planned", ExitCode.OK, words)
        if planned:
            consent(render_plan(site, planned))
        with recorder.phase("apply") as note:
            result = _play(loaded, wanted, beside, check=False)
            note.detail = counted(len(result.changes)) if result.ok else "failed"
        recorder.changes.extend(result.changes)
        if not result.ok:
            return _failed(recorder, result)
        if not result.changes:
            return recorder.report("unchanged", ExitCode.OK, _words(loaded, wanted, beside))
        return recorder.report("changed", ExitCode.OK, _words(loaded, wanted, beside), next_step=_next(wanted))


def look_on_head(loaded: LoadedSite) -> OnHead:
    """Whether the supervisor, the gateway and the doctor's timer are there too.

    Raises:
        NoVerdictError: that cannot be read; taking them for absent would take their metrics away.
    """
    textfile = str(TEXTFILES / f"{unit_name(loaded.site.name).replace('-', '_')}.prom")
    asked = Files("monitoring.beside", (SUPERVISOR_UNIT, GATEWAY_UNIT, textfile), max_bytes=1 << 20)
    found = read_pair(loaded.site, {"head": (asked,), "worker": ()})["head"].get(asked.id)
    if found.error is not None or found.files is None:
        raise NoVerdictError(f"head: what is installed there cannot be read: {found.error}", hint="look at the node")
    return OnHead(
        supervisor=SUPERVISOR_UNIT in found.files,
        gateway=GATEWAY_UNIT in found.files,
        doctor_textfile=textfile if textfile in found.files else None,
    )


def _play(loaded: LoadedSite, wanted: Wanted, beside: OnHead, *, check: bool) -> PlayResult:
    site = loaded.site
    monitoring = monitoring_host_variables(site)
    exporters = exporter_configs(
        site,
        loaded.profile,
        supervisor=beside.supervisor,
        gateway=beside.gateway,
        doctor_textfile=beside.doctor_textfile,
        interval_s=site.monitoring.scrape_every_s,
    )
    per_host: dict[Role, dict[str, object]] = {
        role: {**monitoring[role], "node_exporter_dspark_config": exporters[role]} for role in ROLES
    }
    with tempfile.TemporaryDirectory(prefix="dspark-exporter-") as folder:
        program = Path(folder) / "exporter.pyz"
        if wanted == "present":
            write_exporter(program)
        return run_playbook(
            PLAYBOOK,
            loaded,
            variables={
                **monitoring_variables(site, supervisor=beside.supervisor),
                "monitoring_state": wanted,
                "node_exporter_dspark_state": wanted,
                "node_exporter_dspark_program": str(program),
            },
            host_variables=per_host,
            check=check,
            diff=True,
            timeout_s=_TIMEOUT_S,
        )


def _failed(recorder: Recorder, result: PlayResult) -> Report:
    told = [f"{failure.node or 'pair'}: {failure.task}: {failure.message}" for failure in result.failures]
    reason = told[0] if told else f"ansible-playbook ended with {result.rc}"
    return recorder.report(
        "restore-incomplete",
        ExitCode.RESTORE_INCOMPLETE,
        reason,
        next_step="run it again when the reason is gone, or `dspark-ops monitor remove`; the engine was not touched",
        left=(f"monitoring as far as it came; its log: {result.log}",),
    )


def _words(loaded: LoadedSite, wanted: Wanted, beside: OnHead) -> str:
    if wanted == "absent":
        return "neither node has monitoring of ours; what it had kept is gone"
    monitoring = loaded.site.monitoring
    told = [
        word
        for word, there in (
            ("the webhook", monitoring.webhook_file),
            (monitoring.email.to if monitoring.email else "", monitoring.email),
        )
        if there
    ]
    who = f"alerts go to {' and '.join(told)}" if told else "alerts go to nobody: monitoring.webhook_file or email"
    heart = "" if monitoring.dead_man_file else "; nobody notices when the head is gone: monitoring.dead_man_file"
    canary = "" if beside.supervisor else "; no supervisor on the head, so no canary: `dspark-ops supervise install`"
    return f"Prometheus on the head, 127.0.0.1:{monitoring.prometheus_port}; {who}{heart}{canary}"


def _next(wanted: Wanted) -> str | None:
    return "dspark-ops monitor status" if wanted == "present" else None
