"""The files that a run of the doctor leaves beside what it prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dspark_ops.report.files import check_targets, write_whole
from dspark_ops.report.models import Report


@dataclass(frozen=True)
class Outputs:
    """Where to write what; None is nowhere. strict: a warning is a failure in the JUnit file too."""

    junit: Path | None = None
    html: Path | None = None
    textfile: Path | None = None
    strict: bool = False

    def check(self) -> None:
        """Find out before anything is contacted that a file could not be written.

        Raises:
            ConfigError: naming the file.
        """
        check_targets(path for path in (self.junit, self.html, self.textfile) if path is not None)

    def write(self, report: Report) -> None:
        """Write each file whole or not at all.

        Raises:
            NoVerdictError: one cannot be written.
        """
        if self.junit is not None:
            from dspark_ops.report.junit import render_junit

            write_whole(self.junit, render_junit(report, strict=self.strict))
        if self.html is not None:
            from dspark_ops.report.html import render_html

            write_whole(self.html, render_html(report))
        if self.textfile is not None:
            from dspark_ops.report.textfile import MODE, render_textfile

            write_whole(self.textfile, render_textfile(report), mode=MODE)
