"""The documented exit codes are the code's exit codes."""

from __future__ import annotations

import re
from pathlib import Path

from dspark_ops import errors
from dspark_ops.exitcodes import ExitCode

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_lists_every_exit_code_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert rows == {str(int(code)): code.meaning for code in ExitCode}


def test_every_error_has_a_documented_code_and_none_means_success() -> None:
    family = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.DsparkError)]
    assert len(family) > 5
    assert all(e.exit_code in set(ExitCode) - {ExitCode.OK} for e in family)
