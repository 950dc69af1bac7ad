"""From files, environment and command line to one checked Site whose every key knows where it came from.

Layers, later ones win: model defaults, the profile's `site`, the site file, what it says below `profiles` for the
profile in use, the environment (`DSPARK__SERVE__API_PORT=8001`), `--set serve.api_port=8001`. Lists are replaced as a
whole, sections are merged. `--profile NAME` wins over every `profile`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dspark_ops.config.invariants import Problem, check_site
from dspark_ops.config.layers import Layer, Origin, Source, Stack, paths
from dspark_ops.config.models import Profile, Site
from dspark_ops.config.profile_entries import entry_complaints, entry_names, keys_laid, lay_entry, left_behind
from dspark_ops.config.wording import schema_sentence
from dspark_ops.config.yaml_source import Document, Key, Mark, parse, read_text, shorten
from dspark_ops.errors import ConfigError
from dspark_ops.paths import data_dir

ENVIRONMENT_PREFIX = "DSPARK__"
_PATH_KEYS: tuple[Key, ...] = (
    ("ssh", "config"),
    ("image", "archive"),
    ("gate", "command", 0),
    ("monitoring", "webhook_file"),
    ("monitoring", "dead_man_file"),
    ("monitoring", "email", "password_file"),
    ("gateway", "certificate"),
    ("gateway", "certificate_key"),
    ("gateway", "clients"),
    ("gateway", "cloud", "key_file"),
)
_PROFILE_NAME = re.compile(r"[a-z0-9-]{1,64}")
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class LoadedSite:
    """A checked Site with its Profile.

    provenance: one entry per leaf key in dotted form (`fabric.rails.0.name`). notes: allowed, but worth saying.
    """

    site: Site
    profile: Profile
    path: Path
    provenance: Mapping[str, Source]
    notes: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class _Given:
    """What the operator said: the file, the environment, `--set` and `--profile`."""

    path: Path
    document: Document
    environ: Mapping[str, str]
    overrides: Sequence[str]
    profile: str | None

    def lay(self, stack: Stack, *, entry: tuple[Stack, str] | None = None) -> Stack:
        """Lay all of it. entry: the top stack and the profile whose part of `profiles` goes over the file."""
        stack.lay(self.document.data, _file_origin(self.document, self.path, "file"))
        if entry is not None:
            lay_entry(stack, *entry)
        _lay_overrides(stack, self.environ, self.overrides)
        if self.profile is not None:
            stack.put(("profile",), self.profile, Origin(Source("command line", "--profile"), "--profile", Mark(0)))
        return stack


def load_site(
    path: Path,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> LoadedSite:
    """The site at `path` under its profile, checked whole. Raises ConfigError naming every problem at once.

    profile: the one to use instead of the site's own, as `--profile` gives it.
    """
    document = _read_mapping(path, "a site file (site.yml)")
    given = _Given(path, document, environ, overrides, profile)
    top = given.lay(Stack())
    chosen = top.at(("profile",))
    stack, found = Stack(), None
    if isinstance(chosen, str):
        origin = top.nearest(("profile",))
        found, profile_document, profile_path = _read_profile(chosen, origin.where if origin else str(path))
        stack.lay(profile_document.data["site"], _profile_origin(profile_document, profile_path))
    given.lay(stack, entry=(top, chosen) if isinstance(chosen, str) else None)
    _resolve_paths(stack, path)
    spoilt = {item.key for item in document.complaints if item.key is not None}
    site, complaints = _validate(Site, stack, str(path), spoilt=spoilt | keys_laid(spoilt, chosen))
    complaints += entry_complaints(top, profile_names())
    for name in entry_names(top, profile_names()):
        if name != chosen:
            complaints += _trial(given, top, name, spoilt)
    early = [f"{path}:{item.line}: {item.text}" for item in document.complaints]
    if early or complaints or site is None or found is None:
        raise _config_error(path, _unique([*early, *complaints]))
    problems = (*check_site(site, found), *left_behind(stack))
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        raise _config_error(path, _unique(_located(problem, stack, path) for problem in errors))
    notes = tuple(
        replace(problem, where=_where(problem, stack, path)) for problem in problems if problem.level == "note"
    )
    return LoadedSite(site, found, path, _provenance(site, stack), notes)


def _trial(given: _Given, top: Stack, name: str, spoilt: Collection[Key]) -> list[str]:
    """What is wrong with the shape of a profile's entry that is not in use: the site as if it were, that part alone."""
    _, document, path = _read_profile(name, str(given.path))
    stack = Stack()
    stack.lay(document.data["site"], _profile_origin(document, path))
    given.lay(stack, entry=(top, name))
    return _validate(Site, stack, str(given.path), spoilt=keys_laid(spoilt, name), part=name)[1]


def load_profile(name: str) -> Profile:
    """The profile `name` of this installation. ConfigError names the nearest one when there is none."""
    return _read_profile(name, "profile")[0]


def profile_names() -> tuple[str, ...]:
    """The profiles that this installation carries."""
    return tuple(sorted(path.stem for path in (data_dir("images") / "profiles").glob("*.yml")))


def _read_mapping(path: Path, what: str) -> Document:
    document = parse(read_text(path, what), str(path))
    if document.data is None and not document.complaints:
        raise ConfigError(
            f"{path}: holds only comments, expected {what}", hint="compare with inventories/example/site.yml"
        )
    if not isinstance(document.data, dict):
        raise ConfigError(
            f"{path}:{document.marks[()].line}: expected {what}, a mapping of `key: value` lines at the top, "
            f"got {shorten(document.data)}",
            hint="compare with inventories/example/site.yml",
        )
    return document


