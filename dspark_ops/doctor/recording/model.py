"""The shape of a recording: a directory with a manifest, one file a node, the site, and what the doctor said then."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops import __version__
from dspark_ops.config.models import Profile, Site
from dspark_ops.evidence.redaction import Redacted
from dspark_ops.transport.base import NodeReading

SCHEMA_ID: Literal["dspark-ops/recording/v1"] = "dspark-ops/recording/v1"
MANIFEST = "recording.json"
NODE_FILES = {"head": "head.json", "worker": "worker.json"}
SITE_FILE = "site.json"
REPORT_FILE = "report.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RecordedFile(_Frozen):
    """One file of the directory, so that a damaged one is seen."""

    bytes: int
    sha256: str


class Manifest(_Frozen):
    """What is in the directory. active: it was asked for traffic as well. foreign: the site is what was found.

    redacted: what was taken out before anything was written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/recording/v1"] = Field(default=SCHEMA_ID, alias="schema")
    tool_version: str = __version__
    recorded_at: datetime
    site: str
    active: bool = False
    foreign: bool = False
    redacted: tuple[Redacted, ...] = ()
    files: dict[str, RecordedFile] = {}


class RecordedNode(_Frozen):
    """What one node was asked, and what it answered. probes: as they went over the wire, in order."""

    probes: tuple[dict[str, Any], ...]
    reading: NodeReading


class RecordedSite(_Frozen):
    """What was wanted, and what the control host remembered. path: as the operator named the site file.

    remembered: the facts of the pair that no node was asked for, by name. found: of a foreign pair, what was found.
    """

    site: Site
    profile: Profile
    path: str
    remembered: dict[str, Any] = {}
    found: dict[str, Any] | None = None
