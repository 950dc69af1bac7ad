"""A secret in an argument list is never told by a check of the arguments."""

from __future__ import annotations

import pytest

from dspark_ops.doctor.engine import run_checks
from tests.unit.doctor.pair_fixture import load_case_site, pair_facts

PLANTED = "planted-5f2c"


@pytest.mark.parametrize("form", [("--api-key=PLANTED",), ("--api-key", "PLANTED")])
@pytest.mark.parametrize(
    ("check", "end", "times"),
    [("service.argv_parity", "", 1), ("config.given_twice", "", 2), ("config.clean_values", "\r", 1)],
)
def test_an_argument_that_is_a_secret_is_judged_and_not_shown(
    check: str, end: str, times: int, form: tuple[str, ...]
) -> None:
    words = [word.replace("PLANTED", PLANTED + end) for word in form] * times
    case = {"set": [[["head", "rank", "args", "+"], word] for word in words]}
    report = run_checks(pair_facts(case), load_case_site(), only=[check])
    found = next(finding for finding in report.findings if finding.id == check)
    assert found.status in ("warn", "fail")
    assert "<hidden>" in found.observed
    assert PLANTED not in report.to_json()
