"""`doctor --fix` as it is asked for: the request is checked before anything is contacted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from dspark_ops.config.load import load_site
from dspark_ops.doctor.catalogue import Check, load_catalogue
from dspark_ops.doctor.fix.actions import Consent
from dspark_ops.doctor.fix.run import FixRun
from dspark_ops.doctor.run import Request, Source, diagnose, read_live
from dspark_ops.errors import ConfigError
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress


@dataclass(frozen=True)
class Wishes:
    """What was said about fixing. consented: check ids, each named by itself."""

    consented: tuple[str, ...] = ()
    check: bool = False
    diff: bool = False


def fix(
    request: Request, wishes: Wishes, *, consent: Consent, progress: Progress, source: Source = read_live
) -> Report:
    """Cure what can be cured among the checks of the request, and judge by the same checks again.

    Raises:
        ConfigError: the site or an id is wrong; nothing was contacted.
        RefusedError: declined, nobody to ask, or another fix is at work.
    """
    loaded = load_site(request.site, overrides=request.overrides)
    catalogue = load_catalogue()
    return FixRun(
        loaded=loaded,
        catalogue=catalogue,
        judge=lambda: diagnose(request, source=source),
        consent=consent,
        progress=progress,
        consented=_named(wishes.consented, catalogue),
        check=wishes.check,
        diff=wishes.diff,
    ).run()


def _named(identities: Iterable[str], catalogue: Mapping[str, Check]) -> frozenset[str]:
    """The consented ids. No globs: whoever consents names what he consents to."""
    named = frozenset(identities)
    for identity in sorted(named - set(catalogue)):
        near = get_close_matches(identity, catalogue, n=3, cutoff=0.5)
        raise ConfigError(
            f"--consent {identity} names no check; ids are named one by one, without globs",
            hint=f"did you mean {', '.join(near)}?" if near else "see --list-checks",
        )
    return named
