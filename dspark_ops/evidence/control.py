"""What the control host itself knows: site file, last reports, a run that did not end, releases, versions."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from dspark_ops import __version__
from dspark_ops.deploy import run_journal
from dspark_ops.errors import DsparkError
from dspark_ops.releases.store import all_of
from dspark_ops.releases.view import list_releases
from dspark_ops.report.models import now
from dspark_ops.report.store import newest_first, reports_dir

REPORTS = 10
_LIMIT_BYTES = 1 << 20
_PACKAGES = ("ansible-core", "docker", "jinja2", "paramiko", "pydantic", "pyyaml", "typer")


def versions() -> dict[str, str]:
    """Of this tool and of what it runs on; a package that is not installed is said to be absent."""
    found = {"dspark-ops": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def site_text(path: Path) -> tuple[str | None, str | None]:
    """The site file as it is written, or why it cannot be read."""
    return _read(path)


def kept_of(site: str) -> Iterator[tuple[str, str | None, str | None]]:
    """(name, text, problem) of what the state directory holds of a site: the last reports, the open run, releases.

    Of the reports the last ones, and the last of each verb: a doctor on a timer does not push out what a deploy said.
    """
    verbs: set[str] = set()
    count = 0
    for path in newest_first(reports_dir()):
        text, problem = _read(path)
        of_site, verb = _told_by(text)
        if (of_site or site) != site or (count >= REPORTS and verb in verbs):
            continue
        count += 1
        if of_site == site:
            verbs.add(verb)
        yield f"reports/{path.name}", text, problem
    open_run = run_journal.path_of(site)
    if open_run.exists():
        text, problem = _read(open_run)
        yield f"open-run/{open_run.name}", text, problem
    try:
        listed = list_releases(site, all_of(site), now())
    except DsparkError as error:
        yield "releases.json", None, error.message
    else:
        if listed.releases or listed.unreadable:
            yield "releases.json", listed.model_dump_json(indent=1, by_alias=True) + "\n", None


def _told_by(text: str | None) -> tuple[str | None, str]:
    """The site and the verb of a report; None and nothing where it does not say."""
    try:
        document = json.loads(text or "")
    except (ValueError, RecursionError):
        document = None
    site, verb = (document.get("site"), document.get("verb")) if isinstance(document, dict) else (None, None)
    return site if isinstance(site, str) else None, verb if isinstance(verb, str) else ""


def _read(path: Path) -> tuple[str | None, str | None]:
    try:
        with path.open("rb") as handle:
            content = handle.read(_LIMIT_BYTES + 1)
    except OSError as error:
        return None, f"{path.name} cannot be read: {error.strerror or error}"
    if len(content) > _LIMIT_BYTES:
        return None, f"{path.name} is larger than {_LIMIT_BYTES >> 20} MiB and left out"
    return content.decode("utf-8", "replace"), None
