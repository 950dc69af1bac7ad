"""Reading a YAML file into plain values that still know their line, so that every complaint can name it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dspark_ops.errors import ConfigError

MAX_BYTES = 1_048_576
MAX_NODES = 20_000

Key = tuple[str | int, ...]
Value = Any  # str | int | float | bool | None | list[Value] | dict[str, Value]

_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]{0,24})")


@dataclass(frozen=True)
class Mark:
    """Where a value stands. raw is the text of a plain scalar as it was written, None for anything quoted."""

    line: int
    raw: str | None = None


@dataclass(frozen=True)
class Complaint:
    """One thing wrong with the file itself, before its keys mean anything. key: whose value it spoils, if one's."""

    line: int
    text: str
    key: tuple[str | int, ...] | None = None


@dataclass
class Document:
    """One parsed file: values, the mark of every key path, and what was wrong on the way."""

    data: Value
    marks: dict[Key, Mark] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)


def dotted(key: Sequence[str | int]) -> str:
    """A key path for people: `fabric.rails.0.name`."""
    return ".".join(str(part) for part in key)


def read_text(path: Path, what: str) -> str:
    """The text of a UTF-8 file with a byte-order mark and CRLF line ends taken away; ConfigError for the rest."""
    try:
        if path.is_dir():
            raise ConfigError(
                f"{path}: is a directory, expected {what}",
                hint=f"name the file inside it, as {path / 'site.yml'}",
            )
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: is not a regular file, expected {what}")
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file, expected {what}",
            hint="write one with `dspark-ops init HEAD WORKER`, or name another with --site",
        ) from None
    except PermissionError:
        raise ConfigError(
            f"{path}: not readable by this user, expected {what}", hint="check its owner and mode (`ls -l`)"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{str(path)!r}: cannot be read: {reason}", hint="check the path") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes, expected {what}", hint="check the path")
    return _decode(raw, path, what)


def _decode(raw: bytes, path: Path, what: str) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{path}: is UTF-16, expected UTF-8", hint="save it as UTF-8 in the editor")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}: is not UTF-8 (byte 0x{raw[error.start]:02x})", hint="save it as UTF-8 in the editor"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ConfigError(f"{path}:{line}: holds a NUL byte, expected {what}", hint="restore the file; it is damaged")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise ConfigError(
            f"{path}: is empty, expected {what}",
            hint="start from inventories/example/site.yml, or run `dspark-ops init HEAD WORKER`",
        )
    return text


class _Loader(yaml.SafeLoader):
    """SafeLoader without timestamps: a date stays the text that was written."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in rows if tag != "tag:yaml.org,2002:timestamp"]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str, label: str, *, name: str = "the document") -> Document:
    """Values and marks of one YAML document, called `name` at its top. ConfigError where the text is not YAML."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        document = Document(data=None)
        document.data = _Walk(loader, document, name).value(node, ())
    except yaml.MarkedYAMLError as error:
        raise ConfigError(
            _syntax(error, text, label), hint="indent with spaces and put a space after each colon"
        ) from None
    except yaml.YAMLError as error:
        position = getattr(error, "position", None)
        line = text[:position].count("\n") + 1 if isinstance(position, int) else 1
        reason = str(getattr(error, "reason", "it cannot be read"))
        raise ConfigError(f"{label}:{line}: not YAML: {reason}", hint="take the control character out") from None
    except RecursionError:
        raise ConfigError(f"{label}: nested too deeply", hint="a site file has at most six levels") from None
    finally:
        if loader is not None:
            loader.dispose()
    return document


def _syntax(error: yaml.MarkedYAMLError, text: str, label: str) -> str:
    mark = error.problem_mark or error.context_mark
    reason = error.problem or error.context or "it cannot be read"
    where = label
    if mark is not None:
        where = f"{label}:{mark.line + 1}:{mark.column + 1}"
        lines = text.split("\n")
        if mark.line < len(lines) and "\t" in lines[mark.line][: mark.column + 1]:
            reason = "a tab is used for indentation; YAML takes spaces only"
    return f"{where}: not YAML: {reason}"


class _UnusableScalarError(Exception):
    """Why a scalar is not taken, in words."""


