"""Two servers beside each other: what is paired, what is left out, and what an interval that holds 1 says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspark_ops.bench.compare import Comparison, compare_arms, compare_runs, complete_pairs
from dspark_ops.bench.records import Header, Run
from dspark_ops.bench.report import FileOf, load
from dspark_ops.bench.report_text import render_comparison
from dspark_ops.errors import NoVerdictError
from tests.unit.bench.made_runs import MIX, RATES, made_file, made_lines


def _read(path: Path) -> tuple[FileOf, Run]:
    file, found = load(path)
    assert isinstance(found, Run)
    return file, found


def _apart(folder: Path, factor: float, **changes: Any) -> Comparison:
    first = made_file(folder / "a.jsonl")
    second = made_file(folder / "b.jsonl", rate=lambda _, name, i, __: factor * (RATES[name] + i), **changes)
    return compare_runs([_read(first)], [_read(second)])


def test_five_per_cent_are_seen_with_the_same_prompts(tmp_path: Path) -> None:
    found = _apart(tmp_path, 1.05)
    assert found.paired
    assert found.outcome == "faster"
    assert found.headline.times is not None
    assert found.headline.times.estimate == pytest.approx(1.05)
    assert {line.outcome for line in found.lines} == {"faster"}
    assert (found.by, found.order) == ("prompt", "apart")
    text = render_comparison(found)
    assert "measured at different times" in text
    assert "headline: B is 1.050" in text


def test_the_same_is_no_difference(tmp_path: Path) -> None:
    found = _apart(tmp_path, 1.0, boot=2e9)
    assert found.outcome == "no difference shown"
    assert found.headline.times is not None
    assert found.headline.times.estimate == pytest.approx(1.0)


def test_a_predictable_class_is_compared_apart(tmp_path: Path) -> None:
    first = made_file(tmp_path / "a.jsonl")
    second = made_file(
        tmp_path / "b.jsonl", rate=lambda _, name, i, __: RATES[name] + i + 500 * (name == "predictable")
    )
    found = compare_runs([_read(first)], [_read(second)])
    assert found.outcome == "no difference shown"
    text = render_comparison(found)
    assert text.index("predictable, in no headline") < text.index("predictable, 1 stream, cold")


def test_other_prompts_are_not_paired(tmp_path: Path) -> None:
    first, second = made_file(tmp_path / "a.jsonl"), made_file(tmp_path / "b.jsonl", boot=2e9)
    second.write_text(second.read_text().replace('"sha256":"', '"sha256":"other '))
    found = compare_runs([_read(first)], [_read(second)])
    assert not found.paired
    assert "the two were not asked the same prompts" in found.notes


def test_conditions_that_differ_are_named(tmp_path: Path) -> None:
    found = _apart(tmp_path, 1.0, version="0.33.0", hardware="two GB10")
    assert "server version: not told and 0.33.0" in found.differs
    assert "hardware: not told and two GB10" in found.differs


def test_a_drift_falls_on_both_arms_alike(tmp_path: Path) -> None:
    """The machine grows faster by the round; A B, B A sees through it only where both blocks of a round count."""

    def rate(arm: str, name: str, i: int, round_: int) -> float:
        return (RATES[name] + i) * (1 + round_) * (1.1 if arm == "B" else 1.0)

    path = made_file(
        tmp_path / "abba.jsonl", rate=rate, arms=("A", "B"), void=lambda arm, _, round_: (arm, round_) == ("B", 1)
    )
    file, run = _read(path)
    kept, left_out = complete_pairs(run)
    assert left_out == 5
    assert {block.round for block in run.blocks if block.index in kept} == {0}
    found = compare_arms(run, file)
    assert (found.order, found.pairs_left_out, found.paired) == ("interleaved", 5, True)
    assert found.headline.times is not None
    assert found.headline.times.estimate == pytest.approx(1.1)
    assert "5 blocks are left out" in render_comparison(found)


def test_three_boots_of_each_are_the_unit(tmp_path: Path) -> None:
    """A boot's prompts agree and its level is by chance: by prompt 4 % would be shown, by boot it is not."""
    sides = [
        [
            _read(
                made_file(
                    tmp_path / f"{side}{i}.jsonl",
                    boot=1e9 + 10 * number + i,
                    classes=("code", "prose", "reasoning", "tool-json"),
                    rate=lambda _, name, __, ___, f=factor: RATES[name] * f,
                    rounds=1,
                )
            )
            for i, factor in enumerate(factors)
        ]
        for number, (side, factors) in enumerate({"a": (0.95, 1.0, 1.05), "b": (0.99, 1.04, 1.09)}.items())
    ]
    found = compare_runs(sides[0], sides[1])
    assert (found.by, found.outcome, found.a.boots, found.b.boots) == ("boot", "no difference shown", 3, 3)
    fewer = compare_runs(sides[0][1:2], sides[1][1:2])
    assert (fewer.by, fewer.outcome) == ("prompt", "faster")
    assert any("boot to boot" in note for note in fewer.notes)


