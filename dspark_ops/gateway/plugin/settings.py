"""What the policy is told: one JSON document, read strictly. It holds no secret; those are systemd credentials."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

SCHEMA = "dspark-ops/gateway-policy/v1"
#: The groups of LiteLLM's configuration. `first` falls back to `cloud`, `local` falls back to nothing.
GROUP_FIRST, GROUP_LOCAL, GROUP_CLOUD = "dspark-first", "dspark-local", "dspark-cloud"
#: The deployments' ids in LiteLLM's configuration.
LOCAL, CLOUD = "local", "cloud"
DEPLOYMENTS_LOCAL = frozenset({LOCAL, "local-only"})


class SettingsError(Exception):
    """The document is not what the program understands."""


@dataclass(frozen=True)
class Cloud:
    """Limits and prices of the second backend. Money in millionths of a USD; prices per million tokens in USD."""

    max_context: int
    input_usd_per_million: float
    output_usd_per_million: float
    day_micro_usd: int
    hour_micro_usd: int
    request_micro_usd: int
    repeats: int


@dataclass(frozen=True)
class Policy:
    """Everything the process needs. cloud: None is no second backend. retry_after_s: told to who may come again."""

    served_name: str
    local_only_name: str
    max_context: int
    answer_tokens: int
    body_bytes: int
    host: str
    port: int
    shim_port: int
    litellm_config: str
    ledger: str
    retry_after_s: int
    tokenize_timeout_s: int
    cloud: Cloud | None


def read(path: Path) -> Policy:
    """The settings of a file.

    Raises:
        SettingsError: in words, with the file's name.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, SettingsError) as error:
        raise SettingsError(f"{path}: {error}; expected {SCHEMA} as `dspark-ops gateway install` writes it") from error


def parse(document: Mapping[str, Any]) -> Policy:
    """A document to settings; unknown and missing keys, and other types, are errors.

    Raises:
        SettingsError: what was found and what was expected.
    """
    given = dict(document)
    schema = given.pop("schema", None)
    if schema != SCHEMA:
        raise SettingsError(f"schema is {schema!r}, expected {SCHEMA!r}")
    cloud = given.get("cloud")
    if cloud is not None:
        given["cloud"] = Cloud(**_checked(Cloud, cloud, "cloud."))
    return Policy(**_checked(Policy, given, ""))


def _checked(kind: type, given: object, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise SettingsError(f"{where.rstrip('.')} is {type(given).__name__}, expected an object")
    wanted = {field.name: str(field.type) for field in fields(kind)}
    if given.keys() != wanted.keys():
        missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
        raise SettingsError(f"missing keys {missing}, unknown keys {extra} at {where or 'the top'}")
    for name, value in given.items():
        types: tuple[type, ...] = {"int": (int,), "float": (int, float), "str": (str,)}.get(
            wanted[name], (Cloud, type(None))
        )
        if isinstance(value, bool) or not isinstance(value, types):
            raise SettingsError(f"{where}{name} is {value!r}, expected {wanted[name]}")
    return given


def credential(name: str) -> str | None:
    """A secret from systemd's credentials directory without the line end; None where there is none.

    Raises:
        SettingsError: it is there and empty, or cannot be read.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    path = Path(folder) / name
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the credential {name} cannot be read: {type(error).__name__}") from error
    if not text or len(text.split()) != 1:
        raise SettingsError(f"the credential {name} is empty or more than one word")
    return text
