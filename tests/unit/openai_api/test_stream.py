"""A streamed answer is the same whatever pieces its bytes come in, and what is cut or broken is told by its kind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dspark_ops.openai_api import stream
from dspark_ops.openai_api.model import Answer, ToolCall
from dspark_ops.openai_api.shown import Shown
from dspark_ops.openai_api.stream import Assembly, BodyTooLongError, limited, read_events
from tests.unit.facts.captures import FIXTURES
from tests.unit.openai_api.raw_server import DONE, PLAIN, ROLE, delta, event, usage

WALL = datetime(2026, 11, 27, tzinfo=UTC)
REAL = (FIXTURES / "vllm-metrics" / "stream.sse").read_bytes()
REAL_RUNNING = (FIXTURES / "vllm-api" / "stream-running-usage.sse").read_bytes()


def read(pieces: Iterable[bytes]) -> Answer:
    """The answer of a body that comes in these pieces, the first one second after the request, the next a second on."""
    moments = iter(range(1, 1 << 30))

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def run() -> Answer:
        assembly = Assembly(Shown())
        await read_events(body(), assembly, lambda: float(next(moments)))
        return assembly.answer(sent_s=0.0, end_s=0.0, wall=WALL, status=200)

    return finished(run())


def finished(work: Coroutine[Any, Any, Answer]) -> Answer:
    """The result of a coroutine that waits for nothing; a loop for each example would take most of the time."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast("Answer", end.value)
    raise AssertionError("it waits for something")


def timeless(answer: Answer) -> dict[str, Any]:
    document = answer.model_dump(exclude={"first_s", "last_s", "end_s"})
    document["chunks"] = [(chunk["tokens"], chunk["chars"]) for chunk in document["chunks"]]
    return document


def failure(*pieces: bytes) -> tuple[str, str]:
    found = read(pieces).failure
    assert found is not None
    return found.kind, found.message


def test_content_reasoning_and_times() -> None:
    body = [
        ROLE,
        delta({"reasoning": "Weigh"}, tokens=2),
        delta({"reasoning_content": " it."}, tokens=4),
        delta({"content": "Forty"}, tokens=7),
        delta({"content": "-two"}, tokens=9),
        delta({}, tokens=9, finish="stop"),
        usage(9, completion_tokens_details={"reasoning_tokens": 4}, prompt_tokens_details={"cached_tokens": 2}),
        DONE,
    ]
    answer = read(body)
    assert answer.failure is None
    assert (answer.reasoning, answer.content, answer.finish_reason) == ("Weigh it.", "Forty-two", "stop")
    assert answer.usage is not None
    assert answer.usage.model_dump() == {
        "prompt_tokens": 7,
        "completion_tokens": 9,
        "reasoning_tokens": 4,
        "cached_tokens": 2,
    }
    # The role alone came in the first second and is no token; neither are the end and the usage.
    assert (answer.first_s, answer.last_s) == (2.0, 5.0)
    assert [(chunk.at_s, chunk.tokens, chunk.chars) for chunk in answer.chunks] == [
        (2.0, 2, 5),
        (3.0, 4, 4),
        (4.0, 7, 5),
        (5.0, 9, 4),
    ]
    assert (answer.n, answer.n1, answer.ttft_s) == (9, 2, 2.0)
    assert answer.decode_rate == pytest.approx(7 / 3)
    assert answer.request_id == "chatcmpl-1"


def test_events_that_come_together_have_one_time() -> None:
    answer = read([b"".join(PLAIN[:3]), b"".join(PLAIN[3:])])
    assert (answer.first_s, answer.last_s, len(answer.chunks)) == (1.0, 1.0, 2)
    assert answer.decode_rate is None


def test_an_event_has_the_time_of_its_last_byte() -> None:
    whole = b"".join(PLAIN)
    half = whole.index(b"The quick")
    assert read([whole[:half], whole[half:]]).first_s == 2.0


def test_a_held_back_first_chunk_keeps_its_tokens() -> None:
    body = [ROLE, delta({"content": "all at once"}, tokens=44), delta({"content": "!"}, tokens=45, finish="stop")]
    answer = read([*body, usage(45), DONE])
    assert (answer.n1, answer.n) == (44, 45)
    assert answer.decode_rate == 1.0


def test_no_running_usage_is_not_one_token() -> None:
    answer = read([delta({"content": "a"}), delta({"content": "b"}, finish="stop"), usage(2), DONE])
    assert (answer.n, answer.n1, answer.decode_rate) == (2, None, None)
    assert [chunk.tokens for chunk in answer.chunks] == [None, None]


def test_token_ids_give_the_first_tokens_where_they_add_up() -> None:
    body = [
        delta({}, token_ids=[5]),
        delta({"content": "a"}, token_ids=[1, 2]),
        delta({"content": "b"}, token_ids=[3], finish="stop"),
    ]
    assert read([*body, usage(4), DONE]).n1 == 3
    assert read([*body, usage(9), DONE]).n1 is None


