"""The last reports, kept where the operator's state lives, so that "what did it do?" has an answer later."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from dspark_ops.errors import NoVerdictError
from dspark_ops.paths import state_dir
from dspark_ops.report.models import Report

KEEP = 20


def reports_dir() -> Path:
    """Where reports are kept. Not created here."""
    return state_dir() / "reports"


def save(report: Report, *, keep: int = KEEP) -> Path:
    """Write the report atomically and drop all but the newest `keep` of its verb.

    What runs on a timer does not push out what another verb has done; two verbs at the same time do not disturb it.

    Raises:
        NoVerdictError: the state directory cannot be written.
    """
    folder = reports_dir()
    stamp = report.started_at.strftime("%Y%m%dT%H%M%S.%f")[:-3]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _free_name(folder, f"{stamp}Z-{report.verb.replace(' ', '-')}")
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".report-")
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(report.to_json() + "\n")
        Path(temporary).replace(path)
    except OSError as error:
        raise NoVerdictError(
            f"the report cannot be kept in {folder}: {error.strerror or error}",
            hint="make the directory writable, or set XDG_STATE_HOME",
        ) from error
    own = [path for path in newest_first(folder) if _verb_part(path) == report.verb.replace(" ", "-")]
    for old in own[keep:]:
        with contextlib.suppress(OSError):
            old.unlink()
    return path


def recent(verb: str | None = None) -> Iterator[Report]:
    """The kept reports, newest first; a file that cannot be parsed is passed over."""
    for path in newest_first(reports_dir()):
        try:
            report = Report.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            continue
        if verb is None or report.verb == verb:
            yield report


def last_phase_seconds(verb: str) -> dict[str, float]:
    """How long each phase took the last time it was done by this verb, by phase name."""
    seconds: dict[str, float] = {}
    for report in recent(verb):
        for phase in report.phases:
            if phase.status == "done":
                seconds.setdefault(phase.name, phase.elapsed_s)
    return seconds


def _free_name(folder: Path, stem: str) -> Path:
    for number in range(1000):
        path = folder / (f"{stem}.json" if number == 0 else f"{stem}-{number}.json")
        if not path.exists():
            return path
    return folder / f"{stem}-{os.getpid()}.json"


def _verb_part(path: Path) -> str | None:
    """The verb in a report's file name, which ends with a number where the moment was taken."""
    named = re.fullmatch(r"[^-]+-(.+?)(-[0-9]+)?", path.stem)
    return named.group(1) if named else None


def newest_first(folder: Path) -> list[Path]:
    """The kept reports by the time they began; of one millisecond the one that was kept later comes first."""
    try:
        return sorted((p for p in folder.iterdir() if p.suffix == ".json"), key=_place, reverse=True)
    except OSError:
        return []


def _place(path: Path) -> tuple[str, int]:
    stem, _, number = path.stem.rpartition("-")
    return (stem, int(number)) if number.isdecimal() else (path.stem, 0)
