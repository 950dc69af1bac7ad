"""The report as one HTML page: plots within it, nothing beside it but the raw files that it names by their hash."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from dspark_ops.bench.plots import for_run
from dspark_ops.bench.records import Run
from dspark_ops.bench.report import BenchReport, RunReport, load
from dspark_ops.bench.report_text import (
    LIKE,
    amount,
    caveats,
    conditions,
    dangling,
    headline_words,
    left_out,
    share_text,
)
from dspark_ops.errors import NoVerdictError
from dspark_ops.paths import data_dir
from dspark_ops.whole_file import replace_file

# Control characters have no meaning in HTML, and some browsers stop at them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def render_html(report: BenchReport, runs: Sequence[Run | None]) -> str:
    """The document, from `templates/bench.html.j2`. runs: for each of the report's, in its order; None: unreadable."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("bench.html.j2").render(
        report=report,
        runs=[(one, _plots(one, run, number)) for number, (one, run) in enumerate(zip(report.runs, runs, strict=True))],
        amount=amount,
        share_text=share_text,
        conditions=conditions,
        caveats=caveats,
        dangling=dangling,
        left_out=left_out,
        headline_words=headline_words,
        like=LIKE,
    )
    return _CONTROL.sub("\ufffd", text)


def write_html(report: BenchReport, paths: Sequence[Path], out: Path) -> None:
    """Write the page of these files.

    Raises:
        NoVerdictError: it cannot be written, or a file changed since it was read for the report.
    """
    known = {one.file.sha256: None for one in report.runs}
    read: dict[str, Run | None] = {}
    for path in paths:
        file, found = load(path)
        if isinstance(found, Run) or found is None:
            read[file.sha256] = found
    if read.keys() != known.keys():
        raise NoVerdictError("a file changed while it was read: it belongs to a run that is still going on")
    try:
        replace_file(out, render_html(report, [read[one.file.sha256] for one in report.runs]), mode=0o644)
    except OSError as error:
        raise NoVerdictError(f"{out} cannot be written: {error.strerror or error}") from error


def _plots(report: RunReport, run: Run | None, number: int) -> list[tuple[str, Markup]]:
    """SVG of our own making; every text in it was escaped by the one who drew it."""
    if run is None:
        return []
    drawn = for_run(run, report.arms)
    return [
        (title, Markup(re.sub(r'(id="|href="#|url\(#)', rf"\g<1>r{number}-{i}-", svg)))  # noqa: S704
        for i, (title, svg) in enumerate(drawn)
    ]
