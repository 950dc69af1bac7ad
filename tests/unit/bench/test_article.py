"""The article's figures: beside the class that they are of, and never where the servers are not alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dspark_ops.bench.article import PAIR, REHEARSAL, ArticleLine
from dspark_ops.bench.records import Block
from dspark_ops.bench.report import bench_report
from dspark_ops.bench.report_text import render_report
from tests.unit.bench.made_runs import made_file, made_lines


def _lines(path: Path, **changes: Any) -> tuple[ArticleLine, ...]:
    report = bench_report([made_file(path, concurrency=(1, 6), **changes)])
    return report.runs[0].arms[0].article


def test_each_figure_is_beside_its_own_class(tmp_path: Path) -> None:
    lines = _lines(tmp_path / "a.jsonl", hardware=PAIR)
    places = {figure: [one.place for one in lines if one.figure == figure] for figure in (49.0, 80.0, 182.0)}
    assert places[49.0] == ["code, 1 stream, cold", "prose, 1 stream, cold", "reasoning, 1 stream, cold"]
    assert places[80.0] == ["predictable, 1 stream, cold"]
    assert all("6 streams" in place for place in places[182.0])
    code = next(one for one in lines if one.place == "code, 1 stream, cold")
    assert code.like == "yes"
    assert code.ours is not None
    assert code.times == code.ours.estimate / 49.0


def test_a_pair_is_like_it_and_the_class_that_it_does_not_name_is_not(tmp_path: Path) -> None:
    lines = _lines(tmp_path / "a.jsonl", hardware=PAIR)
    assert {one.like for one in lines if one.figure in (49.0, 80.0)} == {"yes"}
    assert {one.like for one in lines if one.figure == 182.0 and one.ours is not None} == {"unknown"}


def test_a_rehearsal_and_other_hardware_cannot_be_compared(tmp_path: Path) -> None:
    for name, hardware, why in (("a", REHEARSAL, "a rehearsal"), ("b", "one H100", "other hardware: one H100")):
        lines = _lines(tmp_path / f"{name}.jsonl", hardware=hardware)
        assert {one.like for one in lines} == {"no"}
        assert all(any(why in reason for reason in one.why) for one in lines)


def test_unknown_hardware_is_not_called_alike(tmp_path: Path) -> None:
    lines = _lines(tmp_path / "a.jsonl")
    assert "yes" not in {one.like for one in lines}
    assert any("nobody told what the server runs on" in reason for reason in lines[0].why)


def test_realistic_content_that_came_out_predictable_is_not_compared_with_49(tmp_path: Path) -> None:
    lines = _lines(tmp_path / "a.jsonl", hardware=PAIR, flagged=("code", "predictable"))
    code = next(one for one in lines if one.place == "code, 1 stream, cold")
    assert code.like == "no"
    assert "our content came out predictable" in code.why[0]


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    lines = _lines(tmp_path / "a.jsonl", hardware=PAIR, classes=("code",))
    prose = next(one for one in lines if one.place == "prose, 1 stream, cold")
    assert prose.ours is None
    assert prose.like == "no"
    assert "we have not measured that" in prose.why
    assert "none of ours; cannot be compared" in render_report(bench_report([tmp_path / "a.jsonl"]))


def test_each_arm_is_told_its_own_draft_length(tmp_path: Path) -> None:
    lines = [
        line.model_copy(update={"speculation": line.speculation.model_copy(update={"depth": 5.0})})
        if isinstance(line, Block) and line.arm == "B" and line.speculation
        else line
        for line in made_lines(arms=("A", "B"), hardware=PAIR)
    ]
    a, b = bench_report([made_file(tmp_path / "a.jsonl", lines)]).runs[0].arms
    assert not any("drafts" in reason for line in a.article for reason in line.why)
    assert all("ours drafts 5 tokens a step, the article's 3" in line.why for line in b.article)
