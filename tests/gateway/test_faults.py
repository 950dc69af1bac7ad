"""Each fault of the engine, unary and streamed, before and after the first token reached the client."""

from __future__ import annotations

import threading

import pytest

from tests.gateway.asking import Answer, asked, chat, reading
from tests.gateway.bench import CLOUD_WORD, LOCAL_WORD, Bench, only_words_of
from tests.gateway.door import Trouble
from tests.gateway.stand_in import wait_until

BEFORE: dict[str, Trouble | None] = {
    "503": Trouble("status", 503),
    "500": Trouble("status", 500),
    "cut": Trouble("cut"),
    "refused": None,
    "hang until the status flips": Trouble("hang"),
}
AFTER: dict[str, Trouble | None] = {
    "error in the stream": Trouble("in-band", after=3),
    "cut": Trouble("cut", after=3),
    "engine dies": None,
    "hang until the status flips": Trouble("hang", after=3),
}
FORMS = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


@FORMS
def test_a_healthy_engine_answers(bench: Bench, stream: bool) -> None:
    """The cloud is not asked, and the header says who answered."""
    answer = asked(bench.client, bench.chat(stream=stream))
    assert (answer.status, answer.backend) == (200, "local")
    assert answer.reason
    only_words_of(LOCAL_WORD, answer)
    assert answer.finish == "stop"
    assert answer.done is stream
    assert len(bench.local.door.asked()) == 1
    assert bench.cloud.door.asked() == []


@FORMS
@pytest.mark.parametrize("fault", BEFORE)
def test_a_fault_before_the_first_token_is_answered_by_the_cloud(bench: Bench, fault: str, stream: bool) -> None:
    """Whole and once: one try at the engine, one at the cloud, and nothing of the engine in the answer."""
    bench.local.door.trouble = BEFORE[fault]
    if fault == "refused":
        bench.local.die()
    if fault.startswith("hang"):
        answer = _flipped_while_waiting(bench, stream=stream)
    else:
        answer = asked(bench.client, bench.chat(stream=stream))
    assert (answer.status, answer.broken) == (200, None)
    assert answer.backend == "cloud"
    assert answer.reason
    only_words_of(CLOUD_WORD, answer)
    assert answer.finish == "stop"
    assert len(bench.local.door.asked()) == (0 if fault == "refused" else 1)
    assert len(bench.cloud.door.asked()) == 1


def _flipped_while_waiting(bench: Bench, *, stream: bool) -> Answer:
    """Ask; when the engine has the request and says nothing, the supervisor's status goes down."""
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(asked(bench.client, bench.chat(stream=stream))))
    asking.start()
    wait_until(lambda: bench.local.door.running == 1, "the engine has the request")
    bench.status.route = 503
    asking.join(90)
    assert answers, "no answer although the status port says that the engine is down"
    return answers[0]


@pytest.mark.parametrize("fault", AFTER)
def test_a_stream_that_breaks_after_its_first_token_ends_in_one_error(bench: Bench, fault: str) -> None:
    """No second model goes on with it: one error object, no `[DONE]`, no finish_reason, the cloud is not asked."""
    bench.local.door.shut(after=3)
    bench.local.door.trouble = AFTER[fault]
    with reading(bench.client, bench.chat(stream=True)) as stream:
        stream.until_events(2)
        if fault == "engine dies":
            bench.local.die()
        else:
            bench.local.door.release()
        if fault.startswith("hang"):
            bench.status.route = 503
        answer = stream.rest()
    assert (answer.status, answer.backend) == (200, "local")
    only_words_of(LOCAL_WORD, answer)
    errors = [event["error"] for event in answer.events if "error" in event]
    assert len(errors) == 1, answer.raw
    assert errors[0]["message"]
    assert not answer.done
    assert answer.finish is None
    assert bench.cloud.door.asked() == []


