"""Sections and keys of keyfiles and units: kept in order, repeats included."""

from __future__ import annotations

import re

_SECTION = re.compile(r"\[([^\[\]]+)\]")

Section = tuple[str, tuple[tuple[str, str], ...]]


def ini_sections(text: str) -> tuple[Section, ...]:
    """Every section with its keys; a comment, a line of another shape and a key before any section are left out."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        head = _SECTION.fullmatch(line)
        if head:
            found.append((head[1].strip(), []))
            continue
        key, separator, value = line.partition("=")
        if separator and found and key.strip():
            found[-1][1].append((key.strip(), value.strip()))
    return tuple((name, tuple(keys)) for name, keys in found)


def values_of(sections: tuple[Section, ...], names: tuple[str, ...], key: str) -> tuple[str, ...]:
    """Every value of a key in the sections of these names, in order; the last one is the one that counts."""
    return tuple(value for name, keys in sections if name in names for found, value in keys if found == key)


def truth(text: str | None) -> bool | None:
    """yes, true, on, 1 and their opposites; None for anything else."""
    word = (text or "").strip().lower()
    if word in ("1", "yes", "true", "on"):
        return True
    return False if word in ("0", "no", "false", "off") else None
