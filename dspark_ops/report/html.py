"""A report as one HTML file: nothing beside it is needed, nothing in it runs, and every text of a host is escaped."""

from __future__ import annotations

import re

import jinja2

from dspark_ops.paths import data_dir
from dspark_ops.report.models import Finding, Report, counts
from dspark_ops.report.roots import group_roots
from dspark_ops.report.text import MARKS, shell_line

# Control characters have no meaning in HTML, and some browsers stop at them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def render_html(report: Report) -> str:
    """The whole document, from `templates/report.html.j2`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    domains: dict[str, list[Finding]] = {}
    for finding in report.findings:
        domains.setdefault(finding.id.split(".", 1)[0], []).append(finding)
    totals = ", ".join(f"{number} {status}" for status, number in counts(report.findings).items() if number)
    text = environment.get_template("report.html.j2").render(
        report=report,
        roots=group_roots(report.findings),
        domains=domains,
        marks=MARKS,
        totals=totals,
        shell_line=shell_line,
    )
    return _CONTROL.sub("\ufffd", text)
