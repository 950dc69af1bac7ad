"""Each fault is what its name says, at the rate and in the circumstances that were asked for, the same each time."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.openai_server.answers import Call
from tests.openai_server.app import CALL_FAULTS, TEXT_FAULTS, Fault, Server, ServerSetup, make_app
from tests.openai_server.server import drawn
from tests.openai_server.setup import When
from tests.unit.openai_server.asking import body, counters, in_virtual_time, long_body, streamed, whole

_FAST = ServerSetup(prefill_rate=100_000.0, decode_step_s=0.01, metrics="lean")
_RIGHT = "The total of both columns is written below, after the steps.\nTOTAL: 4711"
_ARGUMENTS = {"city": "Paris", "days": 3, "id": "6f1c9a52"}
_TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "get_time", "description": "d", "parameters": {"type": "object"}}},
]
_SYSTEM = " ".join(f"rule{n} says to keep item{n} in box{n}." for n in range(60))


def with_fault(kind: str, **more: Any) -> ServerSetup:
    return _FAST.model_copy(update={"faults": (Fault.model_validate({"kind": kind, "rate": 1.0} | more),)})


def asked(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": "Add both columns."}]
    return body(tools=_TOOLS, max_tokens=400) | {"messages": messages} | fields


def answer(setup: ServerSetup, request: dict[str, Any], calls: tuple[Call, ...] = ()) -> tuple[Any, Any]:
    """(message, finish reason) of an answer that is not streamed."""

    async def scenario(client: httpx.AsyncClient, server: Server) -> tuple[Any, Any]:
        server.learn(request, "" if calls else _RIGHT, calls)
        document = await whole(client, request)
        return document["choices"][0]["message"], document["choices"][0]["finish_reason"]

    return in_virtual_time(setup, scenario)


def _period(words: int) -> Callable[[str], bool]:
    def loops(text: str) -> bool:
        found = text.split()
        return len(found) >= 3 * words and all(a == b for a, b in zip(found, found[words:], strict=False))

    return loops


_CJK = re.compile(r"[\u4e00-\u9fff]")
_IS: dict[str, Callable[[str], bool]] = {
    "char-run": lambda t: re.fullmatch(r"(.)\1{39,}", t) is not None,
    "loop-8": _period(8),
    "loop-30": _period(30),
    "cjk-30": lambda t: len(_CJK.findall(t)) == 30,
    "cjk-6": lambda t: len(_CJK.findall(t)) == 6,
    "dsml-close": lambda t: t.endswith("</｜DSML｜function_calls>"),  # noqa: RUF001
    "tool-xml": lambda t: "<tool_call>" in t and "get_" in t,
    "bos": lambda t: t.startswith("<｜begin▁of▁sentence｜>"),  # noqa: RUF001
    "apostrophe-opening": lambda t: t.startswith("'s, and tools. "),
    "mid-word": lambda t: t[0].islower(),
    "schema-dump": lambda t: t == json.dumps(_TOOLS),
    "word-salad": lambda t: len(t.split()) >= 60 and "." not in t[:-1],
    "narration": lambda t: " ".join(t.split()[11:]) in _SYSTEM and len(t.split()) == 91,
    "empty": lambda t: t == "",
    "off-by-one": lambda t: t == _RIGHT.replace("4711", "4712"),
}


@pytest.mark.parametrize("kind", TEXT_FAULTS)
def test_a_text_fault_is_what_it_says(kind: str) -> None:
    message, finish = answer(with_fault(kind), asked())
    assert _IS[kind](message["content"]), message["content"]
    assert finish == "stop"
    healthy, _ = answer(_FAST, asked())
    assert healthy["content"] == _RIGHT
    assert not _IS[kind](healthy["content"])


def test_a_garble_can_stand_behind_the_right_answer() -> None:
    message, _ = answer(with_fault("dsml-close", keep_answer=True), asked())
    assert message["content"].startswith(_RIGHT)
    assert message["content"].endswith("function_calls>")


def _one(message: Any) -> tuple[str, str]:
    [call] = message["tool_calls"]
    return call["function"]["name"], call["function"]["arguments"]


def test_a_healthy_call_is_untouched() -> None:
    message, finish = answer(_FAST, asked(), (Call("get_weather", json.dumps(_ARGUMENTS)),))
    assert (_one(message), finish) == (("get_weather", json.dumps(_ARGUMENTS)), "tool_calls")


@pytest.mark.parametrize("kind", [k for k in CALL_FAULTS if k not in ("needless-call", "duplicate-ids", "lost-call")])
def test_a_call_fault_is_what_it_says(kind: str) -> None:
    message, finish = answer(with_fault(kind), asked(), (Call("get_weather", json.dumps(_ARGUMENTS)),))
    name, raw = _one(message)
    assert finish == "tool_calls"
    match kind:
        case "wrong-name":
            assert (name, json.loads(raw)) == ("get_weather_v2", _ARGUMENTS)
        case "truncated-call" | "malformed-arguments" | "trailing-bytes":
            with pytest.raises(json.JSONDecodeError):
                json.loads(raw)
        case "duplicate-keys":
            pairs = json.loads(raw, object_pairs_hook=list)
            assert max(Counter(key for key, _ in pairs).values()) == 2
            assert json.loads(raw) == _ARGUMENTS
        case "extra-property":
            assert json.loads(raw).keys() - _ARGUMENTS.keys() == {"unasked_for"}
        case "dsml-in-arguments":
            assert "DSML" in json.loads(raw)["id"]
        case _:
            assert json.loads(raw).keys() == _ARGUMENTS.keys()
            assert json.loads(raw) != _ARGUMENTS


def test_two_calls_can_share_an_id_or_lose_one() -> None:
    calls = (Call("get_weather", "{}"), Call("get_time", "{}"))
    doubled, _ = answer(with_fault("duplicate-ids"), asked(), calls)
    assert len({call["id"] for call in doubled["tool_calls"]}) == 1
    lost, _ = answer(with_fault("lost-call"), asked(), calls)
    assert [call["function"]["name"] for call in lost["tool_calls"]] == ["get_weather"]
    healthy, _ = answer(_FAST, asked(), calls)
    assert len({call["id"] for call in healthy["tool_calls"]}) == 2


def test_a_call_nobody_needs() -> None:
    message, finish = answer(with_fault("needless-call"), asked())
    assert _one(message)[0] in ("get_weather", "get_time")
    assert finish == "tool_calls"


def test_only_the_whole_answer_differs_from_its_stream() -> None:
    request = asked()

    async def scenario(client: httpx.AsyncClient, server: Server) -> tuple[str, str]:
        server.learn(request, "", (Call("get_weather", json.dumps(_ARGUMENTS)),))
        stream = await streamed(client, request)
        deltas = [d["choices"][0]["delta"] for d in stream.documents if d["choices"]]
        parts = [c["function"]["arguments"] for delta in deltas for c in delta.get("tool_calls", ())]
        return "".join(parts), _one((await whole(client, request))["choices"][0]["message"])[1]

    stream, document = in_virtual_time(with_fault("unary-differs"), scenario)
    assert json.loads(stream) == _ARGUMENTS
    assert json.loads(document) != _ARGUMENTS


def test_a_poisoned_session_fails_in_its_later_turns_alone() -> None:
    """The first turn is right; the second is wrong on the poisoned prefix, and right in a session that is not."""

    async def scenario(client: httpx.AsyncClient, server: Server) -> list[str]:
        said = []
        for turn, right in enumerate(("Noted.", "The tag is K-4711.")):
            request = asked(cache_salt="s")
            request["messages"] = [*request["messages"], {"role": "user", "content": f"Turn {turn}"}]
            server.learn(request, right)
            said.append((await streamed(client, request)).content)
        return said

    first, second = in_virtual_time(with_fault("forgets"), scenario)
    assert first == "Noted."
    assert re.fullmatch(r"The tag is K-\d{4}\.", second)
    assert second != "The tag is K-4711."
    assert in_virtual_time(_FAST, scenario) == ["Noted.", "The tag is K-4711."]


def test_nan_shows_in_its_counter_alone() -> None:
    async def scenario(client: httpx.AsyncClient, server: Server) -> tuple[str, float]:
        server.learn(asked(), _RIGHT)
        return (await streamed(client, asked())).content, (await counters(client))["corrupted_requests_total"]

    assert in_virtual_time(with_fault("nan"), scenario) == (_RIGHT, 1.0)
    assert in_virtual_time(_FAST, scenario) == (_RIGHT, 0.0)


def served(setup: ServerSetup, bursts: int, width: int = 6, *, salt: str = "") -> list[Any]:
    """What was done to bursts of cold requests; with a salt they are all the same and warm after the first."""

    async def scenario(client: httpx.AsyncClient, server: Server) -> list[Any]:
        for burst in range(bursts):
            requests = [
                long_body(0 if salt else burst * width + n, 40, max_tokens=2, cache_salt=salt or None)
                for n in range(width)
            ]
            await asyncio.gather(*(streamed(client, one) for one in requests))
            await asyncio.sleep(1.0)
        return server.served

    return in_virtual_time(setup, scenario)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_the_rate_holds_whatever_the_correlation(correlation: float) -> None:
    """4,000 bursts of six at 20 %; of two requests of a burst, both fail at p^2 + correlation p(1 - p)."""
    fault = Fault(kind="empty", rate=0.2, correlation=correlation)
    bursts = [[drawn("seed", fault, 6 * burst + n, burst) for n in range(6)] for burst in range(4000)]
    assert sum(map(sum, bursts)) / 24_000 == pytest.approx(0.2, abs=0.025)
    both = sum(one[0] and one[1] for one in bursts) / 4000
    assert both == pytest.approx(0.04 + correlation * 0.16, abs=0.02)
    if not correlation:
        assert sum(map(any, bursts)) / 4000 == pytest.approx(1 - 0.8**6, abs=0.03)


def test_the_rate_is_that_of_the_answers() -> None:
    found = served(with_fault("empty", rate=0.2), 30)
    assert sum(1 for s in found if s.faults) == pytest.approx(36, abs=16)


def test_the_same_seed_is_the_same_run_and_another_is_not() -> None:
    def run(seed: int) -> list[tuple[str, ...]]:
        setup = with_fault("empty", rate=0.3).model_copy(update={"seed": seed})
        return [s.faults for s in sorted(served(setup, 10), key=lambda s: s.number)]

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize(
    ("when", "width", "salt", "hit"),
    [
        ("always", 1, "", True),
        ("cold", 1, "", True),
        ("cold", 1, "s", False),
        ("concurrent", 1, "", False),
        ("concurrent", 6, "", True),
        ("cold-concurrent", 1, "", False),
        ("cold-concurrent", 6, "", True),
    ],
)
def test_when_a_fault_strikes(when: When, width: int, salt: str, *, hit: bool) -> None:
    """Warm requests are those after the first of one session; a burst of six shares its prefill step."""
    found = served(with_fault("empty", when=when), 3, width, salt=salt)
    later = [s for s in found if s.burst > 0]
    assert {bool(s.faults) for s in later} == {hit}


@pytest.mark.parametrize("kind", ["http-500", "http-503", "cut", "in-band", "bad-json", "hang"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_broken_answer_is_broken_as_its_name_says(kind: str, *, stream: bool) -> None:
    async def scenario(client: httpx.AsyncClient, server: Server) -> Any:
        server.learn(asked(), _RIGHT)
        request = asked(stream=stream)
        try:
            async with asyncio.timeout(600):
                return await streamed(client, request)
        except TimeoutError:
            return "timeout"

    app = make_app(with_fault(kind))
    found = in_virtual_time(app, scenario)
    [log] = app.state.server.served
    assert kind in log.faults
    if kind == "hang":
        assert found == "timeout"
        assert log.finish == "abort"
        return
    assert not found.done or kind == "in-band"
    if kind.startswith("http"):
        assert found.documents[0]["error"]["code"] == int(kind[-3:])
        assert not log.started
    elif kind == "in-band":
        assert found.documents[-1]["error"]["code"] == 500
        assert log.finish == "error"
    elif kind == "cut":
        assert isinstance(found.error, httpx.RemoteProtocolError)
    elif stream:
        assert isinstance(found.error, ValueError)


def test_an_answer_of_one_token_can_be_cut() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> tuple[bool, Exception | None]:
        found = await streamed(client, asked(max_tokens=1))
        return found.done, found.error

    done, error = in_virtual_time(with_fault("cut"), scenario)
    assert not done
    assert isinstance(error, httpx.RemoteProtocolError)
