"""Results of `vllm bench serve`, as that tool writes them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.bench.foreign import looks_foreign, read_foreign
from dspark_ops.bench.report import bench_report
from dspark_ops.bench.report_text import render_report
from dspark_ops.errors import ConfigError, NoVerdictError

DETAILED = Path(__file__).parents[2] / "fixtures/vllm-bench/detailed.json"
# What vLLM 0.32.0 takes away without --save-detailed.
TAKEN_AWAY = ("input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors")


def _document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DETAILED.read_text())
    return found


def _written(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_a_real_detailed_result() -> None:
    run = read_foreign(DETAILED)
    assert (run.completed, run.failed, run.output_tokens, run.max_concurrency) == (8, 0, 960, 2)
    assert run.request_rate is None  # "inf"
    assert run.ttft.mean == pytest.approx(0.03334, abs=1e-5)
    assert run.tpot.mean == pytest.approx(0.0017507, abs=1e-6)
    assert run.rate_of_mean_tpot == pytest.approx(571.2, abs=0.1)
    assert (run.acceptance, run.tokens_per_step) == (1.0, 6.0)
    assert run.per_position == (1, 1, 1, 1, 1)
    assert run.detail is not None
    # Six tokens a step: a reader of ITL who took an event for a token would be off by this.
    assert run.detail.tokens_per_event == pytest.approx(960 / sum(len(g) + 1 for g in _document()["itls"]))
    assert 960 / run.detail.events > 5


def test_its_own_rate_is_worked_out_as_that_tool_would() -> None:
    document = _document()
    run = read_foreign(DETAILED)
    assert run.detail is not None
    rates = [119 / sum(gaps) for gaps in document["itls"]]
    assert run.detail.mean_rate == pytest.approx(statistics.fmean(rates))


def test_without_the_details_the_same_figures_and_no_more(tmp_path: Path) -> None:
    document = {key: value for key, value in _document().items() if key not in TAKEN_AWAY}
    run = read_foreign(_written(tmp_path / "plain.json", document))
    assert run.detail is None
    assert run.tpot == read_foreign(DETAILED).tpot


def test_what_is_missing_is_unknown(tmp_path: Path) -> None:
    document = {"duration": 2.0, "completed": 3, "output_throughput": 40.5}
    run = read_foreign(_written(tmp_path / "old.json", document))
    assert run.failed is None
    assert run.acceptance is None
    assert run.ttft.mean is None
    assert "failed unknown" in render_report(bench_report([tmp_path / "old.json"]))


def test_failed_requests_are_in_no_rate(tmp_path: Path) -> None:
    document = _document()
    document["errors"][0] = "Traceback"
    document["output_lens"][0] = 0
    run = read_foreign(_written(tmp_path / "failed.json", document))
    assert run.detail is not None
    assert run.detail.requests == 7
    assert run.detail.tokens == 840


@pytest.mark.parametrize(
    "text", ["{}", "[]", "nonsense", '{"duration": 1}', '{"record":"sample"}\n', "[" * 100_000, '{"a": 1}\n[2]']
)
def test_something_else_is_not_taken_for_one(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert not looks_foreign(text.encode())
    with pytest.raises(NoVerdictError):
        read_foreign(path)
    with pytest.raises(NoVerdictError):
        bench_report([path])


def test_several_results_in_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "appended.json"
    path.write_text(json.dumps(_document()) + "\n" + json.dumps(_document()))
    with pytest.raises(NoVerdictError, match="2 results"):
        read_foreign(path)
    with pytest.raises(ConfigError):
        read_foreign(tmp_path / "missing.json")


def test_numbers_that_are_none(tmp_path: Path) -> None:
    document = _document() | {"duration": "soon"}
    with pytest.raises(NoVerdictError, match="are numbers"):
        read_foreign(_written(tmp_path / "odd.json", document))


def test_the_report_says_what_it_cannot_tell() -> None:
    text = render_report(bench_report([DETAILED]))
    assert "it cannot tell whether prompts were cold or warm" in text
    assert "ITL there: time between two events" in text
