"""The names that a vLLM release knows (images/releases/): variables, options and their values, backends."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

from dspark_ops.paths import data_dir


@dataclass(frozen=True)
class ReleaseNames:
    """What images/releases/names.py printed with that release. options: `--name` -> its values, None for any."""

    release: str
    variables: frozenset[str]
    options: dict[str, tuple[str, ...] | None]
    attention_backends: tuple[str, ...]
    mxfp4_moe_backends: tuple[str, ...]


@cache
def release_names(version: str) -> ReleaseNames | None:
    """The names of a release, or None: nobody has read them, so nothing can be said about a name."""
    path = data_dir("images") / "releases" / f"{version}.json"
    if not path.is_file():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    return ReleaseNames(
        release=data["release"],
        variables=frozenset(data["variables"]),
        options={name: None if values is None else tuple(values) for name, values in data["options"].items()},
        attention_backends=tuple(data["attention_backends"]),
        mxfp4_moe_backends=tuple(data["mxfp4_moe_backends"]),
    )
