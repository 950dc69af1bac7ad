"""The known lines of logs (checks/log_signatures.yml): what to look for, and what each of them means."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dspark_ops.errors import NoVerdictError
from dspark_ops.paths import data_dir

Where = Literal["engine", "nccl", "kernel", "journal", "container"]
Kind = Literal["root", "secondary", "context"]
Confidence = Literal["low", "medium", "high"]
SignatureId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{2,40}$")]
FILE = "log_signatures.yml"


class Signature(BaseModel):
    """One known line. words: what a line must hold before pattern, a regular expression, is tried on it.

    kind: a root can be a first cause, a secondary one cannot, context is a step. check: the id under which the doctor
    names it; known: ids of the known failures. follows: after these it is a consequence; "*" is any root.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: SignatureId
    where: Where
    words: Annotated[str, Field(min_length=4, max_length=60)] | None = None
    pattern: Annotated[str, Field(min_length=4, max_length=200)] | None = None
    kind: Kind
    confidence: Confidence
    check: Annotated[str, Field(pattern=r"^[a-z]+\.[a-z0-9_]+$")] | None = None
    known: tuple[Annotated[str, Field(pattern=r"^[A-Z]{2,4}-\d{2}$")], ...] = ()
    follows: tuple[str, ...] = ()
    means: Annotated[str, Field(min_length=8, max_length=160)]
    source: Annotated[str, Field(min_length=4)]

    @model_validator(mode="after")
    def _complete(self) -> Signature:
        has_line = self.words is not None and self.pattern is not None
        if has_line is (self.where == "container"):
            raise ValueError(f"{self.id}: a line of a log needs words and a pattern, one of a container neither")
        if self.kind == "root" and self.check is None and not self.known:
            raise ValueError(f"{self.id}: a root needs the check or the known failure that names it")
        if self.pattern is not None:
            re.compile(self.pattern)
        return self


class SignatureFile(BaseModel):
    """checks/log_signatures.yml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signatures: Annotated[tuple[Signature, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_of_each(self) -> SignatureFile:
        names = [signature.id for signature in self.signatures]
        twice = {name for name in names if names.count(name) > 1}
        unknown = {f for s in self.signatures for f in s.follows} - {"*", *names}
        if twice or unknown:
            raise ValueError(f"twice: {sorted(twice)}; follows something unknown: {sorted(unknown)}")
        return self


@cache
def load_signatures() -> Mapping[str, Signature]:
    """Every known line by id, in the order of the file.

    Raises:
        NoVerdictError: the file is missing or malformed.
    """
    path = data_dir("checks") / FILE
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        file = SignatureFile.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=loader))  # noqa: S506
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise NoVerdictError(f"checks/{FILE} cannot be used: {error}", hint="reinstall dspark-ops") from error
    return {signature.id: signature for signature in file.signatures}


def marks(*where: Where) -> tuple[tuple[str, str, str], ...]:
    """What a node looks for in a log of this kind: (id, words, pattern)."""
    return tuple(
        (s.id, s.words, s.pattern)
        for s in load_signatures().values()
        if s.where in where and s.words is not None and s.pattern is not None
    )


def signature_schema() -> dict[str, Any]:
    """The JSON schema of the file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **SignatureFile.model_json_schema()}


def render_schema() -> str:
    """The text of `checks/log_signatures.schema.json`, for editors."""
    return json.dumps(signature_schema(), indent=2, sort_keys=True) + "\n"
