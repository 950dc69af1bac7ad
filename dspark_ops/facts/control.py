"""What the control host itself remembers of the site: an unfinished run, the release to go back to, the site's file."""

from __future__ import annotations

from datetime import datetime

from dspark_ops.facts.model import Fact


class OpenRunFacts(Fact):
    """A run that began to change the pair and has not ended; it may also be under way right now."""

    verb: str
    release: str
    began_at: datetime


class WayBackFacts(Fact):
    """The release that a rollback leads to, and the image that it needs on both nodes."""

    release: str
    image_id: str


class ControlFacts(Fact):
    """The control host's own records of one site.

    open_run: None when there is none; open_run_known tells that from a record that cannot be read. way_back: None when
    nothing else has served. unreadable: names of release files that cannot be read. site_mode: permission bits of the
    site's file. site_secrets: names of variables in it that look like secrets and have a value.
    """

    open_run: OpenRunFacts | None = None
    open_run_known: bool = False
    way_back: WayBackFacts | None = None
    unreadable: tuple[str, ...] = ()
    site_mode: int | None = None
    site_secrets: tuple[str, ...] = ()
