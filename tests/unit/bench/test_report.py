"""The report: the headline, what is kept out of it, and files that were cut off anywhere."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.bench.records import Block, Run, Sample
from dspark_ops.bench.report import BenchReport, bench_report, load
from dspark_ops.bench.report_html import write_html
from dspark_ops.bench.report_text import render_report
from dspark_ops.errors import NoVerdictError
from tests.unit.bench.made_runs import FLAGGED, made_file, made_lines


def _report(path: Path, **changes: Any) -> BenchReport:
    return bench_report([made_file(path, **changes)])


def test_the_headline_is_the_declared_mix_of_tokens(tmp_path: Path) -> None:
    head = _report(tmp_path / "a.jsonl").runs[0].arms[0].headline
    assert head.mix == {"code": 0.40, "prose": 0.25, "reasoning": 0.20, "tool-json": 0.15}
    # Prompts 0 to 3 add their number: the classes' means are 1.5 above the base.
    expected = 1 / (0.40 / 61.5 + 0.25 / 41.5 + 0.20 / 51.5 + 0.15 / 71.5)
    assert head.rate is not None
    assert head.rate.estimate == pytest.approx(expected)
    assert head.rate.low is not None
    assert head.rate.high is not None
    assert head.rate.low < expected < head.rate.high
    assert (head.rate.by, head.rate.n) == ("prompt", 32)


def test_predictable_content_changes_nothing_of_it(tmp_path: Path) -> None:
    without = _report(tmp_path / "a.jsonl").runs[0].arms[0].headline
    fast = _report(
        tmp_path / "b.jsonl", rate=lambda _, name, i, __: 9000.0 if name == "predictable" else _base(name) + i
    )
    assert fast.runs[0].arms[0].headline == without
    text = render_report(fast)
    apart = text[text.index("predictable, in no headline") :]
    assert "predictable, 1 stream, cold" in apart
    assert "predictable for acceptance 0.97 against 0.9" in apart
    assert "predictable, 1 stream, cold" not in text[: text.index("predictable, in no headline")]


def _base(name: str) -> float:
    return {"code": 60.0, "prose": 40.0, "reasoning": 50.0, "tool-json": 70.0}[name]


def test_a_class_that_came_out_predictable_takes_the_headline_with_it(tmp_path: Path) -> None:
    head = _report(tmp_path / "a.jsonl", flagged=("code", "predictable")).runs[0].arms[0].headline
    assert head.rate is None
    assert any("code, 1 stream, cold: its content is predictable" in reason for reason in head.why_not)


def test_a_single_predictable_answer_is_left_out_and_counted(tmp_path: Path) -> None:
    lines = made_lines()
    at = next(i for i, one in enumerate(lines) if isinstance(one, Sample) and one.content_class == "code")
    lines[at] = lines[at].model_copy(update={"decode_rate": 5000.0, "predictable": FLAGGED})
    head = bench_report([made_file(tmp_path / "a.jsonl", lines)]).runs[0].arms[0].headline
    assert head.left_out == 1
    assert head.rate is not None
    assert head.rate.estimate < 60
    assert "1 answer left out" in render_report(bench_report([tmp_path / "a.jsonl"]))


def test_a_missing_class_is_not_made_up_for_by_the_others(tmp_path: Path) -> None:
    head = _report(tmp_path / "a.jsonl", classes=("code", "prose")).runs[0].arms[0].headline
    assert head.rate is None
    assert "tool-json, 1 stream, cold: was not measured" in head.why_not


def test_without_first_chunks_there_is_a_bound_and_no_headline(tmp_path: Path) -> None:
    lines = [
        one.model_copy(update={"n1": None, "decode_rate": None, "decode_rate_at_most": 61.0})
        if isinstance(one, Sample) and one.content_class == "code"
        else one
        for one in made_lines()
    ]
    found = bench_report([made_file(tmp_path / "a.jsonl", lines)])
    head = found.runs[0].arms[0].headline
    assert head.rate is None
    assert "does not say how many tokens its first chunks have" in head.why_not[0]
    assert "<= 61.0" in render_report(found)


def test_failures_stay_in_the_denominator(tmp_path: Path) -> None:
    found = _report(tmp_path / "a.jsonl", failed=lambda name, i, _: name == "prose" and i == 0)
    cell = next(c for c in found.runs[0].arms[0].cells if c.place.content_class == "prose")
    assert cell.failed is not None
    assert (cell.failed.count, cell.failed.of) == (2, 8)
    assert (cell.figures.valid, cell.figures.requests) == (6, 8)
    text = render_report(found)
    assert "6 of 8" in text
    assert "2 of 8 (<= 65%)" in text
    assert "failed: cut: the stream was cut (2 times)" in text


def test_void_blocks_are_used_for_nothing_and_listed(tmp_path: Path) -> None:
    sound = _report(tmp_path / "a.jsonl").runs[0].arms[0].headline.rate
    found = _report(
        tmp_path / "b.jsonl",
        rate=lambda _, name, i, round_: 9000.0 if (name, round_) == ("code", 1) else _all(name) + i,
        void=lambda _, name, round_: (name, round_) == ("code", 1),
    )
    assert sound is not None
    rate = found.runs[0].arms[0].headline.rate
    assert rate is not None
    assert rate.estimate == pytest.approx(sound.estimate)
    (block,) = found.runs[0].blocks
    assert (block.state, block.requests) == ("void", 4)
    assert "VOID block" in render_report(found)
    assert "foreign requests" in render_report(found)


def _all(name: str) -> float:
    return 80.0 if name == "predictable" else _base(name)


def test_three_boots_are_pooled_by_boot_and_two_are_not(tmp_path: Path) -> None:
    paths = [
        made_file(tmp_path / f"{i}.jsonl", boot=1e9 + i, rate=lambda _, name, p, __, i=i: _all(name) + p + 5 * i)
        for i in range(3)
    ]
    assert bench_report(paths[:2]).pooled == ()
    (pooled,) = bench_report(paths).pooled
    assert pooled.boots == 3
    assert pooled.headline.rate is not None
    assert (pooled.headline.rate.by, pooled.headline.rate.units) == ("boot", 3)
    with pytest.raises(NoVerdictError, match="twice"):
        bench_report([paths[0], paths[0]])


def test_a_run_cut_at_any_byte_is_read_and_called_partial(tmp_path: Path) -> None:
    path = made_file(tmp_path / "whole.jsonl", classes=("prose",), rounds=1, prompts=1)
    data, cut = path.read_bytes(), tmp_path / "cut.jsonl"
    assert bench_report([path]).runs[0].partial is None
    lengths = set()
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        _, found = load(cut)
        if found is None:
            lengths.add(-1)
            continue
        assert isinstance(found, Run)
        # All but the last newline is a whole end whose line is not known to be whole.
        assert found.partial, length
        lengths.add(len(found.samples))
    assert lengths == {-1, 0, 1}


def test_a_cut_run_is_reported_as_partial(tmp_path: Path) -> None:
    path = made_file(tmp_path / "whole.jsonl", classes=("prose",), rounds=2, prompts=2)
    data, cut = path.read_bytes(), tmp_path / "cut.jsonl"
    ends = [match.end() for match in re.finditer(rb"\n", data)]
    # Within the header, behind it, within a sample, within the last block, and all but the last newline.
    for length in (0, 30, ends[0], ends[2] + 40, ends[-2] - 1, len(data) - 1):
        cut.write_bytes(data[:length])
        found = bench_report([cut])
        assert "PARTIAL" in render_report(found), length
        page = tmp_path / "cut.html"
        write_html(found, [cut], page)
        assert '<p class="bad">PARTIAL</p>' in page.read_text()
        assert json.loads(found.model_dump_json(by_alias=True))["runs"][0]["partial"]


def test_answers_of_an_unfinished_block_are_not_used(tmp_path: Path) -> None:
    lines = made_lines(classes=("prose",), rounds=1)
    found = bench_report([made_file(tmp_path / "a.jsonl", lines[:5])])
    assert found.runs[0].dangling == 3
    assert found.runs[0].arms[0].cells == ()
    assert not found.measured
    assert "3 answers of a block that was not finished are not used" in render_report(found)


def test_a_damaged_file_is_no_partial_one(tmp_path: Path) -> None:
    path = made_file(tmp_path / "a.jsonl", classes=("prose",))
    path.write_bytes(path.read_bytes().replace(b'"record":"sample"', b'"record":"simple"', 1))
    with pytest.raises(NoVerdictError):
        bench_report([path])


def test_the_page_stands_alone_and_escapes_what_it_shows(tmp_path: Path) -> None:
    lines = made_lines(concurrency=(1, 6), version="<script>alert(1)</script>")
    path, page = made_file(tmp_path / "a.jsonl", lines), tmp_path / "a.html"
    found = bench_report([path])
    write_html(found, [path], page)
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert not re.search(r"""(src|href)=["'](?!#)""", text)
    assert found.runs[0].file.sha256 in text
    svgs = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(svgs) == 4
    ids: list[str] = []
    for svg in svgs:
        ElementTree.fromstring(svg)  # noqa: S314
        ids += re.findall(r'\bid="([^"]+)"', svg)
        for name in re.findall(r'(?:href="#|url\(#)([^")]+)', svg):
            assert f'id="{name}"' in svg
    assert len(ids) == len(set(ids))
    for title in ("Rates by class", "Acceptance by position", "Time to the first token", "Timeline"):
        assert title in text
    write_html(found, [path], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


def test_the_conditions_and_definitions_are_printed(tmp_path: Path) -> None:
    text = render_report(_report(tmp_path / "a.jsonl"))
    for words in ("temperature 1, top_p 1", "vLLM not told", "warm-up: stable", "TTFT: T0 to the first chunk"):
        assert words in text


def test_a_block_of_which_all_failed_is_not_left_out_of_the_aggregate(tmp_path: Path) -> None:
    whole, broken = (
        _report(
            tmp_path / f"{name}.jsonl", failed=lambda kind, _, round_, bad=bad: bad and kind == "code" and round_ == 1
        )
        for name, bad in (("a", False), ("b", True))
    )
    found = [one.runs[0].arms[0].cells[0] for one in (whole, broken)]
    assert [cell.place.content_class for cell in found] == ["code", "code"]
    assert found[0].aggregate is not None
    assert found[1].aggregate is not None
    assert found[1].aggregate.estimate == pytest.approx(found[0].aggregate.estimate / 2)
    assert found[1].aggregate.units == 2
    assert found[1].aggregate.low == 0.0


def test_boots_of_different_servers_have_no_common_headline(tmp_path: Path) -> None:
    paths = [made_file(tmp_path / f"{i}.jsonl", boot=1e9 + i, image_digest=f"sha256:{i > 1}") for i in range(3)]
    assert bench_report(paths).pooled == ()
    plain = [made_file(tmp_path / f"p{i}.jsonl", boot=1e9 + i, hardware=("one", "two")[i > 1]) for i in range(3)]
    assert bench_report(plain).pooled == ()


def test_two_files_that_were_cut_at_once_are_not_one_file_twice(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        path.touch()
    found = bench_report(paths)
    assert [one.partial is not None for one in found.runs] == [True, True]
    write_html(found, paths, tmp_path / "a.html")


def test_void_long_prompts_are_named_by_their_length(tmp_path: Path) -> None:
    lines = [
        line.model_copy(update={"prompt_tokens": 32_000}) if isinstance(line, Block) else line
        for line in made_lines(classes=("prose",), rounds=1, void=lambda *_: True)
    ]
    found = bench_report([made_file(tmp_path / "a.jsonl", lines)])
    assert found.runs[0].blocks[0].place == "prose of 32000 tokens, 1 stream, cold"
