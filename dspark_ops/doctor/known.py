"""Failures that others have met and described, and which check of ours finds each: one YAML list a section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from dspark_ops.doctor.catalogue import CheckId, Sentence
from dspark_ops.errors import NoVerdictError
from dspark_ops.paths import data_dir

# The sections whose ids begin with the name of their file, and what each is about. A file of another name is a list of
# its own, with ids of its own.
SECTIONS: Mapping[str, str] = {
    "cfg": "configuration",
    "cor": "correctness",
    "eng": "engine hangs and crashes",
    "fab": "fabric and kernel",
    "hw": "hardware",
    "img": "build, image, patches",
    "mem": "memory and tenants",
    "ops": "operations",
    "perf": "performance",
    "sec": "security",
    "wgt": "weights and tokenizer",
}

FailureSeverity = Literal["outage", "slow", "nuisance"]


class KnownFailure(BaseModel):
    """One known failure. checks: what finds it; why_not: why nothing does. Exactly one of the two is there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]*(-[A-Z0-9]+)*-[0-9]+[a-z]?$")]
    symptom: Sentence
    severity: FailureSeverity
    checks: tuple[CheckId, ...] = ()
    why_not: Sentence | None = None
    source: Annotated[str, Field(min_length=3)]

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if bool(self.checks) == (self.why_not is not None):
            raise ValueError(f"{self.id}: either checks or why_not, not both and not neither")
        if len(set(self.checks)) != len(self.checks):
            raise ValueError(f"{self.id}: a check is named twice")
        return self


class KnownSection(BaseModel):
    """The failures of one file. name: the file's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    failures: Annotated[tuple[KnownFailure, ...], Field(min_length=1)]


_ENTRIES = TypeAdapter(tuple[KnownFailure, ...])


@cache
def load_known() -> tuple[KnownSection, ...]:
    """Every section that is installed, by name.

    Raises:
        NoVerdictError: an entry is malformed, in another section's file, or its id is there twice.
    """
    return read_sections(data_dir("checks") / "known")


def read_sections(folder: Path) -> tuple[KnownSection, ...]:
    """The sections in a directory; none when it is not there.

    Raises:
        NoVerdictError: as for load_known.
    """
    sections = tuple(_read(path) for path in sorted(folder.glob("*.yml")))
    seen: set[str] = set()
    for failure in every_failure(sections):
        if failure.id in seen:
            raise NoVerdictError(f"checks/known: the id {failure.id} is there twice")
        seen.add(failure.id)
    return sections


def every_failure(sections: Iterable[KnownSection]) -> tuple[KnownFailure, ...]:
    """The failures of all sections, in their order."""
    return tuple(failure for section in sections for failure in section.failures)


def failures_by_check(sections: Sequence[KnownSection]) -> Mapping[str, tuple[KnownFailure, ...]]:
    """The failures that each check finds; a check that finds none is not in it."""
    found: dict[str, list[KnownFailure]] = {}
    for failure in every_failure(sections):
        for check in failure.checks:
            found.setdefault(check, []).append(failure)
    return {check: tuple(failures) for check, failures in found.items()}


def _read(path: Path) -> KnownSection:
    try:
        entries = _ENTRIES.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
        section = KnownSection(name=path.stem, failures=entries)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        message = f"checks/known/{path.name} cannot be used: {error}"
        raise NoVerdictError(message, hint="reinstall dspark-ops") from error
    strangers = [f.id for f in entries if f.id.split("-", 1)[0].lower() != path.stem]
    if strangers and path.stem in SECTIONS:
        raise NoVerdictError(f"checks/known/{path.name} holds another section's: {', '.join(strangers)}")
    return section
