"""What an incident is made of, and the document that tells of it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops import __version__
from dspark_ops.config.models import Role
from dspark_ops.facts.log_signatures import Confidence, Kind, Where
from dspark_ops.report.models import Remedy

SCHEMA_ID: Literal["dspark-ops/incident/v1"] = "dspark-ops/incident/v1"
SourceName = Literal["engine", "kernel", "journal", "container"]
Verdict = Literal["cause", "not-known", "nothing", "indeterminate"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Event(_Frozen):
    """One known line, or one fact that Docker tells of the container.

    at_s: Unix seconds by the control host's clock, as far as the clocks were compared; None where the line has no time.
    count: how often the line is there; at_s is then one of the moments. line: as it was written. resumes: such lines
    from just before it were not brought back, there were too many.
    """

    at_s: float | None
    node: Role
    source: SourceName
    where: Where
    signature: str
    kind: Kind
    means: str
    check: str | None = None
    known: tuple[str, ...] = ()
    line: str
    count: int = 1
    resumes: bool = False


class Clock(_Frozen):
    """A node's clock against the control host's. None: it was not compared, as in a folder of logs."""

    node: Role
    offset_s: float | None = None
    uncertainty_s: float | None = None


class Source(_Frozen):
    """One log that was asked for. problem: why it could not be read. cut: why not to its end; reached_s: up to when.

    begin_s: what happened before was not asked for.
    """

    node: Role
    name: SourceName
    problem: str | None = None
    cut: str | None = None
    reached_s: float | None = None
    begin_s: float | None = None


class Case(_Frozen):
    """Everything that an incident is judged from. asked_to_stop: nodes whose rank says that it was asked to end."""

    events: tuple[Event, ...]
    clocks: tuple[Clock, ...]
    sources: tuple[Source, ...]
    asked_to_stop: tuple[Role, ...] = ()


class Cause(_Frozen):
    """One cause. nodes: where it was seen, the first one first. because: what makes it more sure or less."""

    signature: str
    check: str | None
    known: tuple[str, ...]
    nodes: tuple[Role, ...]
    at_s: float | None
    means: str
    line: str
    confidence: Confidence
    because: tuple[str, ...]
    remedy: Remedy | None = None


class IncidentReport(_Frozen):
    """The document of `doctor --incident`.

    verdict: cause, the first one is named; not-known, something failed and no line names why; nothing, no sign of a
    failure; indeterminate, no sign was seen and not everything could be read. nearest: for not-known, the sign that is
    nearest to the cause; first_sign, where there is none such: what was seen first of what follows from one. others:
    causes that do not follow from the first. followed: what came after it, in order. earlier: failures before this one
    in the same logs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/incident/v1"] = Field(default=SCHEMA_ID, alias="schema")
    tool_version: str = __version__
    site: str | None = None
    taken_at: datetime
    replayed_from: str | None = None
    since: datetime | None = None
    verdict: Verdict
    exit_code: int
    message: str
    cause: Cause | None = None
    others: tuple[Cause, ...] = ()
    nearest: Cause | None = None
    first_sign: Event | None = None
    followed: tuple[Event, ...] = ()
    earlier: int = 0
    clocks: tuple[Clock, ...] = ()
    sources: tuple[Source, ...] = ()
    timeline: tuple[Event, ...] = ()

    def to_json(self) -> str:
        """The document as JSON text, keys as in the published schema."""
        return self.model_dump_json(indent=2, by_alias=True)


def incident_schema() -> dict[str, Any]:
    """The JSON schema of the document."""
    schema = IncidentReport.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def render_schema() -> str:
    """The text of `checks/incident.schema.json`."""
    return json.dumps(incident_schema(), indent=2, sort_keys=True) + "\n"
