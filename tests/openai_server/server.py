"""The server's state: engine, counters, cache, vocabulary, what it knows and what it has done."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, Literal, cast, get_args

from tests.openai_server.answers import Knowledge, Solution, Solver, prose
from tests.openai_server.bad_calls import applies, spoil_calls
from tests.openai_server.counters import Counters
from tests.openai_server.garble import forgotten, spoil_text
from tests.openai_server.likelihood import Likelihood
from tests.openai_server.request import Request, Script, script_of
from tests.openai_server.scheduler import Engine
from tests.openai_server.setup import CALL_FAULTS, TEXT_FAULTS, CallFault, Fault, FaultKind, ServerSetup, TextFault
from tests.openai_server.tokens import Vocabulary

Trouble = Literal["cut", "hang", "in-band", "bad-json"]
_TROUBLES: tuple[str, ...] = get_args(Trouble)


@dataclass(frozen=True)
class Served:
    """What was really done to one request: the truth that a gate's verdict is held against.

    faults: kinds that were injected. started: it got past the front door (no 5xx). kept_rate: tokens per second from
    its first delivery to its last as they really were made, the first one's not counted. Times: the loop's seconds.
    """

    number: int
    burst: int
    prompt_tokens: int
    cached_tokens: int
    concurrent: bool
    faults: tuple[str, ...]
    tokens: int
    finish: str | None
    arrival: float
    first_at: float | None
    ended_at: float | None
    kept_rate: float | None = None
    started: bool = True


@dataclass
class _Answer:
    """An answer while faults are put into it. kind: its text fault, else `healthy`."""

    solution: Solution
    kind: str = "healthy"
    finish: str | None = None
    same_ids: bool = False
    trouble: Trouble | None = None

    def garble(self, kind: TextFault, body: dict[str, Any], rng: random.Random, *, keep: bool) -> bool:
        """Garble the text; the first text fault wins."""
        if self.kind != "healthy":
            return False
        self.kind = kind
        right = self.solution.text
        spoilt = spoil_text(kind, right or " ".join(c.arguments for c in self.solution.tool_calls), body, rng)
        if keep:
            self.solution = replace(self.solution, text=f"{right}\n{spoilt}")
        else:
            # Its own end: a garbled answer does not know where the right one would have been cut off.
            self.solution = Solution(spoilt, reasoning=self.solution.reasoning)
        return True

    def spoil(self, kind: CallFault, body: dict[str, Any], rng: random.Random) -> bool:
        """Spoil a call, where there still is one."""
        if not applies(kind, self.solution, body):
            return False
        bad = spoil_calls(kind, self.solution, body, rng)
        self.solution, self.same_ids = bad.solution, self.same_ids or bad.same_ids
        self.finish = bad.finish or self.finish
        return True


class Server:
    """One engine behind one API. `learn` and `solver` make it a healthy model; `served` is its own log."""

    def __init__(self, setup: ServerSetup, solver: Solver | None = None) -> None:
        self.setup = setup
        self.knowledge = Knowledge(solver)
        self.likelihood = Likelihood()
        self.vocabulary = Vocabulary()
        self.counters = Counters(setup, time.time())
        self.engine = Engine(setup, self.counters)
        self.served: list[Served] = []
        self.live: dict[int, Request] = {}
        self.started = time.time()
        self._numbers = 0
        self._answers = 0
        self._burst = -1
        self._place = 0
        self._last_arrival = -1e9
        self._poisoned: set[int] = set()
        self._ids = random.Random(f"{setup.seed}/ids")  # noqa: S311

    # --- for tests

    def learn(
        self,
        body: dict[str, Any],
        text: str = "",
        tool_calls: Iterable[Any] = (),
        *,
        reasoning: str = "",
        finish: str | None = None,
    ) -> None:
        """See Knowledge.learn."""
        self.knowledge.learn(body, text, tool_calls, reasoning=reasoning, finish=finish)

    def learn_case(self, case: Any) -> None:
        """See Knowledge.learn_case."""
        self.knowledge.learn_case(case)

    def injected(self, *kinds: FaultKind) -> list[Served]:
        """Requests that had a fault of these kinds; of any kind where none is named."""
        return [s for s in self.served if (set(s.faults) & set(kinds) if kinds else s.faults)]

    def restart(self) -> None:
        """The engine dies and comes back: what runs fails, the counters are at zero and the cache is empty."""
        for request in list(self.live.values()):
            self.engine.fail(request)
        start = max(time.time(), self.counters.process_start + 1.0)
        self.counters = Counters(self.setup, start)
        self.engine = Engine(self.setup, self.counters)
        self._poisoned.clear()

    # --- for the API

    def new_id(self, prefix: str) -> str:
        return f"{prefix}{self._ids.getrandbits(64):016x}"

    def request(self, body: dict[str, Any], prompt: list[str], max_tokens: int, *, read_cache: bool = True) -> Request:
        """A new request, numbered and put in its burst; not yet submitted."""
        now = asyncio.get_running_loop().time()
        if now - self._last_arrival > self.setup.burst_gap_s:
            self._burst, self._place = self._burst + 1, 0
        else:
            self._place += 1
        self._last_arrival = now
        salt = None if self.setup.lies.ignore_salt else body.get("cache_salt")
        made = Request(
            number=self._numbers,
            body=body,
            prompt=prompt,
            keys=self.engine.cache.keys(prompt, salt),
            max_tokens=max_tokens,
            arrival=now,
            decide=self._decide,
            read_cache=read_cache,
            burst=self._burst,
            place=self._place,
        )
        self._numbers += 1
        self.live[made.number] = made
        return made

    def refused(self, request: Request) -> int | None:
        """The 5xx status that this request gets in place of an answer."""
        for index, fault in enumerate(self.setup.faults):
            if fault.kind not in ("http-500", "http-503"):
                continue
            held = self.engine.cache.cached_tokens(request.keys, len(request.prompt))
            others = sum(1 for r in self.live.values() if r is not request and r.prefilling)
            if self._met(fault, cold=held == 0, concurrent=others > 0) and self._drawn(index, fault, request):
                request.faults.append(fault.kind)
                return int(fault.kind[-3:])
        return None

    def done(self, request: Request, *, started: bool = True) -> None:
        """Write the request into the log; the engine may be restarted by its setup now."""
        if self.live.pop(request.number, None) is None:
            return
        self.served.append(
            Served(
                number=request.number,
                burst=request.burst,
                prompt_tokens=len(request.prompt),
                cached_tokens=request.cached,
                concurrent=request.concurrent,
                faults=tuple(request.faults),
                tokens=request.sent,
                finish=request.finish,
                arrival=request.arrival,
                first_at=request.first_at,
                ended_at=request.ended_at,
                kept_rate=_kept_rate(request),
                started=started,
            )
        )
        self._answers += 1
        if self.setup.restart_after is not None and self._answers % self.setup.restart_after == 0:
            self.restart()

    # --- the answer and its faults

    def _decide(self, request: Request) -> Script:
        """What the request is answered; called when its first token is due, so that coldness is known."""
        body = request.body
        solution = self.knowledge.solve(body, min(self.setup.prose_tokens, request.max_tokens))
        if body.get("ignore_eos"):
            more = prose(request.number, request.max_tokens)
            solution = replace(solution, text=f"{solution.text} {more}", tool_calls=())
        rng = random.Random(f"{self.setup.seed}/{request.number}")  # noqa: S311
        fired = [f for i, f in enumerate(self.setup.faults) if self._fires(i, f, request, solution)]
        solution = self._remembered(request, solution, rng)
        made = _Answer(solution)
        for fault in fired:
            if self._applied(fault, made, request, rng):
                request.faults.append(fault.kind)
        solution = made.solution
        ids = tuple(self.new_id("chatcmpl-tool-") for _ in solution.tool_calls)
        script = script_of(solution, request.max_tokens, ids[:1] * len(ids) if made.same_ids else ids)
        if solution.finish == "length":
            script.engine_finish = "length"
        script.finish = made.finish
        if made.trouble is not None:
            script.trouble, script.stop_at = made.trouble, max(1, len(script.tokens) // 2)
        self.likelihood.remember(script.content, made.kind)
        return script

    def _remembered(self, request: Request, solution: Solution, rng: random.Random) -> Solution:
        """The answer, or what is left of it where the request stands on a poisoned prefix."""
        if request.cold or not request.keys or request.keys[0] not in self._poisoned:
            return solution
        request.faults.append("forgets")
        return replace(solution, text=forgotten(solution.text, rng))

    def _applied(self, fault: Fault, made: _Answer, request: Request, rng: random.Random) -> bool:
        """Put one fault into the answer; whether it did anything to it."""
        kind = fault.kind
        if kind == "nan":
            self.counters.add("corrupted_requests")
        elif kind == "forgets":
            # Only the later turns are wrong; they say so in their own records.
            if request.cold and request.keys:
                self._poisoned.add(request.keys[0])
            return False
        elif kind in TEXT_FAULTS:
            return made.garble(kind, request.body, rng, keep=fault.keep_answer)
        elif kind in CALL_FAULTS:
            return made.spoil(kind, request.body, rng)
        elif kind in _TROUBLES:
            made.trouble = cast("Trouble", kind)
        return True

    def _fires(self, index: int, fault: Fault, request: Request, solution: Solution) -> bool:
        if fault.kind in ("http-500", "http-503"):
            return False
        if not request.read_cache and (fault.kind in TEXT_FAULTS + CALL_FAULTS or fault.kind == "forgets"):
            # A prompt that is scored: its one new token is nobody's answer.
            return False
        if fault.kind in CALL_FAULTS and not applies(fault.kind, solution, request.body):
            return False
        return self._met(fault, cold=request.cold, concurrent=request.concurrent) and self._drawn(index, fault, request)

    def _met(self, fault: Fault, *, cold: bool, concurrent: bool) -> bool:
        return (cold or "cold" not in fault.when) and (concurrent or "concurrent" not in fault.when)

    def _drawn(self, index: int, fault: Fault, request: Request) -> bool:
        return drawn(f"{self.setup.seed}/{index}", fault, request.number, request.burst)


def _kept_rate(request: Request) -> float | None:
    if request.first_delivery is None or request.last_at is None:
        return None
    (began, tokens), ended = request.first_delivery, request.last_at
    return (request.sent - tokens) / (ended - began) if ended > began else None


def drawn(seed: str, fault: Fault, number: int, burst: int) -> bool:
    """Whether a fault falls on a request: one seeded draw.

    With probability sqrt(correlation) a request takes its burst's draw in place of its own, so that two requests of a
    burst are correlated by just that much and the rate stays.
    """
    own = random.Random(f"{seed}/{number}")  # noqa: S311
    shared = own.random() < sqrt(fault.correlation)
    luck = own.random()
    if shared:
        luck = random.Random(f"{seed}/burst {burst}").random()  # noqa: S311
    return luck < fault.rate
