"""What the cloud may cost: the hour, the day, one request, and the same prompt again and again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateway.asking import Answer, asked
from tests.gateway.bench import Bench
from tests.gateway.door import Trouble

#: A tenth of a cent per token either way: ten cents are set aside for 100 tokens of answer; about two are spent.
PRICES = {"input_usd_per_million": 1000.0, "output_usd_per_million": 1000.0}


@pytest.fixture(scope="module")
def dear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A cloud whose hour allows about twenty requests, and whose day allows half of that more."""
    with Bench(
        tmp_path_factory.mktemp("dear"),
        cloud={**PRICES, "hour_usd": 0.5, "day_usd": 0.8, "request_usd": 0.4, "repeats": 3},
    ) as bench:
        yield bench


@pytest.fixture
def empty_books(dear: Bench) -> Bench:
    """Nothing was spent, the engine is away."""
    dear.reset()
    dear.empty_books()
    dear.set_route(503)
    return dear


def until_refused(bench: Bench, **more: Any) -> tuple[list[Answer], Answer]:
    """Ask until the cloud is not asked any more: the answers, and the refusal."""
    answers: list[Answer] = []
    for _ in range(40):
        answer = asked(bench.client, bench.chat(max_tokens=100, **more))
        if answer.status != 200:
            return answers, answer
        answers.append(answer)
    raise AssertionError("40 requests and no end of the budget")


def refused_for(answer: Answer, word: str) -> None:
    """A refusal that says why, and when to come again."""
    assert answer.status in (402, 429, 503), answer.raw
    assert answer.error is not None
    assert word in (answer.reason or ""), answer.reason
    assert int(answer.headers["retry-after"]) > 0
    assert answer.backend


def test_the_hour_is_a_hard_stop(empty_books: Bench) -> None:
    """At its end nothing is sent, unary or streamed; the engine, back again, is not concerned."""
    answers, refusal = until_refused(empty_books)
    assert len(answers) >= 2
    assert len(empty_books.cloud.door.asked()) == len(answers)
    refused_for(refusal, "budget-hour")
    refused_for(asked(empty_books.client, empty_books.chat(max_tokens=100, stream=True)), "budget-hour")
    assert len(empty_books.cloud.door.asked()) == len(answers)
    empty_books.set_route(200)
    assert asked(empty_books.client, empty_books.chat(max_tokens=100)).backend == "local"


def test_spending_never_goes_over_although_all_ask_at_once(empty_books: Bench) -> None:
    """Money is set aside before a request leaves: thirty at once cost no more than the hour allows."""

    def ask(number: int) -> Answer:
        with empty_books.new_client() as mine:
            return asked(mine, empty_books.chat(max_tokens=100, stream=bool(number % 2)))

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(ask, range(30)))
    served = empty_books.cloud.server.served[-len(empty_books.cloud.door.asked()) :]
    spent = sum(s.prompt_tokens + s.tokens for s in served) / 1000
    assert 0 < spent <= 0.5
    assert {a.status for a in answers} > {200}
    for answer in answers:
        if answer.status != 200:
            refused_for(answer, "budget-hour")


def test_a_restart_does_not_forget_what_was_spent(empty_books: Bench) -> None:
    """The books are a file."""
    until_refused(empty_books)
    sent = len(empty_books.cloud.door.asked())
    empty_books.stop_litellm()
    empty_books.start_litellm()
    refused_for(asked(empty_books.client, empty_books.chat(max_tokens=100)), "budget-hour")
    assert len(empty_books.cloud.door.asked()) == sent


def test_a_failed_request_gives_its_money_back(empty_books: Bench) -> None:
    """A provider that refuses does not bill: forty refusals leave the hour as it was."""
    empty_books.cloud.door.trouble = Trouble("status", 503)
    for _ in range(40):
        answer = asked(empty_books.client, empty_books.chat(max_tokens=100))
        assert "budget" not in (answer.reason or "")
    empty_books.cloud.door.trouble = None
    assert asked(empty_books.client, empty_books.chat(max_tokens=100)).backend == "cloud"


def test_one_request_has_a_cap_of_its_own(empty_books: Bench) -> None:
    """450 tokens of answer may cost 45 cents: not sent, although the cloud could take it and the hour would bear it."""
    answer = asked(empty_books.client, empty_books.chat(max_tokens=450))
    assert answer.status in (402, 429, 503), answer.raw
    assert answer.error is not None
    assert "request-cap" in answer.error["message"]
    assert empty_books.cloud.door.asked() == []
    assert asked(empty_books.client, empty_books.chat(max_tokens=100)).backend == "cloud"
    empty_books.set_route(200)
    assert asked(empty_books.client, empty_books.chat(max_tokens=450)).backend == "local"


def test_the_day_is_a_hard_stop_of_its_own(empty_books: Bench) -> None:
    """What was spent ninety minutes ago is out of the hour and still in the day."""
    until_refused(empty_books)
    empty_books.age_books(minutes=90)
    answers, refusal = until_refused(empty_books)
    assert answers
    refused_for(refusal, "budget-day")
    empty_books.age_books(minutes=24 * 60)
    assert asked(empty_books.client, empty_books.chat(max_tokens=100)).backend == "cloud"


def test_books_that_cannot_be_read_close_the_cloud(empty_books: Bench) -> None:
    """What it has cost is not known, so nothing more is spent; the engine goes on."""
    empty_books.spoil_books()
    answer = asked(empty_books.client, empty_books.chat(max_tokens=100))
    assert answer.status == 503, answer.raw
    assert empty_books.cloud.door.asked() == []
    empty_books.set_route(200)
    assert asked(empty_books.client, empty_books.chat(max_tokens=100)).backend == "local"


def test_the_same_prompt_again_and_again_is_a_loop(empty_books: Bench) -> None:
    """The fourth of the same is not sent, however it is sampled; another prompt is."""
    body = empty_books.chat("again", max_tokens=20)
    answers = [asked(empty_books.client, body | {"seed": number}) for number in range(4)]
    assert [a.status for a in answers[:3]] == [200] * 3
    refused_for(answers[3], "loop")
    assert len(empty_books.cloud.door.asked()) == 3
    assert asked(empty_books.client, empty_books.chat("another", max_tokens=20)).backend == "cloud"


@pytest.mark.parametrize("after", [0, 1])
def test_an_answer_that_was_cut_stays_spent(empty_books: Bench, after: int) -> None:
    """The provider had the request and may have worked on it: the books say too much, never too little."""
    empty_books.cloud.door.trouble = Trouble("cut", after=after)
    answer = asked(empty_books.client, empty_books.chat(max_tokens=100))
    assert answer.status == 503, answer.raw
    assert empty_books.spent_micro_usd() >= 100_000
