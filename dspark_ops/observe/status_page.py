"""The pair on one page: one HTML file of the supervisor's status, both exporters and the alerts; nothing runs in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.observe.exporter.config import PORT
from dspark_ops.observe.exporter_config import SUPERVISOR_URL
from dspark_ops.observe.status_view import FiringAlert, PageInput, PageView, page_view
from dspark_ops.paths import data_dir
from dspark_ops.transport.base import Http, NodeReading, ProbeResult
from dspark_ops.transport.ssh import read_pair
from dspark_ops.whole_file import replace_file

_MAX_BYTES = 2 << 20
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def page_probes(site: Site) -> dict[Role, tuple[Http, ...]]:
    """What each node is asked, at its own loopback."""
    exporter = Http("page.exporter", f"http://127.0.0.1:{PORT}/metrics", max_bytes=_MAX_BYTES)
    status = Http("page.status", f"{SUPERVISOR_URL}/status", max_bytes=_MAX_BYTES)
    prometheus = f"http://127.0.0.1:{site.monitoring.prometheus_port}"
    alerts = Http("page.alerts", f"{prometheus}/api/v1/alerts", max_bytes=_MAX_BYTES)
    return {"head": (exporter, status, alerts), "worker": (exporter,)}


def read_page(site: Site) -> PageView:
    """Ask both nodes once.

    Raises:
        NoVerdictError: neither node could be reached.
    """
    readings = read_pair(site, page_probes(site))
    if not any(reading.reachable for reading in readings.values()):
        reason = "; ".join(f"{role}: {readings[role].error}" for role in ROLES)
        raise NoVerdictError(
            f"neither node could be read: {reason}", hint="look at the nodes, then at the SSH settings"
        )
    return page_view(page_input(site.name, readings, datetime.now(UTC)))


@dataclass(frozen=True)
class WrittenPage:
    """The page as it was written. Its exit code is that of the state: bad when the pair waits for a person."""

    path: Path
    view: PageView

    @property
    def exit_code(self) -> ExitCode:
        codes = {"ok": ExitCode.OK, "warn": ExitCode.OK, "fail": ExitCode.VERDICT_BAD}
        return codes.get(self.view.mark, ExitCode.NO_VERDICT)

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "schema": "dspark-ops/monitor-page/v1",
            "site": self.view.site,
            "exit_code": int(self.exit_code),
            "state": self.view.state,
            "mark": self.view.mark,
            "written": str(self.path),
        }

    def text(self) -> str:
        """For people."""
        return f"{self.view.state}: {self.view.reason}\n{self.path}"


def write_page(site: Site, path: Path) -> WrittenPage:
    """Read both nodes and write the page, whole or not at all.

    Raises:
        ConfigError: it cannot be written; nothing was contacted where its directory is not there.
        NoVerdictError: neither node could be reached.
    """
    if not path.parent.is_dir():
        raise ConfigError(
            f"{path.parent} is not there, so {path.name} cannot be written", hint="make it, or name another"
        )
    view = read_page(site)
    try:
        replace_file(path, render_page(view), mode=0o644)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    return WrittenPage(path, view)


def page_input(site: str, readings: Mapping[Role, NodeReading], made_at: datetime) -> PageInput:
    """What was read, with the reason for what was not. Pure."""
    problems: dict[str, str] = {}
    scrapes: dict[Role, str | None] = {}
    for role in ROLES:
        answer = readings[role].get("page.exporter")
        scrapes[role] = answer.stdout if answer.rc == 200 else None
        if scrapes[role] is None:
            problems[role] = _why(readings[role], answer, "its exporter does not answer")
    answer = readings["head"].get("page.status")
    status = _document(answer)
    if status is None:
        problems["supervisor"] = _why(readings["head"], answer, "the supervisor does not answer")
    answer = readings["head"].get("page.alerts")
    alerts = parse_alerts(answer)
    if alerts is None:
        problems["alerts"] = _why(readings["head"], answer, "Prometheus does not answer")
    return PageInput(site, made_at, status, scrapes, alerts, problems)


def parse_alerts(answer: ProbeResult) -> tuple[FiringAlert, ...] | None:
    """The alerts that fire, out of Prometheus' answer; None when it is none."""
    data = (_document(answer) or {}).get("data")
    entries = data.get("alerts") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        return None
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("state") != "firing":
            continue
        labels, notes = (
            part if isinstance(part, dict) else {} for part in (entry.get("labels"), entry.get("annotations"))
        )
        found.append(
            FiringAlert(
                *(
                    str(text)
                    for text in (labels.get("alertname", "?"), labels.get("severity", ""), notes.get("summary", ""))
                )
            )
        )
    return tuple(found)


def _document(answer: ProbeResult) -> dict[str, Any] | None:
    try:
        document = json.loads(answer.stdout or "") if answer.rc == 200 else None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _why(reading: NodeReading, answer: ProbeResult, words: str) -> str:
    if not reading.reachable:
        return f"the node was not reached: {reading.error or 'no reason given'}"
    return f"{words}: {answer.error or f'HTTP {answer.rc}'}"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("status_page.html.j2")


def render_page(view: PageView) -> str:
    """The whole document, from `templates/status_page.html.j2`."""
    return _CONTROL.sub("\ufffd", _template().render(page=view)).lstrip()