def test_failures_of_both_are_shown(tmp_path: Path) -> None:
    found = _apart(tmp_path, 1.0, failed=lambda name, i, _: name == "code" and i < 2)
    line = next(line for line in found.lines if line.place.content_class == "code")
    assert line.failed_a is not None
    assert line.failed_b is not None
    assert (line.failed_a.count, line.failed_b.count, line.failed_b.of) == (0, 4, 8)
    assert line.goodput_a is not None
    assert line.goodput_b is not None
    assert line.goodput_b < 0.6 * line.goodput_a


def test_without_a_headline_it_says_why(tmp_path: Path) -> None:
    found = _apart(tmp_path, 1.0, classes=("code",))
    assert found.outcome == "not comparable"
    assert any("prose, 1 stream, cold: was not measured" in reason for reason in found.why_not)
    assert "prose, 1 stream, cold" in found.only_in_a


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one = _read(made_file(tmp_path / "a.jsonl"))
    two = _read(made_file(tmp_path / "b.jsonl", arms=("A", "B")))
    with pytest.raises(NoVerdictError, match="one server"):
        compare_arms(one[1], one[0])
    with pytest.raises(NoVerdictError, match="twice"):
        compare_runs([one], [one])
    with pytest.raises(NoVerdictError, match="two servers"):
        compare_runs([one], [two])


def test_a_class_of_fixed_texts_does_not_pair_what_shares_no_prompt(tmp_path: Path) -> None:
    def of(path: Path, mark: str) -> Path:
        lines = made_lines(classes=(*MIX, "predictable"))
        (header,) = (line for line in lines if isinstance(line, Header))
        prompts = tuple(
            one if one.content_class == "predictable" else one.model_copy(update={"sha256": one.sha256 + mark})
            for one in header.prompts
        )
        return made_file(path, [header.model_copy(update={"prompts": prompts}), *lines[1:]])

    paths = of(tmp_path / "a.jsonl", "a"), of(tmp_path / "b.jsonl", "b")
    found = compare_runs([_read(paths[0])], [_read(paths[1])])
    assert not found.paired
    assert found.headline.times is not None


def test_a_side_whose_every_request_failed_made_nothing_and_has_no_ratio(tmp_path: Path) -> None:
    a = made_file(tmp_path / "a.jsonl")
    b = made_file(tmp_path / "b.jsonl", failed=lambda name, _, __: name == "code")
    line = compare_runs([_read(a)], [_read(b)]).lines[0]
    assert line.place.content_class == "code"
    assert line.aggregate.b is not None
    assert (line.aggregate.b.estimate, line.aggregate.times) == (0.0, None)
    assert line.failed_b is not None
    assert line.failed_b.share == 1.0


def test_a_side_of_different_servers_says_so(tmp_path: Path) -> None:
    a, b, other = (
        _read(made_file(tmp_path / f"{name}.jsonl", boot=1e9 + i, image_digest=digest))
        for i, (name, digest) in enumerate((("a", "sha256:1"), ("b", "sha256:1"), ("other", "sha256:2")))
    )
    notes = compare_runs([a], [b, other]).notes
    assert next(note for note in notes if "not of one server" in note).startswith("the runs of b.jsonl, other.jsonl")
    alike = _read(made_file(tmp_path / "c.jsonl", boot=1.5e9, image_digest="sha256:1"))
    assert not any("not of one server" in note for note in compare_runs([a], [b, alike]).notes)
