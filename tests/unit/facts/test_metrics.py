"""The counters of a real engine are understood, and nothing else is taken for them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.config.load import LoadedSite
from dspark_ops.facts.metrics import MetricsFacts, ScrapeFacts, parse_metrics, probes, read_metrics
from dspark_ops.transport.base import NodeReading, ProbeResult
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.doctor.pair_fixture import load_case_site
from tests.unit.facts.captures import FIXTURES


@pytest.fixture(scope="module")
def site() -> LoadedSite:
    return load_case_site()


def capture(name: str) -> str:
    return (FIXTURES / "vllm-metrics" / name).read_text(encoding="utf-8")


def parsed(name: str) -> MetricsFacts:
    found = parse_metrics(capture(name))
    assert found is not None
    return found


def reading(**answers: ProbeResult) -> NodeReading:
    results = {name.replace("__", "."): answer.model_copy(update={"id": name}) for name, answer in answers.items()}
    results = {name: answer.model_copy(update={"id": name}) for name, answer in results.items()}
    return NodeReading(node="head", reachable=True, results=results)


def answer(text: str, elapsed_s: float = 0.01) -> ProbeResult:
    return ProbeResult(id="x", rc=200, stdout=text, elapsed_s=elapsed_s)


def test_a_draft_that_is_always_right() -> None:
    found = parsed("perfect-draft-tp2.prom")
    assert found.acceptance == 1.0
    assert found.accepted_per_position == (100, 100, 100, 100, 100)
    assert found.finished == {"stop": 0, "length": 2, "abort": 0, "error": 0, "repetition": 0}
    assert found.requests == 2
    assert (found.running, found.waiting, found.waiting_for_capacity, found.kv_usage) == (0, 0, 0, 0)
    assert found.awake is True
    assert found.corrupted is None
    assert found.cache is not None
    assert found.cache.model_dump() == {
        "block_size": 128,
        "dtype": "auto",
        "prefix_caching": True,
        "memory_bytes": 67108864,
        "size_tokens": 87296,
        "concurrency": 21.3125,
        "blocks": 682,
    }


def test_a_draft_that_is_right_at_its_first_position() -> None:
    found = parsed("half-draft.prom")
    assert found.accepted_per_position == (298, 15, 0, 0, 0)
    assert found.acceptance == pytest.approx(313 / 1443)
    assert found.answers == {"2xx": 32, "4xx": 4}
    assert (found.prefix_queries, found.prefix_hits) == (5574, 4992)
    assert found.token_time is not None
    assert found.token_time.sum_s / found.token_time.count == pytest.approx(0.0069, abs=1e-4)


def test_an_engine_without_speculation_has_no_drafts() -> None:
    lines = [line for line in capture("half-draft.prom").splitlines() if "spec_decode" not in line]
    found = parse_metrics("\n".join(lines) + "\n")
    assert found is not None
    assert (found.drafts, found.accepted_per_position, found.acceptance) == (None, None, None)


def test_older_names_are_understood() -> None:
    text = capture("half-draft.prom").replace("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    text = text.replace("vllm:request_time_per_output_token_seconds", "vllm:time_per_output_token_seconds")
    found = parse_metrics(text)
    assert found is not None
    assert found.kv_usage == 0
    assert found.token_time == parsed("half-draft.prom").token_time


def test_engines_are_summed() -> None:
    text = (
        "# TYPE vllm:num_requests_running gauge\n"
        'vllm:num_requests_running{engine="0"} 2\n'
        'vllm:num_requests_running{engine="1"} 3\n'
    )
    found = parse_metrics(text)
    assert found is not None
    assert found.running == 5


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "\n",
        "<html></html>\n",
        "# TYPE up gauge\nup 1\n",
        '# TYPE vllm:a gauge\nvllm:a{b="c} 1\n',
        "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1",
        "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running " + "9" * 400 + "\n",
    ],
)
def test_anything_else_is_nothing(text: str | None) -> None:
    assert parse_metrics(text) is None


def test_numbers_that_are_none_are_left_out() -> None:
    samples = ("vllm:kv_cache_usage_perc NaN", "vllm:num_requests_waiting +Inf", "vllm:x 1")
    text = "\n".join(["# TYPE vllm:kv_cache_usage_perc gauge", *samples, ""])
    found = parse_metrics(text)
    assert found is not None
    assert (found.kv_usage, found.waiting) == (None, None)


def test_a_scrape_that_is_cut_anywhere_is_never_half_a_number() -> None:
    text = capture("perfect-draft-tp2.prom")
    whole = parsed("perfect-draft-tp2.prom").model_dump()
    for cut in range(0, len(text), 211):
        found = parse_metrics(text[:cut])
        assert found is None or text[cut - 1] == "\n"
        for name, value in (found.model_dump() if found else {}).items():
            plain = isinstance(value, int | float | bool)
            assert not plain or value == whole[name], (cut, name)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_text_raises(data: st.DataObject) -> None:
    lines = capture("half-draft.prom").splitlines()
    kept = data.draw(st.lists(st.sampled_from(lines), max_size=30))
    noise = data.draw(st.text(max_size=40))
    for text in ("\n".join(kept) + "\n", "\r\n".join(kept) + "\r\n", "\n".join([*kept, noise]) + "\n"):
        found = parse_metrics(text)
        assert found is None or MetricsFacts.model_validate_json(found.model_dump_json()) == found


def test_nothing_was_asked() -> None:
    assert read_metrics(reading()) is None


def test_a_refusal_is_told() -> None:
    refused = ProbeResult(id="x", error="URLError: connection refused")
    assert read_metrics(reading(metrics__first=refused)) == ScrapeFacts(error="URLError: connection refused")
    missing = ProbeResult(id="x", rc=404, stdout="{}")
    assert read_metrics(reading(metrics__first=missing)) == ScrapeFacts(error="status 404")
    strange = read_metrics(reading(metrics__first=answer("hello\n")))
    assert strange is not None
    assert "not what vLLM writes" in (strange.error or "")


def test_the_time_between_two_looks_is_that_of_the_slowest_completion() -> None:
    text = capture("half-draft.prom")
    found = read_metrics(
        reading(
            metrics__first=answer(text, 0.25),
            metrics__later=answer(text),
            service__canary=ProbeResult(id="x", error="timed out", elapsed_s=30.0),
            gpu__identity=ProbeResult(id="x", rc=0, elapsed_s=40.0),
        )
    )
    assert found is not None
    assert found.first == found.later
    assert found.interval_s == 29.75


def test_one_look_has_no_time_between() -> None:
    found = read_metrics(reading(metrics__first=answer(capture("half-draft.prom"))))
    assert found is not None
    assert (found.later, found.interval_s) == (None, None)


def test_the_second_look_comes_late_and_only_when_asked_for(site: LoadedSite) -> None:
    assert [probe.id for probe in probes(site.site)] == ["metrics.first"]
    first, later = probes(site.site, twice=True)
    assert (first.late, later.late) == (False, True)
    assert first.url == later.url == "http://127.0.0.1:8000/metrics"
    assert_read_only((first, later))
