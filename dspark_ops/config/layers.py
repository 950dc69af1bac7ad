"""Laying one source of values over another while every key path keeps its origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dspark_ops.config.models import Site
from dspark_ops.config.wording import is_optional, section_at
from dspark_ops.config.yaml_source import Key, Mark, dotted
from dspark_ops.errors import ConfigError

Layer = Literal["default", "profile", "file", "environment", "command line"]


@dataclass(frozen=True)
class Source:
    """Where a value came from. detail: `site.yml:12`, the variable's name, or the option as given."""

    layer: Layer
    detail: str


@dataclass(frozen=True)
class Origin:
    """A Source with what a message needs: where (`inventories/a/site.yml:12`) and the mark of the value.

    entry: the profile below whose name in `profiles` it stands, None for everything else.
    """

    source: Source
    where: str
    mark: Mark | None
    entry: str | None = None


OriginOf = Callable[[Key], Origin]


@dataclass
class Stack:
    """The merged values and the origin of every key path in them."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, Origin] = field(default_factory=dict)

    def lay(self, values: Mapping[str, Any], origin_of: OriginOf) -> None:
        """Lay a whole document over what is there: sections merge, everything else is replaced."""
        self._lay(self.data, values, origin_of, ())

    def _lay(self, target: dict[str, Any], values: Mapping[str, Any], origin_of: OriginOf, at: Key) -> None:
        for name, value in values.items():
            key = (*at, name)
            self.origins[key] = origin_of(key)
            if value is None and _is_emptied(key):
                target.setdefault(name, {})  # `guards:` with every line below it commented out
            elif isinstance(value, Mapping) and isinstance(target.setdefault(name, {}), dict):
                self._lay(target[name], value, origin_of, key)
            else:
                target[name] = value
                self._replace_origins(key, value, origin_of)

    def put(self, key: Key, value: Any, origin: Origin) -> None:
        """Set one key, through lists by index. ConfigError when the path leads through something else."""
        parent: Any = self.data
        for depth, part in enumerate(key):
            if not _can_hold(parent, part):
                kind = f"a list of {len(parent)}" if isinstance(parent, list) else "not a section"
                holder = dotted(key[:depth]) or "the site"
                raise ConfigError(f"{origin.where}: {dotted(key)}: there is no such key; {holder} is {kind}")
            if depth == len(key) - 1:
                parent[part] = value
            else:
                if isinstance(parent, dict) and parent.get(part) is None:
                    parent[part] = {}
                parent = parent[part]
        self._replace_origins(key, value, lambda _key: origin)

    def _replace_origins(self, key: Key, value: Any, origin_of: OriginOf) -> None:
        for old in [old for old in self.origins if old[: len(key)] == key]:
            del self.origins[old]
        for inner in paths(value, key):
            self.origins[inner] = origin_of(inner)

    def nearest(self, key: Key) -> Origin | None:
        """The origin of the key, or of the nearest section above it; None when nothing of it was given."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.origins:
                return self.origins[key[:length]]
        return None

    def at(self, key: Key) -> Any:
        """The merged value at a key path, None when the path does not exist."""
        current: Any = self.data
        for part in key:
            if not _can_hold(current, part) or (isinstance(current, dict) and part not in current):
                return None
            current = current[part]
        return current


def _is_emptied(key: Key) -> bool:
    """Whether null means an empty section here; where a section may be absent, null means absent."""
    if key[0] == "profiles":
        return len(key) <= 2  # profiles, and each profile below it
    return section_at(Site, key) is not None and not is_optional(Site, key)


def _can_hold(parent: Any, part: str | int) -> bool:
    if isinstance(part, str):
        return isinstance(parent, dict)
    return isinstance(parent, list) and part < len(parent)


def paths(value: Any, at: Key) -> Iterator[Key]:
    """Every key path of a value, its own first."""
    yield at
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from paths(inner, (*at, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*at, index))
