"""Reads what the control host remembers of a site. Local files only; nothing is changed."""

from __future__ import annotations

import re
import stat

from dspark_ops.config.load import LoadedSite
from dspark_ops.deploy.run_journal import read_open
from dspark_ops.errors import NoVerdictError
from dspark_ops.facts.control import ControlFacts, OpenRunFacts, WayBackFacts
from dspark_ops.releases.store import all_of, previous_of

_SECRET = re.compile(r"token|secret|password|passwd|api_?key|credential", re.IGNORECASE)


def read_control(loaded: LoadedSite) -> ControlFacts:
    """The records of a site. Never raises: what cannot be read is None or not known."""
    name, known, run = loaded.site.name, True, None
    try:
        run = read_open(name)
    except NoVerdictError:
        known = False
    kept = all_of(name)
    back = previous_of(kept.releases)
    try:
        mode = stat.S_IMODE(loaded.path.stat().st_mode)
    except OSError:
        mode = None
    return ControlFacts(
        open_run=None if run is None else OpenRunFacts(verb=run.verb, release=run.release, began_at=run.began_at),
        open_run_known=known,
        way_back=None if back is None else WayBackFacts(release=back.id, image_id=back.image.id),
        unreadable=tuple(item.path.name for item in kept.unreadable),
        site_mode=mode,
        site_secrets=tuple(
            key for key, value in loaded.site.serve.environment.items() if value and _SECRET.search(key)
        ),
    )
