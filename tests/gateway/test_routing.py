"""Which backend answers: drain, flapping, a long prefill, a supervisor that restarts, and limits that are declared."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateway.asking import Answer, asked, reading
from tests.gateway.bench import LOCAL_WORD, Bench, only_words_of
from tests.gateway.door import Trouble
from tests.gateway.stand_in import wait_until

FORMS = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


def test_a_drain_lets_a_stream_finish_and_sends_new_requests_to_the_cloud(bench: Bench) -> None:
    """404 of the status port: nothing that runs is cut, nothing new begins; back at 200."""
    bench.local.door.shut(after=2)
    with reading(bench.client, bench.chat(stream=True)) as running:
        running.until_events(2)
        bench.set_route(404)
        meanwhile = [asked(bench.client, bench.chat(stream=stream)) for stream in (False, True)]
        bench.local.door.release()
        finished = running.rest()
    assert [a.backend for a in meanwhile] == ["cloud", "cloud"]
    assert finished.backend == "local"
    assert finished.done
    assert finished.finish == "stop"
    only_words_of(LOCAL_WORD, finished)
    assert len(bench.local.door.asked()) == 1
    bench.set_route(200)
    assert asked(bench.client, bench.chat()).backend == "local"


def test_a_status_that_flaps_never_fails_a_request(bench: Bench) -> None:
    """Ten changes under four clients: every request is answered whole by one of the two, the last by the engine."""
    answers: list[Answer] = []
    stop = threading.Event()

    def client(number: int) -> None:
        with bench.new_client() as mine:
            while not stop.is_set():
                answers.append(asked(mine, bench.chat(f"flap {number}", stream=bool(number % 2))))

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        for route in (404, 200) * 5:
            bench.set_route(route)
            so_far = len(answers)
            wait_until(lambda so_far=so_far: len(answers) > so_far + 4, "requests are answered")  # type: ignore[misc]
        stop.set()
        for done in clients:
            done.result(90)
    assert {a.status for a in answers} == {200}
    assert {a.backend for a in answers} == {"local", "cloud"}
    assert all(a.finish == "stop" and a.broken is None for a in answers)
    assert asked(bench.client, bench.chat()).backend == "local"


@FORMS
def test_a_long_prefill_stays_local(bench: Bench, stream: bool) -> None:
    """A first token that takes long is no fault: nothing times out, nothing is tried elsewhere, nothing is opened."""
    bench.local.door.shut()
    opening = threading.Timer(6.0, bench.local.door.release)
    opening.start()
    answer = asked(bench.client, bench.chat(stream=stream))
    assert (answer.status, answer.backend) == (200, "local")
    assert len(bench.local.door.asked()) == 1
    assert bench.cloud.door.asked() == []
    assert asked(bench.client, bench.chat()).backend == "local"


def test_a_dead_engine_is_not_asked_again_and_again(bench: Bench) -> None:
    """With the status down, twelve requests touch the engine not once; at 200 the next one is the engine's."""
    bench.set_route(503)
    answers = [asked(bench.client, bench.chat(stream=bool(n % 2))) for n in range(12)]
    assert [a.backend for a in answers] == ["cloud"] * 12
    assert bench.local.door.asked() == []
    bench.set_route(200)
    assert asked(bench.client, bench.chat()).backend == "local"


def test_a_supervisor_that_restarts_cuts_no_stream(bench: Bench) -> None:
    """Two failed checks are not a dead engine: fall 3."""
    bench.local.door.shut(after=2)
    with reading(bench.client, bench.chat(stream=True)) as running:
        running.until_events(2)
        bench.status.failing = 2
        wait_until(lambda: bench.status.failing == 0, "two checks have failed")
        before = bench.status.checks
        wait_until(lambda: bench.status.checks > before + 1, "the status is asked again")
        bench.local.door.release()
        finished = running.rest()
    assert finished.done
    assert finished.error is None
    only_words_of(LOCAL_WORD, finished)


def test_a_status_port_that_is_gone_sends_all_to_the_cloud(bench: Bench) -> None:
    """Towards cost, not towards an outage; an alert says so elsewhere."""
    bench.status.die()
    bench.wait_shim(up=False)
    assert asked(bench.client, bench.chat()).backend == "cloud"
    bench.status.revive()
    bench.wait_shim(up=True)
    assert asked(bench.client, bench.chat()).backend == "local"


@FORMS
def test_tool_calls_work_on_both(bench: Bench, stream: bool) -> None:
    """The same call comes whole from either, with finish_reason `tool_calls`."""
    for route, backend in ((200, "local"), (503, "cloud")):
        bench.set_route(route)
        answer = asked(bench.client, bench.with_tools(stream=stream))
        assert answer.backend == backend
        assert answer.tool_calls == [("weather", '{"city": "Bergen"}')]
        assert answer.finish == "tool_calls"
    assert bench.local.door.asked()[0].body["tools"] == bench.cloud.door.asked()[0].body["tools"]


@pytest.mark.parametrize("form", ["unary", "stream with usage"])
def test_usage_is_what_the_backend_counted(bench: Bench, form: str) -> None:
    """Neither invented nor lost on the way."""
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if form != "unary" else {}
    for route, backend in ((200, bench.local), (503, bench.cloud)):
        bench.set_route(route)
        usage = asked(bench.client, bench.chat(**options)).usage
        served = backend.server.served[-1]
        assert usage is not None
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (served.prompt_tokens, served.tokens)
        assert usage["total_tokens"] == served.prompt_tokens + served.tokens


