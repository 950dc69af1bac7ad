"""The mutation program itself, on two rules of its own: what it breaks, what it leaves alone, what it counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspark_ops.doctor import outcome
from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, judge, need, ok
from dspark_ops.facts.gpu import GpuFacts
from tests.mutation import edits, renamed, run
from tests.mutation.operators import moved_number, mutants
from tests.mutation.reached import Source, functions_of, source_of
from tests.mutation.trial import cases_of, disagreement, end_of, in_place, threshold_mutants

HERE = __name__
_LIMIT = 10


def small_rule(view: NodeView) -> Outcome:
    """A rule with one of everything."""
    if not view.profile.gpu:
        raise NotApplicableError("no GPU")
    count = need(view.limits.get("count"), "the count")
    told = f"{count:g} of {_LIMIT}"
    problems = [told] if too_many(count) and count != 13 else []
    return judge(problems, told, f"at most {_LIMIT}")


def too_many(count: float) -> bool:
    """What a rule calls."""
    return count > _LIMIT


def only_words(count: float) -> str:
    """What a rule calls for its wording alone."""
    return "many" if count > 3 else "few"


def wordy_rule(view: NodeView) -> Outcome:
    """A rule whose text has a condition in it."""
    return ok(f"{only_words(len(view.limits))}{'!' if view.limits else ''}")


def of(function: object) -> Source:
    source = source_of(function)
    assert source is not None
    return source


def said(function: object, *, is_rule: bool = True) -> list[str]:
    return [f"{m.kind} | {m.text}" for m in mutants(of(function), is_rule=is_rule)]


def test_a_rule_brings_what_it_calls_for_more_than_wording() -> None:
    assert [s.name for s in functions_of(small_rule, HERE)] == ["small_rule", "too_many"]
    assert [s.name for s in functions_of(wordy_rule, HERE)] == ["wordy_rule"]


def test_every_kind_of_change_is_made() -> None:
    found = "\n".join([*said(small_rule), *said(too_many, is_rule=False)])
    for text in (
        "comparison negated: count > _LIMIT -> count <= _LIMIT",
        "comparison shifted: count > _LIMIT -> count >= _LIMIT",
        "comparison negated: count != 13 -> count == 13",
        "boolean operator swapped: too_many(count) and count != 13 -> too_many(count) or count != 13",
        "not removed: not view.profile.gpu -> view.profile.gpu",
        "constant moved: 13 -> 14",
        "constant moved: _LIMIT -> 9",
        "text changed: view.limits.get('count') -> view.limits.get('count~')",
        "status swapped: judge(problems, told, f'at most {_LIMIT}') -> judge((), told",
        "early return before return judge(problems",
        "early return before return count > _LIMIT",
    ):
        assert text in found


def test_wording_and_documentation_are_left_alone() -> None:
    assert not [text for text in said(wordy_rule) if "early return" not in text and "status swapped" not in text]
    assert not [text for text in said(small_rule) if "at most" in text and "judge" not in text]


@pytest.mark.parametrize(
    ("value", "moved"),
    [(2, [3, 1]), (200000, [200001, 199999, 220000, 180000]), (0.5, [0.6, 0.4, 0.55, 0.45]), (0, [1, -1])],
)
def test_a_number_moves_by_a_unit_and_by_a_tenth(value: float, moved: list[float]) -> None:
    assert moved_number(value) == pytest.approx(moved)


def test_a_mutant_stands_under_every_name_and_leaves_no_trace() -> None:
    source = of(too_many)
    (mutant,) = [m for m in mutants(source, is_rule=False) if m.kind == "comparison shifted"]
    assert not too_many(_LIMIT)
    with in_place(source, mutant):
        assert too_many(_LIMIT)
    assert not too_many(_LIMIT)
    assert globals()[edits.OK] is outcome.ok


def test_a_fact_goes_missing_or_becomes_its_sibling() -> None:
    gpu = GpuFacts(name="NVIDIA GB10", driver="580.95.05")
    assert renamed.missing(gpu, "driver") is None
    assert renamed.sibling_name(GpuFacts, "driver") is not None
    assert renamed.sibling(gpu, "driver") != gpu.driver
    assert renamed.missing(Path("/x"), "name") == "x"  # no fact


def test_a_real_check_is_pinned_and_a_fixture_less_is_noticed() -> None:
    every = load_catalogue()
    work = run.plan(["host.kernel_parity"], every)
    (tally,) = run.try_all(work, 1)
    assert tally.broken is None
    assert (tally.killed, tally.survivors) == (tally.total, [])
    assert tally.total >= 10
    check = every["host.kernel_parity"]
    good = [case for case in cases_of(check.id) if case.name == "ok"]
    assert disagreement(check, good) is None
    assert end_of([(check, good)]) == "survived"


def test_a_moved_threshold_is_a_changed_check() -> None:
    check = load_catalogue()["host.clock"]
    (name,) = check.thresholds
    moved = [changed.thresholds[name].value for _, changed in threshold_mutants(check)]
    assert check.thresholds[name].value not in moved
    assert len(moved) >= 2


def test_the_report_counts_and_the_exit_code_follows_the_goal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--only", "host.kernel_parity"]) == 0
    assert "100.00%" in capsys.readouterr().out
    assert run.main(["--only", "host.kernel_parity", "--goal", "1.01"]) == 1
