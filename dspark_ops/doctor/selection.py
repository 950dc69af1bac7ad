"""Which checks run: `--only` and `--skip` with ids or globs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from dspark_ops.doctor.catalogue import Check
from dspark_ops.errors import ConfigError


def select(
    catalogue: Mapping[str, Check], only: Sequence[str] = (), skip: Sequence[str] = (), *, active: bool = False
) -> tuple[Check, ...]:
    """The checks to run, in the catalogue's order. Naming an active check without `active` is an error, not a no-op.

    Raises:
        ConfigError: a pattern matches no check, or nothing is left to run.
    """
    wanted = expand(catalogue, only) if only else set(catalogue)
    unwanted = expand(catalogue, skip)
    chosen = tuple(
        check for check in catalogue.values() if check.id in wanted - unwanted and (active or not check.active)
    )
    if not chosen:
        idle = sorted(identity for identity in wanted - unwanted if catalogue[identity].active)
        if idle:
            raise ConfigError(f"{', '.join(idle)} makes traffic and was not asked for", hint="add --active")
        raise ConfigError("--only and --skip leave no check to run", hint="see --list-checks")
    return chosen


def expand(catalogue: Mapping[str, Check], patterns: Iterable[str]) -> set[str]:
    """The ids that the patterns match.

    Raises:
        ConfigError: naming the pattern that matches none, and what is near to it.
    """
    matched: set[str] = set()
    for pattern in patterns:
        hits = {identity for identity in catalogue if fnmatchcase(identity, pattern)}
        if not hits:
            near = get_close_matches(pattern, catalogue, n=3, cutoff=0.5)
            near += [i for i in catalogue if pattern.strip("*") and pattern.strip("*") in i and i not in near][:3]
            hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(catalogue)}"
            raise ConfigError(f"no check matches {pattern!r}", hint=hint)
        matched |= hits
    return matched
