"""What a perfect model would answer: answers that a test has taught, a test's own solver, else plain prose."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from tests.openai_server.tokens import text_of


@dataclass(frozen=True)
class Call:
    """One tool call; arguments is the raw JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Solution:
    """One whole answer. acceptance: overrides the engine's, by draft position, for a text that is easy or hard to
    guess. finish: None as the engine decides."""

    text: str = ""
    tool_calls: tuple[Call, ...] = ()
    reasoning: str = ""
    acceptance: tuple[float, ...] | None = None
    finish: str | None = None


Solver = Callable[[dict[str, Any]], Solution | None]


def call_of(given: Any) -> Call:
    """A call from what tests have at hand: a Call, a record with name and arguments, an API call, or a pair."""
    if isinstance(given, Call):
        return given
    if isinstance(given, dict):
        function = given.get("function", given)
        return Call(function["name"], _raw(function["arguments"]))
    if isinstance(given, tuple):
        return Call(given[0], _raw(given[1]))
    return Call(given.name or "", _raw(given.arguments))


def _raw(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


@dataclass
class Knowledge:
    """Answers by request. A request is known by its last message and, where several share that text, by its
    cache_salt or the beginning of its first message (where a nonce stands)."""

    solver: Solver | None = None
    _by_salt: dict[tuple[str, str], Solution] = field(default_factory=dict)
    _by_head: dict[tuple[str, str], Solution] = field(default_factory=dict)
    _by_last: dict[str, Solution] = field(default_factory=dict)

    def learn_case(self, case: Any) -> None:
        """The perfect answer of a gate's case: anything with request.body(), ground_truth() and finish_reason."""
        text, calls = case.ground_truth()
        self.learn(case.request.body(), text, calls, finish="length" if case.finish_reason == "length" else None)

    def learn(
        self,
        body: dict[str, Any],
        text: str = "",
        tool_calls: Iterable[Any] = (),
        *,
        reasoning: str = "",
        finish: str | None = None,
    ) -> None:
        """What is answered to this request body, and to any other with the same last message in the same session.

        finish: `length` for an answer that the token limit ends, None for one that ends by itself.
        """
        solution = Solution(text, tuple(call_of(c) for c in tool_calls), reasoning, finish=finish)
        last, head, salt = _keys(body)
        if salt is not None:
            self._by_salt[salt, last] = solution
        self._by_head[head, last] = solution
        self._by_last[last] = solution

    def forget(self) -> None:
        """Empty it: a long run keeps only what it still needs."""
        self._by_salt.clear()
        self._by_head.clear()
        self._by_last.clear()

    def solve(self, body: dict[str, Any], prose_tokens: int) -> Solution:
        """The healthy answer; prose for a request that nobody taught."""
        if self.solver is not None and (found := self.solver(body)) is not None:
            return found
        last, head, salt = _keys(body)
        known = self._by_salt.get((salt, last)) if salt is not None else None
        known = known or self._by_head.get((head, last)) or self._by_last.get(last)
        if known is not None:
            return known
        return Solution(prose(crc32((head + last).encode("utf-8", "surrogatepass")), prose_tokens))


def _keys(body: dict[str, Any]) -> tuple[str, str, str | None]:
    messages = body.get("messages") or [{"content": str(body.get("prompt", ""))}]
    return text_of(messages[-1].get("content")), text_of(messages[0].get("content"))[:256], body.get("cache_salt")


_WHO = (
    "the night clerk", "a retired surveyor", "our neighbour", "the ferry pilot", "an apprentice baker", "the archivist",
    "her older cousin", "the station master", "a travelling tuner", "the gardener", "my landlady", "the clockmaker",
    "a young geologist", "the choir leader", "his former teacher", "the harbour cook", "a quiet translator",
    "the beekeeper", "the night nurse", "an amateur astronomer",
)  # fmt: skip
_DID = (
    "measured", "repaired", "described", "carried", "sorted", "painted", "forgot", "borrowed", "examined", "sketched",
    "weighed", "catalogued", "rescued", "unpacked", "copied", "polished", "misplaced", "delivered", "hid", "auctioned",
)  # fmt: skip
_WHAT = (
    "the copper kettle", "two crates of lemons", "a map of the old canal", "the brass telescope", "seven wool blankets",
    "the broken barometer", "a bundle of letters", "the spare rudder", "some walnut boards", "the parish ledger",
    "a jar of buttons", "the northern fence", "an unsigned contract", "the church bell", "three bicycles",
    "a tray of seedlings", "the stone bridge", "the missing keys", "a violin without strings", "the winter curtains",
)  # fmt: skip
_WHEN = (
    "before the rain began", "after the market closed", "during the long drought", "on the last day of term",
    "while the kettle sang", "when the ice gave way", "at low tide", "under a pale moon", "in the second week of May",
    "as soon as the road was clear", "without a word to anyone", "for the third time that year",
    "because the lamp had gone out", "although nobody had asked", "between two trains", "with the window open",
)  # fmt: skip
_THEN = (
    "Nobody thought it odd", "It took most of an afternoon", "That settled the question", "The result was a surprise",
    "Later the story was told differently", "There was a small reward", "The dog watched from the stairs",
    "Only the postman noticed", "It cost less than a loaf of bread", "Everything else could wait",
    "The letter arrived too late", "Two witnesses remembered it", "A thin mist came up from the river",
    "Supper went cold on the table", "The children drew pictures of it", "By spring it had become a habit",
)  # fmt: skip
WORDS: tuple[str, ...] = tuple(sorted({w for said in _WHO + _DID + _WHAT + _WHEN + _THEN for w in said.split()}))


def prose(seed: int, tokens: int) -> str:
    """Plain prose of about so many tokens (never fewer), in paragraphs, different for each seed."""
    rng = random.Random(seed)  # noqa: S311
    sentences: list[str] = []
    length = 0
    while length < tokens:
        who = rng.choice(_WHO)
        sentence = f"{who[0].upper()}{who[1:]} {rng.choice(_DID)} {rng.choice(_WHAT)} {rng.choice(_WHEN)}."
        if rng.random() < 0.4:
            sentence += f" {rng.choice(_THEN)}."
        sentences.append(sentence + ("\n\n" if rng.random() < 0.15 else " "))
        length += len(sentence) // 6 + 2
    return "".join(sentences).rstrip()