def test_no_usage_is_not_estimated() -> None:
    answer = read([delta({"content": "a"}), delta({}, finish="stop"), DONE])
    assert (answer.failure, answer.usage, answer.n) == (None, None, None)


def test_usage_beside_the_finish_counts_and_running_usage_does_not() -> None:
    assert read([delta({"content": "a"}, tokens=1), delta({}, finish="stop", tokens=2), DONE]).n == 2
    cut = read([delta({"content": "a"}, tokens=1), delta({"content": "b"}, tokens=2)])
    assert (cut.n, cut.failure and cut.failure.kind) == (None, "cut")


@pytest.mark.parametrize("counts", [{"prompt_tokens": 1}, {"prompt_tokens": 1, "completion_tokens": -1}, [], "5"])
def test_usage_that_is_no_count_is_absent(counts: Any) -> None:
    body = event({"choices": [], "usage": counts})
    assert read([delta({"content": "a"}, finish="stop"), body, DONE]).usage is None


def call(index: int, **parts: str) -> dict[str, Any]:
    function = {name: parts[name] for name in ("name", "arguments") if name in parts}
    found: dict[str, Any] = {"index": index, "function": function}
    return found | ({"id": parts["id"], "type": "function"} if "id" in parts else {})


def test_tool_calls_are_joined_by_index() -> None:
    body = [
        ROLE,
        delta({"tool_calls": [call(0, id="a", name="get_weather", arguments="")]}, tokens=3),
        delta({"tool_calls": [call(0, arguments='{"city": "Pa'), call(1, id="b", name="get_time")]}, tokens=6),
        delta({"tool_calls": [call(1, arguments="{}"), call(0, arguments='ris"}')]}, tokens=8),
        delta({}, finish="tool_calls", tokens=9),
        usage(9),
        DONE,
    ]
    answer = read(body)
    assert answer.tool_calls == (
        ToolCall(index=0, id="a", name="get_weather", arguments='{"city": "Paris"}'),
        ToolCall(index=1, id="b", name="get_time", arguments="{}"),
    )
    assert (answer.first_s, answer.last_s, answer.n1) == (2.0, 4.0, 3)


def test_a_real_stream_of_several_tokens_an_event() -> None:
    answer = read([REAL])
    assert answer.failure is None
    assert (answer.n, answer.n1, len(answer.chunks), answer.finish_reason) == (60, None, 30, "length")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.cached_tokens, answer.usage.reasoning_tokens) == (11, 0, 0)


def test_a_real_stream_with_running_usage() -> None:
    answer = read([REAL_RUNNING])
    assert answer.failure is None
    assert (answer.reasoning, answer.content) == ("First, weigh the facts.", "It is forty-two!")
    assert (answer.n, answer.n1, answer.finish_reason) == (9, 1, "stop")
    assert [chunk.tokens for chunk in answer.chunks] == [1, 3, 6, 8]
    assert answer.usage is not None
    assert answer.usage.reasoning_tokens == 3


def in_pieces(body: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({0, len(body), *(place % len(body) for place in places)})
    return [body[begin:end] for begin, end in pairwise(ends)]


AWKWARD = b"\xef\xbb\xbf: hello\r\n\r\n" + b"".join(
    [
        ROLE,
        delta({"content": "na\u00efve \U0001f642 "}, tokens=2).replace(b"\n", b"\r\n"),
        b": a comment\nretry: 5\nid: 7\n\n",
        'data: {"choices": [{"index": 0,\ndata: "delta": {"content": "\u65e5\u672c"}}]}\n\n'.encode(),
        delta({"tool_calls": [call(0, id="a", name="f", arguments="{")]}, tokens=5).replace(b"\n", b"\r"),
        delta({"tool_calls": [call(0, arguments="}")]}, tokens=6, finish="tool_calls"),
        usage(6),
        DONE,
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([b"".join(PLAIN), REAL_RUNNING, AWKWARD]), st.lists(st.integers(0, 1 << 16), max_size=40))
def test_the_pieces_make_no_difference(body: bytes, places: list[int]) -> None:
    assert timeless(read(in_pieces(body, places))) == timeless(read([body]))


def test_byte_by_byte_is_the_same() -> None:
    assert timeless(read(AWKWARD[at : at + 1] for at in range(len(AWKWARD)))) == timeless(read([AWKWARD]))


def test_awkward_framing_is_understood() -> None:
    answer = read([AWKWARD])
    assert answer.failure is None
    assert answer.content == "na\u00efve \U0001f642 \u65e5\u672c"
    assert answer.tool_calls == (ToolCall(index=0, id="a", name="f", arguments="{}"),)


def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    mark, body = b"\xef\xbb\xbf", b"".join(PLAIN[1:])
    for pieces in ([mark + body], [mark[:1], mark[1:] + body], [mark, body]):
        assert read(pieces).content == "The quick brown fox."


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([b"".join(PLAIN), REAL_RUNNING, AWKWARD]), st.floats(0, 1, exclude_max=True))
@example(AWKWARD, 0.0)
def test_a_cut_is_a_cut_wherever_it_is(body: bytes, share: float) -> None:
    whole = read([body])
    end = int(share * body.rindex(b"[DONE]"))
    answer = read([body[:end]])
    assert answer.failure is not None
    assert answer.failure.kind == "cut"
    assert whole.content.startswith(answer.content)
    assert whole.chunks[: len(answer.chunks)] == tuple(
        chunk.model_copy(update={"at_s": 1.0}) for chunk in answer.chunks
    )
    if len(answer.chunks) < len(whole.chunks):
        assert answer.usage is None


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n\r\n", b"data: [DONE] \n\n"])
def test_a_done_without_its_empty_line_is_done(end: bytes) -> None:
    assert read([*PLAIN[:-1], end]).failure is None


def test_an_error_in_the_stream() -> None:
    error = event(
        {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}
    )
    answer = read([*PLAIN[:2], error, DONE])
    assert answer.failure is not None
    assert (answer.failure.kind, answer.failure.status) == ("in-band", 500)
    assert answer.failure.message == "EngineCore encountered an issue."
    assert (answer.content, len(answer.chunks)) == ("The quick", 1)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (event({"object": "error", "message": "too old", "code": 400}), "too old"),
        (event({"error": "in words"}), "in words"),
        (b"event: error\ndata: out of luck\n\n", "out of luck"),
        (b'event: error\ndata: {"error": {"message": "named"}}\n\n', "named"),
        (b"event: error\n\n", "an error without a text"),
    ],
)
def test_errors_of_other_shapes(sent: bytes, told: str) -> None:
    assert failure(*PLAIN[:2], sent, DONE) == ("in-band", told)


