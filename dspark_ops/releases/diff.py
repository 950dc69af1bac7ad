"""What differs between two releases, section by section. Pure; secrets are never shown, only that they differ."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops.config.models import ROLES, Role
from dspark_ops.releases.model import Release, hide_argv, hide_env

Section = Literal["image", "model", "argv", "env", "container", "cache", "site", "tool", "host"]
SECTIONS: tuple[Section, ...] = ("image", "model", "argv", "env", "container", "cache", "site", "tool", "host")
# Another one in every container.
_PER_CONTAINER = frozenset({"HOSTNAME"})
# Parts of a rank's document that are another section, or follow from the rest.
_TOLD_ELSEWHERE = frozenset({"command", "env", "image_id", "labels", "volumes"})
# Another one in every container.
_PER_CONTAINER = frozenset({"HOSTNAME"})
# Of a rank's document, what is neither argument, variable, image nor ours to change per release.
_CONTAINER_FIELDS = (
    "mounts",
    "volumes",
    "devices",
    "gpus",
    "shm_size_bytes",
    "ulimits",
    "cap_add",
    "network",
    "ipc",
)


class ReleaseChange(BaseModel):
    """One difference. role None: it concerns the pair. before, after None: absent there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    section: Section
    role: Role | None = None
    name: str
    before: str | None = None
    after: str | None = None

    def reversed(self) -> ReleaseChange:
        return self.model_copy(update={"before": self.after, "after": self.before})


class ReleaseDiff(BaseModel):
    """From release `a` to release `b`. An empty section is equal, byte for byte, in what was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/release-diff/v1"] = Field(default="dspark-ops/release-diff/v1", alias="schema")
    site: str
    a: str
    b: str
    changes: tuple[ReleaseChange, ...]


def diff(a: Release, b: Release) -> ReleaseDiff:
    """Every difference from `a` to `b`, in the order of SECTIONS; of equal sections there is no line."""
    changes = [
        *_fields("image", None, _image(a), _image(b)),
        *_seen_images(a, b),
        *_fields("model", None, a.model.model_dump(), b.model.model_dump()),
        *_ranks(a, b, _argv_changes),
        *_environments(a, b),
        *_ranks(a, b, _container_changes),
        *_fields("cache", None, a.cache.model_dump(), b.cache.model_dump()),
        *_fields("site", None, _site(a), _site(b)),
        *_fields("tool", None, {"version": a.tool_version}, {"version": b.tool_version}),
        *_hosts(a, b),
    ]
    return ReleaseDiff(site=a.site, a=a.id, b=b.id, changes=tuple(changes))


def render_diff(found: ReleaseDiff) -> str:
    """For people: one block a section, `-` is only in the first, `+` only in the second."""
    if not found.changes:
        return f"{found.a} and {found.b} are the same in all that is kept"
    lines = [f"--- {found.a}", f"+++ {found.b}"]
    for section in SECTIONS:
        here = [change for change in found.changes if change.section == section]
        if not here:
            continue
        lines.append(section)
        for change in here:
            where = f"{change.role:<6} " if change.role else ""
            separator = "" if section == "argv" else f"{change.name}="
            lines += [
                f"  {mark} {where}{separator}{value}"
                for mark, value in (("-", change.before), ("+", change.after))
                if value is not None
            ]
    equal = [section for section in SECTIONS if all(change.section != section for change in found.changes)]
    if equal:
        lines.append(f"equal: {', '.join(equal)}")
    return "\n".join(lines)


def _image(release: Release) -> dict[str, str]:
    return {"id": release.image.id, "reference": release.image.reference}


def _site(release: Release) -> dict[str, str]:
    return {"name": release.site, "profile": release.profile, "digest": release.site_digest}


def _fields(
    section: Section, role: Role | None, before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[ReleaseChange]:
    names = [*before, *(name for name in after if name not in before)]
    return [
        ReleaseChange(
            section=section, role=role, name=name, before=_text(before.get(name)), after=_text(after.get(name))
        )
        for name in names
        if before.get(name) != after.get(name)
    ]


def _seen_images(a: Release, b: Release) -> list[ReleaseChange]:
    """The image that a rank was seen to run, where that was not the one asked for."""
    found: list[ReleaseChange] = []
    for role in ROLES:
        odd = [r.image.per_rank.get(role) for r in (a, b)]
        before, after = (None if seen == r.image.id else seen for seen, r in zip(odd, (a, b), strict=True))
        found += _fields("image", role, {"running": before}, {"running": after})
    return found


def _hosts(a: Release, b: Release) -> list[ReleaseChange]:
    found: list[ReleaseChange] = []
    for role in ROLES:
        before, after = (r.hosts.get(role) for r in (a, b))
        found += _fields("host", role, before.model_dump() if before else {}, after.model_dump() if after else {})
    return found


def _ranks(
    a: Release, b: Release, changes: Callable[[Role, Mapping[str, Any], Mapping[str, Any]], list[ReleaseChange]]
) -> list[ReleaseChange]:
    found: list[ReleaseChange] = []
    for role in ROLES:
        found += changes(role, a.documents.get(role, {}), b.documents.get(role, {}))
    return found


def _argv_changes(role: Role, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[ReleaseChange]:
    """Words that left and words that came: the order of arguments is part of them, so one that moved did both."""
    old, new = (tuple(str(word) for word in document.get("command", ())) for document in (before, after))
    # A matcher prefers one of two equal ways by the order of its inputs: the same pair is always asked the same way.
    swapped = new < old
    first, second = (new, old) if swapped else (old, new)
    found: list[ReleaseChange] = []
    matcher = difflib.SequenceMatcher(a=first, b=second, autojunk=False)
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind != "equal":
            found += _paired(role, hide_argv(first)[i1:i2], hide_argv(second)[j1:j2])
    return [change.reversed() for change in found] if swapped else found


def _paired(role: Role, left: Sequence[str], right: Sequence[str]) -> list[ReleaseChange]:
    """The words of one place; two of the same option are one change."""
    rest = list(right)
    found: list[ReleaseChange] = []
    for word in left:
        name = word.partition("=")[0]
        twin = next((w for w in rest if name.startswith("--") and w.partition("=")[0] == name), None)
        if twin is not None:
            rest.remove(twin)
        found.append(ReleaseChange(section="argv", role=role, name=name, before=word, after=twin))
    found += [ReleaseChange(section="argv", role=role, name=w.partition("=")[0], after=w) for w in rest]
    return found


def _environments(a: Release, b: Release) -> list[ReleaseChange]:
    """What was asked for; where both were read back, also what each image gives by itself."""
    found: list[ReleaseChange] = []
    for role in ROLES:
        seen = [r.effective.get(role) for r in (a, b)]
        whole = all(rank is not None for rank in seen)
        old, new = (
            {
                **({k: v for k, v in rank.env.items() if k not in _PER_CONTAINER} if whole and rank else {}),
                **{str(k): str(v) for k, v in release.documents.get(role, {}).get("env", {}).items()},
            }
            for release, rank in zip((a, b), seen, strict=True)
        )
        names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        shown_old, shown_new = hide_env(old), hide_env(new)
        found += [
            ReleaseChange(section="env", role=role, name=n, before=shown_old.get(n), after=shown_new.get(n))
            for n in names
        ]
    return found


def _container_changes(role: Role, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[ReleaseChange]:
    return _fields(
        "container",
        role,
        {name: value for name, value in before.items() if name not in _TOLD_ELSEWHERE},
        {name: value for name, value in after.items() if name not in _TOLD_ELSEWHERE},
    )


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
