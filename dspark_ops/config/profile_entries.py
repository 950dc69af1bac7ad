"""`profiles.<name>` of a site file: what differs while that profile is in use, and what may not stand there."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from dspark_ops.config.layers import Origin, Stack
from dspark_ops.config.models import Site
from dspark_ops.config.problem import Problem
from dspark_ops.config.yaml_source import Key, shorten

#: What a profile cannot change: the pair is the pair under every profile, and the choice is made outside.
FIXED = ("version", "name", "profile", "nodes", "fabric", "profiles")
ALLOWED = tuple(name for name in Site.model_fields if name not in FIXED)


def _entries(top: Stack) -> dict[str, Any]:
    entries = top.at(("profiles",))
    return entries if isinstance(entries, dict) else {}


def entry_names(top: Stack, known: Collection[str]) -> tuple[str, ...]:
    """The known profiles for which the site says something of its own."""
    return tuple(name for name, entry in _entries(top).items() if name in known and isinstance(entry, dict))


def lay_entry(stack: Stack, top: Stack, name: str) -> None:
    """Lay the part of a profile over a stack; every key keeps its file and line, messages name the part."""
    entry = _entries(top).get(name)
    if not isinstance(entry, dict):
        return

    def origin_of(key: Key) -> Origin:
        origin = top.nearest(("profiles", name, *key))
        assert origin is not None  # noqa: S101 - the entry itself was given
        return replace(origin, where=f"{origin.where}: profiles.{name}", entry=name)

    stack.lay({key: value for key, value in entry.items() if key not in FIXED}, origin_of)


def left_behind(stack: Stack) -> tuple[Problem, ...]:
    """A note where a profile's part names another image and the file's archive, made for its own image, stays."""
    ours, archive = stack.origins.get(("image", "id")), stack.origins.get(("image", "archive"))
    if ours is None or ours.entry is None or archive is None or stack.at(("image", "archive")) is None:
        return ()
    if archive.entry is not None or archive.source.layer != "file":
        return ()
    text = (
        f"profiles.{ours.entry} names another image, and image.archive ({archive.source.detail}) is still that of the "
        "file; name the archive that holds this id, or null, beside the id"
    )
    return (Problem("cfg.archive_left", "image.id", text, "note"),)


def keys_laid(keys: Iterable[Key], name: object) -> set[Key]:
    """Where keys of a profile's part stand once it is laid."""
    return {key[2:] for key in keys if key[:2] == ("profiles", name)}


def entry_complaints(top: Stack, known: Collection[str]) -> list[str]:
    """Located sentences about names that are no profile and keys that a profile cannot change."""
    found: list[str] = []
    for name, entry in _entries(top).items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            nearest = f"did you mean {close[0]}?" if close else "expected one of " + ", ".join(known)
            found.append(f"{_where(top, ('profiles', name))}: profiles: unknown profile {shorten(name)}; {nearest}")
            continue
        found += [
            f"{_where(top, ('profiles', name, key))}: profiles.{name}: {key} cannot differ by profile; expected some "
            f"of {', '.join(ALLOWED)}: move it to the top of the file"
            for key in FIXED
            if isinstance(entry, dict) and key in entry
        ]
    return found


def _where(top: Stack, key: Key) -> str:
    origin = top.nearest(key)
    return origin.where if origin is not None else "profiles"