def test_a_stream_keeps_its_framing(bench: Bench) -> None:
    """Server-sent events, unbuffered: each is handed on while the next is not made yet."""
    bench.local.door.shut(after=2)
    with reading(bench.client, bench.chat(stream=True)) as stream:
        first = stream.until_events(2)
        assert first.headers["content-type"].startswith("text/event-stream")
        assert "content-length" not in first.headers
        assert first.headers.get("content-encoding") is None
        bench.local.door.release()
        answer = stream.rest()
    for part in answer.raw.decode().strip().split("\n\n"):
        assert part.startswith("data: ")
        assert "\n" not in part
    assert answer.raw.endswith(b"data: [DONE]\n\n")
    assert len({event["id"] for event in answer.events}) == 1
    assert sum("role" in choice["delta"] for choice in answer.choices) == 1


def test_sampling_and_unknown_fields_reach_the_engine(bench: Bench) -> None:
    """What vLLM understands beyond OpenAI's fields is not lost in the gateway."""
    asked(
        bench.client,
        bench.chat(temperature=0.3, seed=7, top_k=20, chat_template_kwargs={"thinking": True}, cache_salt="s"),
    )
    body = bench.local.door.asked()[0].body
    assert (body["temperature"], body["seed"], body["top_k"]) == (0.3, 7, 20)
    assert body["chat_template_kwargs"] == {"thinking": True}
    assert body["cache_salt"] == "s"


# --- limits


def prompt_of(tokens: int) -> str:
    """A prompt of about so many tokens, by either count: one word of four letters is one token of the engine's."""
    return "word " * tokens


def test_a_prompt_that_only_the_engine_takes_is_answered_by_it(bench: Bench) -> None:
    """300 000 tokens."""
    answer = asked(bench.client, bench.chat(prompt_of(300_000), max_tokens=16))
    assert (answer.status, answer.backend) == (200, "local")


def test_a_prompt_that_only_the_engine_takes_waits_for_it(bench: Bench) -> None:
    """300 000 tokens with the engine away: 503 with a time to come back; never cut to size, the cloud never asked."""
    bench.set_route(503)
    for stream in (False, True):
        answer = asked(bench.client, bench.chat(prompt_of(300_000), max_tokens=16, stream=stream))
        assert answer.status == 503, answer.raw[:500]
        assert int(answer.headers["retry-after"]) > 0
        assert answer.backend
        assert answer.reason
    assert bench.cloud.door.asked() == []


def test_a_prompt_that_neither_takes_is_refused_with_both_limits(bench: Bench) -> None:
    """1 200 000 tokens: 400 before anything is asked."""
    for route in (200, 503):
        bench.set_route(route)
        answer = asked(bench.client, bench.chat(prompt_of(1_200_000), max_tokens=16))
        assert answer.status == 400, answer.raw[:500]
        assert answer.error is not None
        assert str(bench.local_limit) in answer.error["message"]
        assert str(bench.cloud_limit) in answer.error["message"]
        assert answer.backend
        assert answer.reason
    assert bench.local.door.asked() == []
    assert bench.cloud.door.asked() == []


def test_the_answer_counts_towards_the_limit(bench: Bench) -> None:
    """A short prompt that asks for 250 000 tokens of answer does not fit the cloud's window."""
    bench.set_route(503)
    answer = asked(bench.client, bench.chat(max_tokens=250_000))
    assert answer.status == 503
    assert bench.cloud.door.asked() == []


# --- what never leaves


@FORMS
def test_a_local_only_route_is_answered_by_the_engine(bench: Bench, stream: bool) -> None:
    """While it is there."""
    answer = asked(bench.client, bench.chat(model=bench.local_only_model, stream=stream))
    assert (answer.status, answer.backend) == (200, "local")


@FORMS
def test_a_client_of_private_things_never_leaves(bench: Bench, stream: bool) -> None:
    """Its key is marked so: whatever model it names, the cloud hears nothing."""
    with bench.new_client(key=bench.private_key) as private:
        assert asked(private, bench.chat(stream=stream)).backend == "local"
        bench.local.door.trouble = Trouble("status", 503)
        answers = [asked(private, bench.chat(stream=stream)), asked(private, bench.chat(max_tokens=1_010_000))]
    assert [a.status for a in answers] == [503, 503]
    assert all(int(a.headers["retry-after"]) > 0 for a in answers)
    assert bench.cloud.door.seen == []


@FORMS
@pytest.mark.parametrize("fault", ["status", "dead", "cut"])
def test_a_local_only_route_never_leaves(bench: Bench, fault: str, stream: bool) -> None:
    """Whatever the engine does: 503 with a time to come back, and the cloud hears nothing."""
    if fault == "status":
        bench.set_route(503)
    elif fault == "dead":
        bench.local.die()
    else:
        bench.local.door.trouble = Trouble("cut")
    answer = asked(bench.client, bench.chat(model=bench.local_only_model, stream=stream))
    assert answer.status == 503, answer.raw
    assert int(answer.headers["retry-after"]) > 0
    assert answer.backend
    assert bench.cloud.door.seen == []