def _read_profile(name: str, where: str) -> tuple[Profile, Document, Path]:
    known = profile_names()
    if not _PROFILE_NAME.fullmatch(name) or name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        nearest = f"did you mean {close[0]}?" if close else "expected one of " + ", ".join(known)
        raise ConfigError(
            f"{where}: profile: unknown profile {shorten(name)}; {nearest}", hint="set `profile` to a known one"
        )
    path = data_dir("images") / "profiles" / f"{name}.yml"
    document = _read_mapping(path, "a profile")
    stack = Stack()
    stack.lay(document.data, _file_origin(document, path, "profile"))
    profile, complaints = _validate(Profile, stack, str(path))
    complaints = [f"{path}:{item.line}: {item.text}" for item in document.complaints] + complaints
    if complaints or profile is None:
        raise _config_error(path, complaints)
    return profile, document, path


def _file_origin(document: Document, path: Path, layer: Layer, *, below: Key = ()) -> Any:
    def origin_of(key: Key) -> Origin:
        mark = document.marks.get((*below, *key), Mark(1))
        return Origin(Source(layer, f"{path.name}:{mark.line}"), f"{path}:{mark.line}", mark)

    return origin_of


def _profile_origin(document: Document, path: Path) -> Any:
    return _file_origin(document, path, "profile", below=("site",))


def _lay_overrides(stack: Stack, environ: Mapping[str, str], overrides: Iterable[str]) -> None:
    """The environment by depth and name, then `--set` in the order given."""
    variables = sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX))
    for name in sorted(variables, key=lambda item: item.count("__")):
        parts = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        _put_text(stack, parts, environ[name], Source("environment", name), f"environment variable {name}")
    for override in overrides:
        dotted_key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {shorten(override)}: expected KEY=VALUE", hint="as in --set serve.api_port=8001")
        source = Source("command line", f"--set {dotted_key}")
        _put_text(stack, dotted_key.strip().split("."), text, source, f"--set {dotted_key}")


def _put_text(stack: Stack, parts: Sequence[str], text: str, source: Source, label: str) -> None:
    if not all(parts):
        raise ConfigError(f"{label}: expected a dotted key, as serve.api_port")
    if not text.strip():
        raise ConfigError(f"{label}: the value is empty", hint="leave it out to keep the value below, or write null")
    try:
        document = parse(text, label, name=".".join(parts))
    except ConfigError as error:
        raise ConfigError(f"{label}: {shorten(text)} is not a YAML value", hint=error.hint) from None
    if document.complaints:
        raise ConfigError(f"{label}: {document.complaints[0].text}")
    key: Key = tuple(int(part) if part.isascii() and part.isdigit() and len(part) < 4 else part for part in parts)
    top_mark = document.marks.get((), Mark(1))
    stack.put(key, document.data, Origin(source, label, Mark(0, top_mark.raw)))


def _resolve_paths(stack: Stack, site_path: Path) -> None:
    """`~` and relative paths made absolute: against the site file's directory, or the working one for overrides."""
    for key in _PATH_KEYS:
        value, origin = stack.at(key), stack.nearest(key)
        if not isinstance(value, str) or not value or origin is None:
            continue
        base = site_path.parent if origin.source.layer in {"file", "profile"} else Path()
        try:
            resolved = os.path.abspath(base / Path(value).expanduser())  # noqa: PTH100 - keeps links as written
        except (RuntimeError, ValueError):
            continue
        stack.at(key[:-1])[key[-1]] = resolved


def _validate(
    model: type[_Model], stack: Stack, label: str, *, spoilt: Collection[Key] = (), part: str | None = None
) -> tuple[_Model | None, list[str]]:
    """The model, or what is wrong with it as located sentences in the order of the file.

    spoilt: keys that the YAML reader has complained about already. part: only what that part of `profiles` has caused.
    """
    try:
        return model.model_validate_json(json.dumps(stack.data), strict=True), []
    except ValidationError as error:
        found: list[tuple[int, str]] = []
        for entry in error.errors(include_url=False, include_input=False):
            key = tuple(entry["loc"])
            if key in spoilt:
                continue
            origin = stack.nearest(key)
            if part is not None and (origin is None or origin.entry != part):
                continue
            exact = stack.origins.get(key)
            where = origin.where if origin is not None else label
            sentence = schema_sentence(model, entry, stack.at(key), exact.mark if exact is not None else None)
            line = origin.mark.line if origin is not None and origin.mark is not None else 0
            found.append((line, f"{where}: {sentence}"))
        return None, [sentence for _, sentence in sorted(found, key=lambda item: item[0])]


def _where(problem: Problem, stack: Stack, path: Path) -> str:
    key: Key = tuple(int(part) if part.isdigit() else part for part in problem.key.split("."))
    origin = stack.nearest(key)
    return origin.where if origin is not None else str(path)


def _located(problem: Problem, stack: Stack, path: Path) -> str:
    return f"{_where(problem, stack, path)}: {problem.key}: {problem.message} [{problem.id}]"


def _unique(sentences: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(sentences))


def _config_error(path: Path, sentences: Sequence[str]) -> ConfigError:
    hint = f"correct {path.name} and run `dspark-ops validate` again; `--show` prints where each value comes from"
    if len(sentences) == 1:
        return ConfigError(sentences[0], hint=hint)
    listed = "\n".join(f"  {sentence}" for sentence in sentences)
    return ConfigError(f"{path}: {len(sentences)} problems\n{listed}", hint=hint)


def _provenance(site: Site, stack: Stack) -> dict[str, Source]:
    found: dict[str, Source] = {}
    document = site.model_dump(mode="json")
    for key in paths(document, ()):
        value: Any = document
        for part in key:
            value = value[part]
        if isinstance(value, dict | list):
            continue
        origin = stack.origins.get(key)
        found[".".join(str(part) for part in key)] = origin.source if origin else Source("default", "built in")
    return found
