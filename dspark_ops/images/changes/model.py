"""A change set: the files that one stage edits or adds, each with its hash before and after, and its JSON document."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .diff import Hunk, parse_patch
from .errors import DocumentError

SCHEMA = "dspark-ops/changes/v1"
#: A change set's document in its directory; patches and contents lie beside it, at the names it gives.
DOCUMENT = "change_set.json"
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class FileChange:
    """One file, its path below site-packages. Edited: `before` and `patch`. Added: `content`, and no `before`."""

    path: str
    before: str | None
    after: str
    patch: bytes | None = None
    content: bytes | None = None

    def hunks(self) -> tuple[Hunk, ...]:
        """The edit's hunks; none for an added file."""
        return parse_patch(self.path, self.patch) if self.patch is not None else ()


@dataclass(frozen=True)
class ChangeSet:
    """What one stage changes in a release; `distribution` and `version` name the release it is written for."""

    name: str
    distribution: str
    version: str
    files: tuple[FileChange, ...]

    def write(self, directory: Path, *, document: str = DOCUMENT) -> None:
        """The document and its parts, below `directory` (created)."""
        directory.mkdir(parents=True, exist_ok=True)
        entries = []
        for number, change in enumerate(self.files, 1):
            entry: dict[str, Any] = {"path": change.path, "before": change.before, "after": change.after}
            part, content = _part(number, change)
            entry["content" if change.before is None else "patch"] = part
            target = directory / part
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            entries.append(entry)
        about = {"schema": SCHEMA, "name": self.name, "distribution": self.distribution, "version": self.version}
        text = json.dumps({**about, "files": entries}, indent=1) + "\n"
        (directory / document).write_text(text, encoding="utf-8")


def sha256_hex(content: bytes) -> str:
    """The content's sha256, as every hash of a change set is written."""
    return hashlib.sha256(content).hexdigest()


def load_change_set(directory: Path, *, document: str = DOCUMENT) -> ChangeSet:
    """The change set in `directory`, its parts read and checked against their hashes as far as that needs no tree.

    Raises:
        DocumentError: the document or a part of it is absent or malformed.
    """
    place = directory / document
    try:
        data = json.loads(place.read_bytes())
    except (OSError, ValueError) as unreadable:
        raise DocumentError(f"{place} cannot be read as a change set: {unreadable}") from unreadable
    about = _table(data, f"{place}", {"schema", "name", "distribution", "version", "files"})
    if about["schema"] != SCHEMA:
        raise DocumentError(f"{place}: schema is {about['schema']!r}, expected {SCHEMA!r}")
    for key in ("name", "distribution", "version"):
        if not isinstance(about[key], str) or not _NAME.fullmatch(about[key].replace("+", "-").replace("!", "-")):
            raise DocumentError(f"{place}: {key} is {about[key]!r}, expected a name")
    if not isinstance(about["files"], list) or not about["files"]:
        raise DocumentError(f"{place}: files is empty, expected at least one")
    files = tuple(_file(entry, f"{place}: files[{n}]", directory) for n, entry in enumerate(about["files"]))
    return ChangeSet(about["name"], about["distribution"], about["version"], files)


def check_path(path: object) -> str:
    """A path that stays below the root it is joined to, and has one spelling.

    Raises:
        DocumentError: it does not.
    """
    if not isinstance(path, str) or not path or "\\" in path or not path.isprintable():
        raise DocumentError(f"{path!r} is not a relative path")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise DocumentError(f"{path!r} is not a plain relative path below the root")
    return path


def check_stack(stack: Sequence[ChangeSet]) -> None:
    """Whether the sets fit on each other: one release, each file's `before` what the sets below made of it.

    Raises:
        DocumentError: they do not.
    """
    made: dict[str, str] = {}
    for changes in stack:
        if (changes.distribution, changes.version) != (stack[0].distribution, stack[0].version):
            raise DocumentError(
                f"{changes.name} is for {changes.distribution} {changes.version}, "
                f"{stack[0].name} for {stack[0].distribution} {stack[0].version}"
            )
        if not changes.files:
            raise DocumentError(f"{changes.name} changes no file")
        seen: set[str] = set()
        for change in changes.files:
            check_path(change.path)
            if change.path in seen:
                raise DocumentError(f"{changes.name} names {change.path} twice")
            seen.add(change.path)
            _check_change(changes.name, change)
            if change.path in made and change.before != made[change.path]:
                raise DocumentError(
                    f"{changes.name}: {change.path} is edited from {change.before or 'no file'}, "
                    f"but the set below leaves {made[change.path]}"
                )
            made[change.path] = change.after
    _check_no_file_is_a_directory(made)


def _check_change(name: str, change: FileChange) -> None:
    if (change.patch is None) == (change.content is None) or (change.before is None) != (change.patch is None):
        raise DocumentError(f"{name}: {change.path} must have a hash before and a patch, or neither and a content")
    if change.before == change.after:
        raise DocumentError(f"{name}: {change.path} is the same before and after")
    if change.content is not None and sha256_hex(change.content) != change.after:
        raise DocumentError(f"{name}: the content of {change.path} does not have the hash {change.after}")
    change.hunks()


def _check_no_file_is_a_directory(made: Mapping[str, str]) -> None:
    for path in made:
        for parent in PurePosixPath(path).parents:
            if str(parent) in made:
                raise DocumentError(f"{parent} is a file and the directory of {path}")


def _file(entry: object, where: str, directory: Path) -> FileChange:
    kind = "content" if isinstance(entry, dict) and "content" in entry else "patch"
    fields = _table(entry, where, {"path", "before", "after", kind})
    path = check_path(fields["path"])
    for key in ("before", "after"):
        value = fields[key]
        if key == "before" and value is None:
            continue
        if not isinstance(value, str) or not _HASH.fullmatch(value):
            raise DocumentError(f"{where} ({path}): {key} is {value!r}, expected a sha256 in hexadecimal")
    part = directory / check_path(fields[kind])
    try:
        raw = part.read_bytes()
    except OSError as absent:
        raise DocumentError(f"{where} ({path}): its {kind} cannot be read: {absent}") from absent
    change = FileChange(path, fields["before"], fields["after"], **{kind: raw})
    _check_change(where, change)
    return change


def _table(data: object, where: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise DocumentError(f"{where}: expected an object, found {type(data).__name__}")
    unknown, missing = sorted(set(data) - keys), sorted(keys - set(data))
    if unknown or missing:
        said = [f"unknown {', '.join(unknown)}"] if unknown else []
        said += [f"missing {', '.join(missing)}"] if missing else []
        raise DocumentError(f"{where}: {'; '.join(said)}")
    return data


def _part(number: int, change: FileChange) -> tuple[str, bytes]:
    if change.content is not None:
        return f"files/{change.path}", change.content
    return f"{number:02d}-{PurePosixPath(change.path).name}.patch", change.patch or b""