@pytest.mark.parametrize(
    "sent",
    [
        b"data: {not json}\n\n",
        b"data: 5\n\n",
        b"data: {}\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: \xff\xfe\n\n",
        event({"choices": None}),
        event({"choices": [1]}),
        event({"choices": [{"index": 0}]}),
        delta({"content": 5}),
        delta({"tool_calls": {}}),
        delta({"tool_calls": [{"function": {"arguments": "{}"}}]}),
        delta({"tool_calls": [{"index": 0, "function": {"arguments": {}}}]}),
        event({"choices": [{"index": 0, "delta": {}, "finish_reason": 1}]}),
        DONE,
    ],
)
def test_what_is_not_the_api_is_malformed_and_what_came_stays(sent: bytes) -> None:
    answer = read([PLAIN[0], PLAIN[1], sent, *PLAIN[2:]])
    assert answer.failure is not None
    assert answer.failure.kind == "malformed"
    assert answer.content == "The quick"


def test_halves_of_a_surrogate_pair_meet_and_a_lone_one_can_be_written() -> None:
    body = [delta({"content": "\ud83d"}), delta({"content": "\ude42 \ud83d!"}, finish="stop"), DONE]
    answer = read(body)
    assert answer.content == "\U0001f642 \ufffd!"
    assert json.loads(answer.model_dump_json())["content"] == answer.content


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([*PLAIN, b"\n\n", b"data: ", b"event: error\n"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(
                            [
                                "choices",
                                "index",
                                "delta",
                                "message",
                                "content",
                                "reasoning",
                                "tool_calls",
                                "function",
                                "name",
                                "arguments",
                                "usage",
                                "prompt_tokens",
                                "completion_tokens",
                                "error",
                                "code",
                                "id",
                                "finish_reason",
                                "token_ids",
                            ]
                        ),
                        inner,
                        max_size=4,
                    )
                ),
                max_leaves=12,
            ).map(event),
        ),
        max_size=8,
    )
)
def test_no_bytes_raise(pieces: list[bytes]) -> None:
    """Whatever comes, it is an answer that can be written down."""
    read(pieces).model_dump_json()


def test_a_body_without_end_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_BODY_BYTES", 5000)
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1000
            yield b"x" * 1000

    async def run() -> None:
        await read_events(limited(endless()), Assembly(Shown()), lambda: 0.0)

    with pytest.raises(BodyTooLongError):
        asyncio.run(run())
    assert taken == 6000


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "malformed"),
        (b"[]", "malformed"),
        (b"\xff\xfe\x00", "malformed"),
        (b'{"choices": []}', "malformed"),
        (b'{"choices": [{"index": 0, "message": {"content": "a"}}]}', "malformed"),
        (b'{"choices": [{"index": 0, "message": null, "finish_reason": "stop"}]}', "malformed"),
        (b'{"error": {"message": "no"}}', "in-band"),
    ],
)
def test_a_whole_document_that_is_no_answer(body: bytes, kind: str) -> None:
    assembly = Assembly(Shown())
    assembly.take_document(body)
    assert assembly.failure is not None
    assert assembly.failure.kind == kind