class _Walk:
    """One pass over the node tree. Aliases are expanded, with a bound on how much."""

    def __init__(self, loader: _Loader, document: Document, name: str) -> None:
        self.loader = loader
        self.name = name
        self.document = document
        self.seen = 0

    def complain(self, node: yaml.Node, text: str, key: Key | None = None) -> None:
        self.document.complaints.append(Complaint(node.start_mark.line + 1, text, key))

    def value(self, node: yaml.Node | None, key: Key) -> Value:
        if node is None:
            return None
        self.seen += 1
        if self.seen > MAX_NODES or len(key) > 50:
            raise ConfigError(
                f"{dotted(key[:6])}: the file unfolds to more than {MAX_NODES} values or 50 levels",
                hint="take the repeated aliases out",
            )
        self.document.marks.setdefault(key, Mark(node.start_mark.line + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*key, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)  # noqa: S101 - the composer makes three kinds of node
        return self._scalar(node, key)

    def _pairs(self, node: yaml.MappingNode, depth: int = 0) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
        """Own pairs, then those of `<<` merges (marked True), which lose against the own ones."""
        merges: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merges.extend(value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node])
            else:
                yield key_node, value_node, False
        for merged in merges:
            self.seen += 1
            if not isinstance(merged, yaml.MappingNode) or depth > 8 or self.seen > MAX_NODES:
                self.complain(merged, "a merge key (<<) takes a mapping")
                continue
            for key_node, value_node, _ in self._pairs(merged, depth + 1):
                yield key_node, value_node, True

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Value]:
        found: dict[str, Value] = {}
        lines: dict[str, int] = {}
        for key_node, value_node, merged in self._pairs(node):
            line = key_node.start_mark.line + 1
            name = self._key_name(key_node)
            if name is None:
                continue
            path = (*key, name)
            if name in found:
                if not merged:
                    text = f"{dotted(path)}: duplicate key; it is already on line {lines[name]}"
                    self.complain(key_node, text)
                continue
            lines[name] = line
            self.document.marks[path] = Mark(line)
            found[name] = self.value(value_node, path)
        return found

    def _key_name(self, node: yaml.Node) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            if node.tag == "tag:yaml.org,2002:str":
                return str(node.value)
            self.complain(node, f"expected a key that is text, got {cut(node.value)} (quote it)")
            return None
        self.complain(node, "expected a key that is text, got a list or a mapping")
        return None

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> Value:
        if node.style is None:
            self.document.marks[key] = Mark(self.document.marks[key].line, str(node.value))
        try:
            return self._read_scalar(node)
        except _UnusableScalarError as error:
            self.complain(node, f"{dotted(key) or self.name}: {error}", key)
            return None

    def _read_scalar(self, node: yaml.ScalarNode) -> Value:
        raw = str(node.value)
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in {"int", "float", "bool", "null", "str"}:
            raise _UnusableScalarError(f"tag {cut(node.tag)} is not used in a site file; take it out")
        if (kind == "int" and not _DECIMAL.fullmatch(raw)) or (kind == "float" and ":" in raw):
            raise _UnusableScalarError(
                f"{cut(raw)} is not a plain decimal number (YAML would read it in base 2, 8, 16 or 60); "
                "write decimal digits, or put quotes around text"
            )
        try:
            value: Value = self.loader.construct_object(node)
        except (ValueError, KeyError, OverflowError, yaml.YAMLError):
            raise _UnusableScalarError(f"{cut(raw)} is not a valid value of its tag; take the tag out") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise _UnusableScalarError(f"expected a finite number, got {cut(raw)}")
        if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            raise _UnusableScalarError("holds half of a surrogate pair; write the character itself")
        return value


def cut(text: str, limit: int = 60) -> str:
    """A text of the file as it stands there, shortened; control characters escaped."""
    shown = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def shorten(value: object, limit: int = 60) -> str:
    """A value as the operator could have written it, cut to `limit` characters."""
    if value is None:
        text = "nothing (null)"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, Mapping):
        text = "a mapping with the keys " + ", ".join(str(name) for name in value) if value else "an empty mapping"
    elif isinstance(value, list | tuple):
        text = f"a list of {len(value)}"
    else:
        text = repr(value)
    return cut(text, limit)
