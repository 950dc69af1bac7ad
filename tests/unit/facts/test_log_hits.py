"""The known lines of a log as facts: times of Docker and of the journal, and what is no answer at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.facts.log_hits import ENGINE, parse_scan, parse_stamp, probes, read_engine_log, split_line
from dspark_ops.transport.base import LogScan, NodeReading, ProbeResult


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("2026-11-23T20:00:00Z", 1795464000.0),
        ("2026-11-23T20:00:00.5Z", 1795464000.5),
        ("2026-11-23T20:00:00.123456789Z", 1795464000.123456),
        ("1795464000.25", 1795464000.25),
        ("1795464000", 1795464000.0),
        ("2026-11-23T20:00:00+01:00", 1795460400.0),
        ("2026-11-23T20:00:00.25-0130", 1795469400.25),
        ("2026-11-23T20:00:00.123456+00:00", 1795464000.123456),
        ("2026-11-23T20:00:00+99:99", None),
        ("2026-11-23T20:00:00", None),
        ("12.345678", 12.345678),
        ("12.34", None),
        ("2026-02-30T20:00:00Z", None),
        ("0001-01-01T00:00:00Z", -62135596800.0),
        ("23.11.2026", None),
        ("12345678", None),
        ("", None),
        (None, None),
    ],
)
def test_stamps(stamp: str | None, seconds: float | None) -> None:
    found = parse_stamp(stamp)
    assert found == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


def test_a_line_without_a_time_keeps_all_its_words() -> None:
    assert split_line("2026-11-23T20:00:00Z some words\r\n").text == "some words"
    assert split_line("some words").at_s is None
    assert split_line("some words").text == "some words"


def answer(**changes: Any) -> str:
    document = {
        "marks": {"port_in_use": {"count": 3, "first": ["1795464000.5 a"], "last": ["1795464001.5 b"]}},
        "bytes": 1234,
        "cut": None,
        "from": "1795464000.0 x",
        "until": "1795464002.0 y",
        "reached": "1795464002.0 y",
    }
    return json.dumps({**document, **changes})


def test_an_answer_becomes_facts() -> None:
    log = parse_scan(answer())
    assert log is not None
    hit = log.hit("port_in_use")
    assert hit is not None
    assert (hit.count, [line.text for line in hit.lines], hit.last.at_s) == (3, ["a", "b"], 1795464001.5)
    assert (log.bytes_read, log.cut, log.from_s, log.until_s) == (1234, None, 1795464000.0, 1795464002.0)
    assert log.hit("xid") is None
    cut = parse_scan(answer(cut="time", reached="1795464001.0 z"))
    assert cut is not None
    assert (cut.cut, cut.reached_s) == ("time", 1795464001.0)


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[]", "[" * 3000, answer(marks=[]), answer(marks={"a": 1}), answer(bytes="1")]
)
def test_what_is_no_answer_is_none(text: str | None) -> None:
    assert parse_scan(text) is None


@pytest.mark.parametrize(
    "mark",
    [
        {"count": True, "first": ["x"], "last": []},
        {"count": "1", "first": ["x"], "last": []},
        {"count": 1, "first": [], "last": []},
    ],
)
def test_a_mark_that_makes_no_sense_is_left_out(mark: dict[str, Any]) -> None:
    log = parse_scan(answer(marks={"port_in_use": mark}))
    assert log is not None
    assert log.hits == ()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["marks", "bytes", "cut", "count", "first", "last", "a"]), inner, max_size=5
            )
        ),
        max_leaves=12,
    )
)
def test_any_document_is_facts_or_none(document: Any) -> None:
    parse_scan(json.dumps(document))


def test_the_log_of_another_container_can_be_asked_for() -> None:
    (probe,) = probes("vllm-head")
    assert isinstance(probe, LogScan)
    assert (probe.argv[-1], probe.tail_argv[-1]) == ("vllm-head", "vllm-head")


def test_a_container_that_is_not_there_has_no_log() -> None:
    result = ProbeResult(id=ENGINE, rc=1, stderr="Error response from daemon: No such container: dspark-rank")
    assert read_engine_log(NodeReading(node="head", reachable=True, results={ENGINE: result})) is None
    assert read_engine_log(NodeReading(node="head", reachable=False)) is None
