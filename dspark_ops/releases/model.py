"""A release as it was started: image, model, documents, what the processes were really given, hosts, gate, times."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops import __version__
from dspark_ops.config.models import Role, Site
from dspark_ops.facts.rank import HIDDEN, LABEL, parse_env

SCHEMA_ID: Literal["dspark-ops/release/v1"] = "dspark-ops/release/v1"

ReleaseStatus = Literal["served", "failed", "rolled-back"]
GateOutcome = Literal["passed", "failed", "timed-out", "not-startable"]

_EPOCH = LABEL + "epoch"
# Options of the engine and of a gate whose value nobody should read. A plain "token" would hide every token count.
_SECRET_OPTION = re.compile(
    r"--?[a-z0-9_-]*(?:api[-_]?key|hf[-_]token|auth[-_]token|access[-_]token|secret|password|passwd|credential)"
    r"[a-z0-9_-]*",
    re.IGNORECASE,
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ImageOfRelease(_Frozen):
    """The image that was asked for, and the one that each rank's container was seen to run; None: not seen."""

    id: str
    reference: str
    per_rank: dict[Role, str | None] = {}


class ModelOfRelease(_Frozen):
    """The weights. repo and revision: None when the site does not pin a hub's repository."""

    path: str
    served_name: str
    repo: str | None = None
    revision: str | None = None


class CacheOfRelease(_Frozen):
    """Where compiled kernels are kept: the volume and where it is mounted. None: this profile keeps none."""

    volume: str | None = None
    root: str | None = None


class EngineProcess(_Frozen):
    """One process of a rank's container by the node's own count. title: its command line as it shows now."""

    pid: int
    title: str


class EffectiveRank(_Frozen):
    """What the first process of a rank's container was really started with, read from /proc on the node.

    argv: word for word, as the kernel has it (an interpreter of a script comes before the script). env: what the
    process was started with; what looks like a secret is hidden in both. image_env: what the image gives by itself;
    None when it could not be read. digests: sha256 of the hidden values, for one comparison; never written anywhere.
    """

    container: str
    image_id: str | None = None
    epoch: str | None = None
    argv: tuple[str, ...]
    env: dict[str, str]
    image_env: dict[str, str] | None = None
    processes: tuple[EngineProcess, ...] = ()
    digests: dict[str, str] = Field(default_factory=dict, exclude=True, repr=False)


class Difference(_Frozen):
    """One place where what runs is not what was asked. None: absent there. Secrets are hidden."""

    role: Role
    what: Literal["argv", "env", "image", "process"]
    name: str
    asked: str | None = None
    effective: str | None = None

    def sentence(self) -> str:
        """As a person reads it."""
        asked = "nothing" if self.asked is None else repr(self.asked)
        found = "nothing" if self.effective is None else repr(self.effective)
        return f"{self.role}: {self.what} {self.name}: asked {asked}, runs with {found}"


class HostOfRelease(_Frozen):
    """A node at the time of the start. None: not seen. mem_total_kib: MemTotal."""

    host: str
    hostname: str | None = None
    kernel: str | None = None
    driver: str | None = None
    docker: str | None = None
    mem_total_kib: int | None = None


class GateResult(_Frozen):
    """What the site's own program said of a release that was ready. message: one sentence; tail: its last lines.

    rc None: it did not end by itself, or never started.
    """

    command: tuple[str, ...]
    outcome: GateOutcome
    rc: int | None = None
    started_at: datetime
    elapsed_s: float
    message: str
    tail: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


class StartOfRelease(_Frozen):
    """One start of a release: when, how it ended, what the gate said. reason: why it failed or was undone.

    ready_at None: never ready. phases_s: seconds of each phase, by name.
    """

    epoch: str
    status: ReleaseStatus
    reason: str | None = None
    started_at: datetime
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    phases_s: dict[str, float] = {}
    gate: GateResult | None = None


class Release(BaseModel):
    """One release of one site, with its last start; `earlier` has the ones before, newest first.

    documents: per role the `rank_service_spec` without the epoch: all that is needed to start it again, secrets
    included, so the file is for its owner alone and everything shown comes from `shown()`.
    effective: None for a rank that could not be read back. differences: asked against effective, at the last start;
    None when they were not compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/release/v1"] = Field(default=SCHEMA_ID, alias="schema")
    id: str = Field(pattern=r"^r-[0-9a-f]{6,64}$")
    site: str
    profile: str
    image: ImageOfRelease
    model: ModelOfRelease
    documents: dict[Role, dict[str, Any]]
    effective: dict[Role, EffectiveRank | None] = {}
    differences: tuple[Difference, ...] | None = None
    cache: CacheOfRelease = CacheOfRelease()
    site_digest: str
    tool_version: str = __version__
    hosts: dict[Role, HostOfRelease] = {}
    start: StartOfRelease
    earlier: tuple[StartOfRelease, ...] = ()

    @property
    def starts(self) -> tuple[StartOfRelease, ...]:
        """All known starts, newest first."""
        return (self.start, *self.earlier)

    @property
    def served_at(self) -> datetime | None:
        """When it last became ready in a start that was not undone; None: it never served, or was rolled back since."""
        if self.start.status == "rolled-back":
            return None
        return next((s.ready_at or s.started_at for s in self.starts if s.status == "served"), None)

    def argv(self, role: Role) -> tuple[str, ...]:
        """The argument list that was asked for, secrets hidden."""
        return hide_argv(tuple(str(word) for word in self.documents[role]["command"]))

    def env(self, role: Role) -> dict[str, str]:
        """The environment that was asked for, secrets hidden."""
        return hide_env(self.documents[role]["env"])

    def shown(self) -> Release:
        """The same without secrets: what may be printed, compared and sent around. It cannot start anything."""
        documents = {role: hide_document(document) for role, document in self.documents.items()}
        return self.model_copy(update={"documents": documents})

    def to_json(self) -> str:
        """The record as it is kept: with the secrets that a start needs."""
        return self.model_dump_json(indent=1, by_alias=True)


def without_epoch(document: Mapping[str, Any]) -> dict[str, Any]:
    """A `rank_service_spec` document that stands for every start of the release."""
    labels = {name: value for name, value in document["labels"].items() if name != _EPOCH}
    return {**document, "labels": labels}


def with_epoch(document: Mapping[str, Any], epoch: str) -> dict[str, Any]:
    """The document for one start."""
    return {**document, "labels": {**document["labels"], _EPOCH: epoch}}


def site_digest(site: Site) -> str:
    """sha256 over the site's canonical JSON: two equal digests are the same wish."""
    document = site.model_dump(mode="json")
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def hide_env(env: Mapping[str, str]) -> dict[str, str]:
    """The environment with the value of everything that looks like a secret replaced."""
    return parse_env([f"{name}={value}" for name, value in env.items()])


def hide_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """The argument list with the value of secret options replaced, as `--api-key=<hidden>` or the word after it."""
    shown: list[str] = []
    hide_next = False
    for word in argv:
        name, equals, _ = word.partition("=")
        if hide_next and not word.startswith("--"):
            shown.append(HIDDEN)
        elif _SECRET_OPTION.fullmatch(name):
            shown.append(f"{name}={HIDDEN}" if equals else word)
        else:
            shown.append(word)
        # vLLM's --api-key takes several words.
        hide_next = (hide_next and not word.startswith("--")) or (
            not equals and _SECRET_OPTION.fullmatch(name) is not None
        )
    return tuple(shown)


def hide_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """A rank's document without secrets."""
    return {
        **document,
        "command": list(hide_argv([str(word) for word in document["command"]])),
        "env": hide_env(document["env"]),
    }
