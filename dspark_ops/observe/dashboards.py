"""The Grafana dashboards: data of the installation, parsed, linted and written out. Nothing here asks a host."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.paths import data_dir

#: What every panel must ask: the viewer chooses the Prometheus.
DATASOURCE = "${datasource}"
WIDTH = 24
# Grafana's own variables, and what stands for them where promtool reads the expression.
_GRAFANA = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}
# Made by Prometheus itself; no scrape holds them.
_OF_PROMETHEUS = ("ALERTS", "ALERTS_FOR_STATE", "up")
_WORDS = ("and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset")


class _Part(BaseModel):
    """Grafana's models are wide: what is not looked at here is let through."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Place(_Part):
    """Where a panel lies in the grid of 24 columns."""

    h: int = Field(ge=1)
    w: int = Field(ge=1, le=WIDTH)
    x: int = Field(ge=0, lt=WIDTH)
    y: int = Field(ge=0)


class Source(_Part):
    """Whom a panel asks."""

    type: str
    uid: str


class Query(_Part):
    """One expression of a panel."""

    ref: str = Field(alias="refId")
    expr: str
    legend: str = Field(alias="legendFormat")


class Panel(_Part):
    """One panel; a row has no queries."""

    id: int
    type: str
    title: str
    description: str = ""
    place: Place = Field(alias="gridPos")
    datasource: Source | None = None
    queries: tuple[Query, ...] = Field(default=(), alias="targets")
    field_config: dict[str, Any] = Field(default={}, alias="fieldConfig")

    @property
    def unit(self) -> str | None:
        """The unit of its values; None when it has none."""
        unit = self.field_config.get("defaults", {}).get("unit")
        return unit if isinstance(unit, str) else None


class Dashboard(_Part):
    """One file."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    templating: dict[str, Any]


def dashboard_files() -> tuple[Path, ...]:
    """The files of this installation, by name."""
    return tuple(sorted((data_dir("templates") / "monitoring" / "dashboards").glob("*.json")))


def load(path: Path) -> Dashboard:
    """One dashboard.

    Raises:
        ConfigError: the file is no dashboard; says where it differs.
    """
    try:
        return Dashboard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path.name}: {where}: {first['msg']}", hint="correct the file") from error


def write_dashboards(folder: Path) -> tuple[Path, ...]:
    """Copy every dashboard into a folder; the paths that were written.

    Raises:
        NoVerdictError: the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in dashboard_files():
            target = folder / path.name
            target.write_bytes(path.read_bytes())
            written.append(target)
    except OSError as error:
        raise NoVerdictError(
            f"{folder} cannot be written: {error.strerror or error}", hint="name a directory of yours with --out"
        ) from error
    return tuple(written)


def lint(dashboards: Sequence[Dashboard], known: Iterable[str]) -> list[str]:
    """What is wrong with them, as sentences. known: every metric that a recorded scrape or a rule has."""
    names = {*known, *_OF_PROMETHEUS}
    said = [f"{uid} is the uid of {n} dashboards" for uid, n in Counter(d.uid for d in dashboards).items() if n > 1]
    for dashboard in dashboards:
        said += [f"{dashboard.uid}: {sentence}" for sentence in _lint_one(dashboard, names)]
    return said


def _lint_one(dashboard: Dashboard, known: set[str]) -> Iterator[str]:
    variables = dashboard.templating.get("list", [])
    if not any(v.get("name") == "datasource" and v.get("type") == "datasource" for v in variables):
        yield "has no variable `datasource` of type datasource"
    for number, times in Counter(panel.id for panel in dashboard.panels).items():
        if times > 1:
            yield f"panel id {number} is there {times} times"
    taken: dict[tuple[int, int], int] = {}
    for panel in dashboard.panels:
        place = panel.place
        if place.x + place.w > WIDTH:
            yield f"panel {panel.id} is wider than the grid"
        for cell in ((x, y) for x in range(place.x, place.x + place.w) for y in range(place.y, place.y + place.h)):
            if cell in taken:
                yield f"panel {panel.id} lies over panel {taken[cell]}"
                break
            taken[cell] = panel.id
        if panel.type != "row":
            yield from _lint_panel(panel, known)


def _lint_panel(panel: Panel, known: set[str]) -> Iterator[str]:
    where = f"panel {panel.id} ({panel.title})"
    if panel.datasource is None or panel.datasource.type != "prometheus" or panel.datasource.uid != DATASOURCE:
        yield f"{where}: its datasource is not {DATASOURCE}"
    if not panel.unit:
        yield f"{where}: has no unit"
    if not panel.description:
        yield f"{where}: has no description"
    if not panel.queries:
        yield f"{where}: asks nothing"
    for ref, times in Counter(query.ref for query in panel.queries).items():
        if times > 1:
            yield f"{where}: refId {ref} is there {times} times"
    for name in sorted({name for query in panel.queries for name in metric_names(query.expr)}):
        if name.endswith("_created"):
            yield f"{where}: {name} says only when a series was made"
        elif name not in known:
            yield f"{where}: {name} is in no recorded scrape"


def expressions(dashboard: Dashboard) -> tuple[str, ...]:
    """Every expression, with Grafana's variables replaced by what Prometheus can read."""
    found = []
    for panel in dashboard.panels:
        for query in panel.queries:
            text = query.expr
            for variable, value in _GRAFANA.items():
                text = text.replace(variable, value)
            found.append(text)
    return tuple(found)


def as_rules(dashboards: Iterable[Dashboard]) -> dict[str, Any]:
    """A rules file with each expression as a recording rule, so that promtool parses them all."""
    rules = [
        {"record": f"lint:expression:{number}", "expr": text}
        for number, text in enumerate(text for dashboard in dashboards for text in expressions(dashboard))
    ]
    return {"groups": [{"name": "dashboards", "rules": rules}]}


def metric_names(expr: str) -> set[str]:
    """The names of metrics in a PromQL expression."""
    text = re.sub(r'"(?:\\.|[^"\\])*"', " ", expr)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    found = re.findall(r"(?<![\w:.$])([A-Za-z_:][A-Za-z0-9_:]*)\b(?!\s*\()", text)
    return {name for name in found if name not in _WORDS}
