"""Completions as they come: whole, streamed, empty, or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.facts.replies import (
    TOOL,
    TOOL_ARGUMENTS,
    ReplyFacts,
    StreamFacts,
    ToolCall,
    parse_reply,
    parse_stream,
    probes,
    read_replies,
)
from dspark_ops.transport.base import NodeReading, ProbeResult
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.doctor.pair_fixture import load_case_site
from tests.unit.facts.captures import FIXTURES


def completion(message: dict[str, Any], finish: str | None = "stop", usage: Any = None) -> str:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": usage})


def test_a_plain_answer() -> None:
    assert parse_reply(completion({"content": "42"}, usage={"completion_tokens": 2})) == ReplyFacts(
        content="42", finish_reason="stop", completion_tokens=2
    )


def test_a_call() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": TOOL, "arguments": json.dumps(TOOL_ARGUMENTS)}}]
    found = parse_reply(completion({"content": None, "tool_calls": calls}, "tool_calls"))
    assert found is not None
    assert found.tool_calls == (ToolCall(name=TOOL, arguments='{"city": "Paris", "days": 3}'),)
    assert found.content is None


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_under_both_of_its_names(key: str) -> None:
    found = parse_reply(completion({"content": None, key: "First, weigh"}))
    assert found is not None
    assert found.reasoning == "First, weigh"


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[]", '{"choices": []}', '{"choices": [{"message": 1}]}', "[" * 99999]
)
def test_no_completion(text: str | None) -> None:
    assert parse_reply(text) is None


def test_calls_of_a_strange_shape_are_no_completion() -> None:
    assert parse_reply(completion({"content": "x", "tool_calls": [{"name": "f"}]})) is None


def test_the_recorded_stream() -> None:
    found = parse_stream((FIXTURES / "vllm-metrics" / "stream.sse").read_text(encoding="utf-8"))
    assert found is not None
    assert found.done
    assert (found.finish_reason, found.events, found.errors, found.empty_tool_lists) == ("length", 32, (), 0)
    assert (found.content or "").startswith('"#$%&')


def event(**delta: Any) -> str:
    return "data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": None}]}) + "\n\n"


def test_empty_lists_of_calls_count_on_pieces_of_text_alone() -> None:
    found = parse_stream(
        event(role="assistant", tool_calls=[]) + event(content="a", tool_calls=[]) + event(content="b")
    )
    assert found == StreamFacts(content="ab", events=3, empty_tool_lists=1)


def test_an_error_inside_the_stream() -> None:
    found = parse_stream(event(content="a") + 'data: {"error": {"message": "EngineCore died"}}\n\ndata: [DONE]\n\n')
    assert found is not None
    assert found.done
    assert "EngineCore died" in found.errors[0]


@pytest.mark.parametrize("text", [None, "", "data: [DONE]\n", "data: x\n", ": keep-alive\n", '{"choices": []}'])
def test_no_stream(text: str | None) -> None:
    assert parse_stream(text) is None


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    parse_reply(text)
    parse_stream(text)
    parse_stream(f"data: {text}\n")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["choices", "delta", "message", "content", "tool_calls", "usage"]), inner)
        ),
        max_leaves=12,
    )
)
def test_no_json_raises(document: Any) -> None:
    parse_reply(json.dumps(document))
    parse_reply(json.dumps({"choices": [{"message": document}]}))
    parse_stream(f"data: {json.dumps(document)}\n")
    parse_stream("data: " + json.dumps({"choices": [{"delta": document}]}) + "\n")


def test_a_completion_that_did_not_come_says_why() -> None:
    results = {
        "service.canary": ProbeResult(id="service.canary", rc=500, stdout="EngineCore encountered an issue"),
        "reply.stream": ProbeResult(id="reply.stream", error="TimeoutError: timed out"),
        "reply.tool": ProbeResult(id="reply.tool", rc=200, stdout=completion({"content": "x"})),
    }
    found = read_replies(NodeReading(node="head", reachable=True, results=results))
    assert found is not None
    assert found.canary == ReplyFacts(error="status 500: EngineCore encountered an issue")
    assert found.stream == StreamFacts(error="TimeoutError: timed out")
    assert found.short is None
    assert found.tool is not None
    assert found.tool.error is None


def test_nothing_was_asked() -> None:
    assert read_replies(NodeReading(node="head", reachable=True)) is None


def test_the_requests_are_few_bounded_and_repeatable() -> None:
    loaded = load_case_site()
    made = probes(loaded.site, loaded.profile)
    assert_read_only(made)
    assert [probe.id for probe in made] == ["reply.stream", "reply.short", "reply.tool"]
    for probe in made:
        assert probe.body is not None
        assert probe.body["temperature"] == 0
        assert probe.body["max_tokens"] <= 256
        assert probe.timeout_s <= 30
    assert made[0].body is not None
    assert made[0].body["stream"] is True
