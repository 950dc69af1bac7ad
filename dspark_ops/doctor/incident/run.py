"""`doctor --incident`: read both nodes once, or what was kept of them, and name the first cause. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dspark_ops.config.load import load_site
from dspark_ops.doctor.incident.gather import WINDOW_S, case_of, case_of_folder, probes
from dspark_ops.doctor.incident.model import IncidentReport
from dspark_ops.doctor.incident.report import report_on
from dspark_ops.errors import ConfigError
from dspark_ops.report.models import now
from dspark_ops.transport.ssh import read_pair

_DURATION = re.compile(r"(\d{1,7})(s|m|h|d)$")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIMEOUT_S = 90.0
#: A node counts back from its own now, which comes later than this one by what the login takes; so much more is read.
_LATER_S = 60.0
#: Neither journalctl nor Docker knows an earlier time, and neither reads anything where it is asked for one.
_BEGIN = datetime(1970, 1, 2, tzinfo=UTC)


def parse_since(text: str, moment: datetime) -> datetime:
    """`90m`, `2h`, `1d`; or a time as 2026-11-27T10:00, of this machine's zone unless it names one; or 10:30. Never
    before the second day of 1970.

    Raises:
        ConfigError: it is none of these, or lies in the future.
    """
    told = _DURATION.match(text.strip())
    hint = "as 90m, 2h, 1d, 10:30 or 2026-11-27T10:30"
    try:
        if told is not None:
            return max(moment - timedelta(seconds=int(told[1]) * _UNITS[told[2]]), _BEGIN)
        if re.fullmatch(r"\d{1,2}:\d{2}", text.strip()):
            hour, minute = (int(part) for part in text.strip().split(":"))
            # Without a zone until the day is known: yesterday's may have been another one than today's.
            today = moment.astimezone().replace(tzinfo=None, hour=hour, minute=minute, second=0, microsecond=0)
            found = today.astimezone() if today.astimezone() <= moment else (today - timedelta(days=1)).astimezone()
        else:
            found = datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"--since {text!r} is neither a duration nor a time", hint=hint) from error
    if found > moment:
        raise ConfigError(f"--since {text} lies in the future", hint=hint)
    return max(found.astimezone(UTC), _BEGIN)


def incident(site: Path, overrides: Sequence[str] = (), *, since: str | None = None) -> IncidentReport:
    """Read both nodes of a site and judge. A node that is not reached is told in the report.

    Raises:
        ConfigError: the site or the time is wrong; nothing was contacted.
    """
    loaded = load_site(site, overrides=overrides)
    moment = now()
    begin = None if since is None else parse_since(since, moment)
    ago_s = None if begin is None else min((moment - begin).total_seconds() + _LATER_S, moment.timestamp())
    readings = read_pair(loaded.site, probes(ago_s), timeout_s=_TIMEOUT_S)
    window = moment - timedelta(seconds=WINDOW_S) if begin is None else begin
    since_s = None if begin is None else begin.timestamp()
    case = case_of(readings, window.timestamp(), engine_begin_s=since_s, wide=begin is None)
    return report_on(case, loaded, taken_at=moment, since=begin)


def incident_of(folder: Path, *, since: str | None = None) -> IncidentReport:
    """Judge what was kept: a recording of the doctor, or a folder with the logs of both ranks. A recording's own time
    is the one that `since` counts back from.

    Raises:
        ConfigError: the folder is neither, or it is damaged.
    """
    if (folder / "recording.json").is_file():
        from dspark_ops.doctor.recording.reading import load

        kept = load(folder)
        moment, case, loaded = kept.manifest.recorded_at, case_of(kept.readings), kept.loaded
    else:
        moment, case, loaded = now(), case_of_folder(folder), None
    begin = None if since is None else parse_since(since, moment)
    return report_on(case, loaded, taken_at=moment, since=begin, replayed_from=str(folder))
