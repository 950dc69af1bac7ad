"""The releases of a site as they are kept on the control host: one file an id, its owner's alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.paths import state_dir
from dspark_ops.releases.model import Release, ReleaseStatus, StartOfRelease
from dspark_ops.report.models import now
from dspark_ops.whole_file import replace_file

# Starts of one id that are remembered beside the last one.
_EARLIER = 20


@dataclass(frozen=True)
class Unreadable:
    """A file that should be a release and is not; the others are not harmed by it."""

    path: Path
    why: str


@dataclass(frozen=True)
class Kept:
    """All releases of a site, the last started first, and the files that could not be read."""

    releases: tuple[Release, ...]
    unreadable: tuple[Unreadable, ...] = ()


def releases_dir(site: str) -> Path:
    """Where a site's releases are kept. Not created here."""
    return state_dir() / "releases" / site


def save(release: Release) -> Path:
    """Keep a release, atomically, mode 0600. Another start of an id that is known goes before the known ones.

    Raises:
        NoVerdictError: the state directory cannot be written.
    """
    folder = releases_dir(release.site)
    path = folder / f"{release.id}.json"
    merged = _merge(release, _known(path))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(path, merged.to_json() + "\n")
    except OSError as error:
        raise NoVerdictError(
            f"the release {release.id} cannot be kept in {folder}: {error.strerror or error}",
            hint="make the directory writable, or set XDG_STATE_HOME",
        ) from error
    return path


def mark(site: str, release_id: str, status: ReleaseStatus, reason: str | None = None) -> Release | None:
    """Give the last start of a kept release another status, as `rolled-back`; None: there is no readable record.

    Raises:
        NoVerdictError: the state directory cannot be written.
    """
    return _change(site, release_id, {"status": status, "reason": reason, "ended_at": now()})


def ended(site: str, release_id: str) -> Release | None:
    """Say that the last start of a kept release ended now, as by `stop`; it still is one that served.

    Raises:
        NoVerdictError: the state directory cannot be written.
    """
    return _change(site, release_id, {"ended_at": now()})


def load(site: str, release_id: str) -> Release | None:
    """A release by its whole id; None when there is none or its file cannot be read (`all_of` says why)."""
    return _known(releases_dir(site) / f"{release_id}.json")


def all_of(site: str) -> Kept:
    """Every kept release, the last started first; unreadable files are named, not fatal."""
    found: list[Release] = []
    broken: list[Unreadable] = []
    try:
        paths = sorted(p for p in releases_dir(site).iterdir() if p.suffix == ".json" and p.name.startswith("r-"))
    except FileNotFoundError:
        paths = []
    except OSError as error:
        return Kept((), (Unreadable(releases_dir(site), error.strerror or str(error)),))
    for path in paths:
        read = _read(path, site)
        if isinstance(read, Release):
            found.append(read)
        else:
            broken.append(read)
    found.sort(key=lambda release: (release.start.started_at, release.id), reverse=True)
    return Kept(tuple(found), tuple(broken))


def current(site: str) -> Release | None:
    """The release that was the last to serve and was not undone since; None: there is none.

    What runs now is for the nodes to say: this is what the control host remembers.
    """
    return current_of(all_of(site).releases)


def previous(site: str, before: str | None = None) -> Release | None:
    """The release that served before `before` (None: before the current one) and was not undone; None: there is none.

    `before` may be an id that never served, or is not kept: then it is the last other one that served.
    """
    return previous_of(all_of(site).releases, before)


def current_of(releases: tuple[Release, ...]) -> Release | None:
    """Of these, the last to serve that was not undone."""
    served = [(at, release.id, release) for release in releases if (at := release.served_at) is not None]
    return max(served, key=lambda item: item[:2])[2] if served else None


def previous_of(releases: tuple[Release, ...], before: str | None = None) -> Release | None:
    """Of these, the one to which a rollback from `before` leads."""
    reference = next((r for r in releases if r.id == before), None) if before else current_of(releases)
    if before is None and reference is None:
        return None
    limit = reference.served_at if reference is not None else None
    identity = reference.id if reference is not None else before
    candidates = []
    for release in releases:
        if release.id == identity or release.served_at is None:
            continue
        times = [s.ready_at or s.started_at for s in release.starts if s.status == "served"]
        times = [at for at in times if limit is None or at <= limit]
        if times:
            candidates.append((max(times), release.id, release))
    return max(candidates, key=lambda item: item[:2])[2] if candidates else None


def match(site: str, prefix: str) -> Release:
    """The one release whose id begins so, with or without the leading `r-`.

    Raises:
        ConfigError: none or several do, or the one that does cannot be read; the message names what there is.
    """
    kept = all_of(site)
    wanted = prefix if prefix.startswith("r-") else f"r-{prefix}"
    exact = [release for release in kept.releases if release.id == wanted]
    found = exact or [release for release in kept.releases if release.id.startswith(wanted) and prefix]
    broken = [item for item in kept.unreadable if item.path.name.startswith(wanted)]
    if len(found) == 1 and (exact or not broken):
        return found[0]
    if len(found) + len(broken) > 1:
        names = ", ".join(sorted([*(r.id for r in found), *(item.path.stem for item in broken)]))
        raise ConfigError(
            f"release {prefix!r} of site {site}: expected one, {names} begin so", hint="give more of the id"
        )
    if broken:
        raise ConfigError(f"{broken[0].path}: not a readable release: {broken[0].why}", hint="remove the file")
    known = ", ".join(release.id for release in kept.releases[:8]) or "none is kept"
    raise ConfigError(
        f"release {prefix!r} of site {site}: there is none that begins so; known: {known}", hint="`dspark-ops releases`"
    )


def _merge(release: Release, known: Release | None) -> Release:
    """The release with the starts that are known of its id, each epoch once."""
    earlier: list[StartOfRelease] = []
    for start in [*release.earlier, *(known.starts if known is not None else ())]:
        if start.epoch not in {release.start.epoch, *(s.epoch for s in earlier)}:
            earlier.append(start)
    earlier.sort(key=lambda start: start.started_at, reverse=True)
    return release.model_copy(update={"earlier": tuple(earlier[:_EARLIER])})


def _change(site: str, release_id: str, update: dict[str, object]) -> Release | None:
    release = load(site, release_id)
    if release is None:
        return None
    changed = release.model_copy(update={"start": release.start.model_copy(update=update)})
    save(changed)
    return changed


def _known(path: Path) -> Release | None:
    if not path.is_file():
        return None
    read = _read(path, path.parent.name)
    return read if isinstance(read, Release) else None


def _read(path: Path, site: str) -> Release | Unreadable:
    try:
        release = Release.model_validate_json(path.read_bytes())
    except OSError as error:
        return Unreadable(path, error.strerror or str(error))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return Unreadable(path, f"{where}: {first['msg']}" if where else str(first["msg"]))
    if path.stem != release.id or release.site != site:
        return Unreadable(path, f"it says it is {release.id} of site {release.site}")
    return release
