"""What the control host remembers: a run that was cut off, the way back, and who may read and write the site's file."""

from __future__ import annotations

from dspark_ops.doctor.outcome import FactMissingError, NotApplicableError, Outcome, PairView, fail, judge, need, ok
from dspark_ops.doctor.registry import pair_rule
from dspark_ops.facts.control import ControlFacts


def _control(view: PairView) -> ControlFacts:
    if view.facts.control is None:
        raise NotApplicableError("these facts were not read from this control host")
    return view.facts.control


@pair_rule("operations.open_run")
def open_run(view: PairView) -> Outcome:
    """No run that changed the pair was cut off."""
    control = _control(view)
    if not control.open_run_known:
        raise FactMissingError("the record of an unfinished run could not be read")
    run = control.open_run
    if run is None:
        return ok("no run is unfinished")
    return fail(
        f"a {run.verb} of {run.release} began at {run.began_at:%Y-%m-%d %H:%M} and has not ended",
        "every run ended, or taken up again",
    )


@pair_rule("operations.way_back")
def way_back(view: PairView) -> Outcome:
    """A rollback finds the image of the release before on both nodes."""
    back = _control(view).way_back
    if back is None:
        raise NotApplicableError("no other release has served")
    missing = [
        f"the {node.role} does not hold the image of {back.release}"
        for node in view.facts.nodes
        if back.image_id not in {image.id for image in need(node.images, f"the images of the {node.role}")}
    ]
    return judge(missing, f"{back.release} can be brought back", "the image of the release before on both nodes")


@pair_rule("operations.releases_readable")
def releases_readable(view: PairView) -> Outcome:
    """Every kept release can be read, so that it can be brought back."""
    broken = [f"{name} cannot be read" for name in _control(view).unreadable]
    return judge(broken, "all kept releases can be read", "no broken file among the kept releases")


@pair_rule("security.site_file")
def site_file(view: PairView) -> Outcome:
    """Nobody else writes the site's file, and nobody else reads a secret in it."""
    control = _control(view)
    mode = need(control.site_mode, "the permissions of the site's file")
    problems = ["everybody may write the site's file"] if mode & 0o002 else []
    if control.site_secrets and mode & 0o044:
        problems.append(f"others may read {', '.join(control.site_secrets)} in the site's file")
    return judge(
        problems, f"the site's file has mode {mode:o}", "its owner alone writes it, and reads the secrets in it"
    )
