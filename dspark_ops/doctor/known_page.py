"""`docs/reference/known-failures.md`: from a failure that others have described to our checks, and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dspark_ops.doctor.catalogue import Check
from dspark_ops.doctor.known import SECTIONS, KnownFailure, KnownSection, every_failure, failures_by_check


def render_known(sections: Sequence[KnownSection], catalogue: Mapping[str, Check]) -> str:
    """The whole page. Made from checks/known/*.yml; not edited by hand."""
    failures = every_failure(sections)
    found = [failure for failure in failures if failure.checks]
    lines = [
        "# Known failures",
        "",
        "<!-- Made from checks/known/*.yml by dspark_ops.doctor.known_page.render_known; a test keeps it current. -->",
        "",
        "Failures that users and maintainers of such pairs have described in public, and the checks of",
        "[`dspark-ops doctor`](checks.md) that find them. Where none does, the reason is given instead.",
        "An *outage* is no service or a wrong answer; *slow* costs a large part of the speed.",
        "",
        f"{len(failures)} failures: {len(found)} are found by a check, {len(failures) - len(found)} are not.",
    ]
    for section in sections:
        title = SECTIONS.get(section.name)
        lines += ["", f"## {section.name.upper()}" + (f": {title}" if title else ""), ""]
        lines += ["| id | symptom | severity | found by | source |", "|---|---|---|---|---|"]
        lines += [_row(failure) for failure in section.failures]
    lines += ["", "## By check", "", "| check | finds |", "|---|---|"]
    by_check = failures_by_check(sections)
    lines += [
        f"| {_link(check)} | {', '.join(failure.id for failure in by_check[check])} |"
        for check in (*catalogue, *sorted(set(by_check) - set(catalogue)))
        if check in by_check
    ]
    return "\n".join(lines) + "\n"


def _row(failure: KnownFailure) -> str:
    answer = ", ".join(map(_link, failure.checks)) if failure.checks else f"none: {_cell(failure.why_not or '')}"
    return f"| {failure.id} | {_cell(failure.symptom)} | {failure.severity} | {answer} | {_cell(failure.source)} |"


def _link(check: str) -> str:
    return f"[`{check}`](checks.md#{check.replace('.', '')})"


def _cell(text: str) -> str:
    """One cell of a table: one line, no bar, and nothing that HTML would take for a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
