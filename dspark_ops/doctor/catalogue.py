"""The catalogue of checks: one YAML file a domain, one entry a check. What is judged, why, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspark_ops.errors import NoVerdictError
from dspark_ops.paths import data_dir
from dspark_ops.report.models import Effect, RemedyClass

# libyaml's, where PyYAML was built with it: an eighth of the time, which is a tenth of a whole run of the doctor.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

CheckId = Annotated[str, Field(pattern=r"^[a-z]+\.[a-z0-9_]+$")]
Sentence = Annotated[str, Field(min_length=8)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Threshold(_Strict):
    """A number that a rule compares with, and who says so, when."""

    value: float
    unit: str
    source: Annotated[str, Field(min_length=4)]
    date: date


class CheckRemedy(_Strict):
    """What to do when the check is not ok. In the command {site} and {host} are filled in.

    class: A the tool can do it alone, C it needs consent, M a person does it by hand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    text: Sentence
    command: tuple[str, ...] | None = None
    remedy_class: RemedyClass = Field(alias="class")


class Check(_Strict):
    """One check.

    scope: node is judged on each node, pair once. severity: a required one can fail and makes its unknown a missing
    verdict; an advised one warns at most. effect: what a bad result does to the pair; without it a required one blocks
    and an advised one is a risk. active: makes traffic, so it runs only when asked for. reads: what the rule looks at,
    which also tells whether a rehearsal imitates it. depends_on: what explains a bad result when it is bad itself, on
    the same node or the pair. with_peer: also on the other node (a cable has two ends).
    """

    id: CheckId
    title: Sentence
    scope: Literal["node", "pair"]
    severity: Literal["required", "advised"]
    effect: Effect = Field(default_factory=lambda known: "blocks" if known.get("severity") == "required" else "risks")
    active: bool = False
    why: Sentence
    reads: Annotated[tuple[str, ...], Field(min_length=1)]
    thresholds: dict[str, Threshold] = Field(default_factory=dict)
    remedy: CheckRemedy
    depends_on: tuple[CheckId, ...] = ()
    with_peer: bool = False
    evidence: Annotated[tuple[Annotated[str, Field(min_length=4)], ...], Field(min_length=1)]

    @property
    def domain(self) -> str:
        return self.id.split(".", 1)[0]


class CatalogueFile(_Strict):
    """One file: the checks of one domain, in the order in which they are shown."""

    domain: Annotated[str, Field(pattern=r"^[a-z]+$")]
    about: Sentence
    checks: Annotated[tuple[Check, ...], Field(min_length=1)]


DOMAINS = (
    *("reach", "host", "gpu", "memory", "nic", "fabric", "nccl", "image"),
    *("weights", "config", "tenant", "service", "boot", "log", "runtime", "correctness", "security", "operations"),
)


def catalogue_schema() -> dict[str, Any]:
    """The JSON schema of a catalogue file; `checks/schema.json` is this, for editors."""
    schema = CatalogueFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@cache
def load_catalogue() -> Mapping[str, Check]:
    """Every check by id, dependencies before what depends on them, else in the order of the files.

    Raises:
        NoVerdictError: an entry is malformed, an id is there twice, or a dependency is unknown or circular.
    """
    found: dict[str, Check] = {}
    for entry in (check for file in load_files() for check in file.checks):
        if entry.id in found:
            raise NoVerdictError(f"checks: the id {entry.id} is there twice")
        found[entry.id] = entry
    return {identity: found[identity] for identity in ordered(found)}


@cache
def load_files() -> tuple[CatalogueFile, ...]:
    """The catalogue files, in the order of the domains.

    Raises:
        NoVerdictError: a file is missing or malformed.
    """
    folder = data_dir("checks")
    files = []
    for domain in DOMAINS:
        path = folder / f"{domain}.yml"
        try:
            file = CatalogueFile.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER))  # noqa: S506
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise NoVerdictError(f"checks/{domain}.yml cannot be used: {error}", hint="reinstall dspark-ops") from error
        strangers = [check.id for check in file.checks if check.domain != domain]
        if file.domain != domain or strangers:
            raise NoVerdictError(f"checks/{domain}.yml holds another domain: {', '.join(strangers) or file.domain}")
        files.append(file)
    return tuple(files)


def ordered(checks: Mapping[str, Check]) -> list[str]:
    """The ids with what a check depends on before it, else in the given order.

    Raises:
        NoVerdictError: a dependency is unknown, or checks depend on each other in a circle.
    """
    done: dict[str, None] = {}

    def visit(identity: str, trail: tuple[str, ...]) -> None:
        if identity in done:
            return
        if identity in trail:
            raise NoVerdictError(f"checks: circular dependency {' -> '.join((*trail, identity))}")
        if identity not in checks:
            raise NoVerdictError(f"checks: {trail[-1]} depends on {identity}, which does not exist")
        for dependency in checks[identity].depends_on:
            visit(dependency, (*trail, identity))
        done[identity] = None

    for identity in checks:
        visit(identity, ())
    return list(done)


def render_schema() -> str:
    """The text of `checks/schema.json`."""
    return json.dumps(catalogue_schema(), indent=2, sort_keys=True) + "\n"