def test_a_call_that_was_cut_has_no_finish_reason(bench: Bench) -> None:
    """A client that runs tools only at finish_reason `tool_calls` runs nothing of a broken stream."""
    bench.local.door.shut(after=4)
    bench.local.door.trouble = Trouble("cut", after=4)
    with reading(bench.client, bench.with_tools(stream=True)) as stream:
        stream.until_events(2)
        bench.local.door.release()
        answer = stream.rest()
    assert answer.error is not None
    assert answer.finish is None
    assert not answer.done
    assert bench.cloud.door.asked() == []


@pytest.mark.parametrize("fault", ["cut", "hang until the status flips"])
def test_a_document_that_breaks_in_its_middle_is_never_two_models(bench: Bench, fault: str) -> None:
    """Nothing of a document had reached the client: the cloud's whole answer, and no word of the engine's."""
    kind = "cut" if fault == "cut" else "hang"
    bench.local.door.trouble = Trouble(kind, after=1)  # type: ignore[arg-type]
    answer = asked(bench.client, bench.chat()) if fault == "cut" else _flipped_while_waiting(bench, stream=False)
    assert (answer.status, answer.backend) == (200, "cloud")
    only_words_of(CLOUD_WORD, answer)
    assert len(bench.cloud.door.asked()) == 1


@FORMS
def test_a_prompt_that_the_engine_finds_too_long_is_not_sent_to_the_cloud(bench: Bench, stream: bool) -> None:
    """The cloud's window is the smaller one: it would cost money and be refused again."""
    bench.local.door.trouble = Trouble("status", 400)
    answer = asked(bench.client, bench.chat(stream=stream))
    assert answer.status == 400
    assert answer.error is not None
    assert "maximum context length" in answer.error["message"]
    assert answer.backend
    assert bench.cloud.door.asked() == []


@FORMS
def test_both_down_is_a_clear_503(bench: Bench, stream: bool) -> None:
    """Nobody answers: said at once, with a time to come back, and each was tried once."""
    bench.local.die()
    bench.cloud.die()
    answer = asked(bench.client, bench.chat(stream=stream))
    assert answer.status == 503, answer.raw
    assert int(answer.headers["retry-after"]) > 0
    assert answer.error is not None
    assert answer.backend
    assert answer.reason


@FORMS
@pytest.mark.parametrize(
    ("status", "expected"), [(429, {429, 503}), (401, {502, 503}), (500, {502, 503}), (503, {503})]
)
def test_a_cloud_that_refuses_is_asked_once(bench: Bench, status: int, expected: set[int], stream: bool) -> None:
    """Engine away and the cloud says no: an error that says so, no storm of retries, and no 401 that a client would
    take for its own key's."""
    bench.set_route(503)
    bench.cloud.door.trouble = Trouble("status", status, headers=(("retry-after", "7"),) if status == 429 else ())
    for _ in range(3):
        answer = asked(bench.client, bench.chat(stream=stream))
        assert answer.status in expected, answer.raw
        assert answer.error is not None
        assert answer.error["message"]
        assert answer.backend
        assert answer.reason
    assert len(bench.cloud.door.asked()) == 3


def test_a_slow_cloud_is_waited_for(bench: Bench) -> None:
    """Failed over once, it is not asked a second time while it thinks."""
    bench.set_route(503)
    bench.cloud.door.shut()
    opening = threading.Timer(4.0, bench.cloud.door.release)
    opening.start()
    answer = asked(bench.client, bench.chat())
    assert (answer.status, answer.backend) == (200, "cloud")
    assert len(bench.cloud.door.asked()) == 1


def test_a_cloud_that_is_cut_after_its_first_token_ends_in_one_error(bench: Bench) -> None:
    """The same contract on the second backend; the engine, which is back meanwhile, does not go on with it."""
    bench.set_route(503)
    bench.cloud.door.shut(after=3)
    bench.cloud.door.trouble = Trouble("cut", after=3)
    with reading(bench.client, chat(model=bench.model, stream=True)) as stream:
        stream.until_events(2)
        bench.set_route(200)
        bench.cloud.door.release()
        answer = stream.rest()
    assert answer.backend == "cloud"
    only_words_of(CLOUD_WORD, answer)
    assert answer.error is not None
    assert answer.finish is None
    assert not answer.done
    assert bench.local.door.asked() == []
