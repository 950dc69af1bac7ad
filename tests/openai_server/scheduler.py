"""The engine: continuous batching with chunked prefill as vLLM schedules it, and answers on a fixed timetable."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Coroutine
from typing import Any

from tests.openai_server.cache import PrefixCache
from tests.openai_server.counters import Counters
from tests.openai_server.request import Request
from tests.openai_server.setup import ServerSetup


class Engine:
    """Runs requests in the event loop that submits them. Nothing here reads the wall clock."""

    def __init__(self, setup: ServerSetup, counters: Counters) -> None:
        self.setup = setup
        self.counters = counters
        self.cache = PrefixCache(setup.block_size, setup.kv_blocks)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self._rng = random.Random(f"{setup.seed}/engine")  # noqa: S311
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stepping = False
        self._deadline = 0.0

    def submit(self, request: Request) -> None:
        """Take a request; its outputs begin to come when its prompt is computed."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._stepping, self._tasks = loop, False, set()
            self.waiting.clear()
            self.running.clear()
        if self.setup.known_rate is not None:
            self.running.append(request)
            self._admit(request)
            self._spawn(self._paced(request))
        else:
            self.waiting.append(request)
            self._go()
        self._gauges()

    def abort(self, request: Request) -> None:
        """The client has gone."""
        if request.finish is None:
            self._end(request, "abort")

    def fail(self, request: Request) -> None:
        """The engine gives the request up."""
        if request.finish is None:
            self._end(request, "error")

    def _go(self) -> None:
        if not self._stepping:
            self._stepping = True
            self._spawn(self._steps())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the scheduler

    async def _steps(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.time()
        try:
            while plan := self._plan():
                prefill = sum(n for r, n in plan if r.prefilling)
                decoding = any(not r.prefilling for r, _ in plan)
                seconds = prefill / self.setup.prefill_rate + (self.setup.decode_step_s if decoding else 0.0)
                # Absolute deadlines: what one sleep loses the next one makes good.
                seconds *= self.setup.time_scale
                self._deadline = max(self._deadline, loop.time() - seconds) + seconds
                await asyncio.sleep(max(0.0, self._deadline - loop.time()))
                self._carry_out(plan, loop.time())
        finally:
            self._stepping = False

    def _plan(self) -> list[tuple[Request, int]]:
        """(request, tokens to compute) of the next step; empty where there is nothing to do."""
        budget, plan = self.setup.max_num_batched_tokens, []
        for request in self.running:
            if request.frozen:
                continue
            wanted = len(request.prompt) - request.computed if request.prefilling else 1 + self.setup.k
            size = min(budget, wanted)
            if size > 0:
                plan.append((request, size))
                budget -= size
        while self.waiting and budget > 0 and self._room_for(self.waiting[0]):
            request = self.waiting.popleft()
            self.running.append(request)
            self._admit(request)
            size = min(budget, len(request.prompt) - request.computed)
            plan.append((request, size))
            budget -= size
        self._mark_concurrent()
        self._gauges()
        return plan

    def _room_for(self, request: Request) -> bool:
        if len(self.running) >= self.setup.max_num_seqs or (self.setup.lies.serialise and self.running):
            return False
        return self._blocks(request) + sum(map(self._blocks, self.running)) <= self.setup.kv_blocks or not self.running

    def _carry_out(self, plan: list[tuple[Request, int]], now: float) -> None:
        tokens = 0
        for request, size in plan:
            if request.finish is not None:
                continue
            if request.prefilling:
                request.computed += size
                tokens += size
                self.cache_blocks(request)
                if request.computed >= len(request.prompt):
                    self._first(request, now)
                    self._deliver(request, 1, now)
            else:
                tokens += self._decode(request, now)
        self.counters.observe("iteration_tokens_total", float(tokens))
        self._gauges()

    def _decode(self, request: Request, now: float) -> int:
        script = request.script
        assert script is not None
        size, k = 1, self.setup.k
        left = len(script.tokens) - request.sent
        if k and self.setup.speculation is not None:
            luck = self._rng.random()
            rates = (script.acceptance or self.setup.speculation.acceptance)[:k]
            # One draw for all positions: the share accepted at each is then exactly its rate.
            size = min(left, 1 + sum(1 for rate in rates if luck < rate))
            self._draft(request, size - 1, k)
        self._deliver(request, size, now)
        return size

    # --- a fixed timetable

    async def _paced(self, request: Request) -> None:
        loop, rate = asyncio.get_running_loop(), self.setup.known_rate
        assert rate is not None
        self._mark_concurrent()
        await asyncio.sleep(max(0.0, request.arrival + rate.ttft_s * self.setup.time_scale - loop.time()))
        if request.finish is not None:
            return
        request.computed = len(request.prompt)
        self.cache_blocks(request)
        self._first(request, loop.time())
        assert request.script is not None
        sizes = iter(rate.steps(len(request.script.tokens)))
        for index, (offset, tokens) in enumerate(rate.timetable(len(request.script.tokens))):
            await asyncio.sleep(max(0.0, request.arrival + offset * self.setup.time_scale - loop.time()))
            if request.finish is not None or request.frozen:
                return
            stepped = 0
            while stepped < tokens:
                size = next(sizes)
                if self.setup.k and (index or stepped):
                    self._draft(request, size - 1, self.setup.k)
                stepped += size
            self._deliver(request, tokens, loop.time())

    # --- what both share

    def _admit(self, request: Request) -> None:
        request.admitted = asyncio.get_running_loop().time()
        lies, total = self.setup.lies, len(request.prompt)
        if not (self.setup.prefix_caching and request.read_cache):
            return
        request.cached = self.cache.cached_tokens(request.keys, total)
        warm = (lies.always_warm and request.number > 0) or (
            lies.cold_of_burst is not None and request.place >= lies.cold_of_burst
        )
        if warm:
            request.cached = max(0, (total - 1) // self.setup.block_size) * self.setup.block_size
        request.computed = request.cached
        request.reported_cached = 0 if lies.hide_hits else request.cached
        self.counters.add("prefix_cache_queries", total)
        self.counters.add("prefix_cache_hits", request.reported_cached)
        self.counters.add("prompt_tokens_cached", request.reported_cached)

    def cache_blocks(self, request: Request) -> None:
        """Keep the blocks computed so far, as far as they are whole."""
        if self.setup.prefix_caching:
            self.cache.store(request.keys[: request.computed // self.setup.block_size])

    def _mark_concurrent(self) -> None:
        filling = [r for r in self.running if r.prefilling]
        if len(filling) > 1:
            for request in filling:
                request.concurrent = True

    def _first(self, request: Request, now: float) -> None:
        request.first_at = request.last_at = now
        request.script = request.decide(request)
        self.counters.add("prompt_tokens", len(request.prompt))
        self.counters.observe("time_to_first_token_seconds", now - request.arrival)
        self.counters.observe("request_queue_time_seconds", (request.admitted or now) - request.arrival)
        self.counters.observe("request_prefill_time_seconds", now - (request.admitted or now))

    def _draft(self, request: Request, accepted: int, k: int) -> None:
        request.drafts += 1
        request.accepted.append(accepted)
        self.counters.draft(accepted, k)

    def _deliver(self, request: Request, size: int, now: float) -> None:
        script = request.script
        assert script is not None
        size = min(size, len(script.tokens) - request.sent)
        request.sent += size
        if request.first_delivery is None:
            request.first_delivery = (now, request.sent)
        self.counters.add("generation_tokens", size)
        if request.last_at is not None and now > request.last_at:
            self.counters.observe("inter_token_latency_seconds", now - request.last_at)
        request.last_at = now
        if script.trouble == "hang" and request.sent >= script.stop_at:
            request.frozen = True
            request.outputs.put_nowait(min(request.sent, script.stop_at))
            return
        if request.sent >= len(script.tokens):
            self._end(request, script.engine_finish)
        else:
            request.outputs.put_nowait(request.sent)

    def _end(self, request: Request, reason: str) -> None:
        request.finish, request.ended_at = reason, asyncio.get_running_loop().time()
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self.counters.finished(request, reason)
        if request.sent:
            request.outputs.put_nowait(request.sent)
        request.outputs.put_nowait(None)
        self._gauges()
        if self.waiting:
            self._go()

    def _blocks(self, request: Request) -> int:
        return -(-(len(request.prompt) + request.sent) // self.setup.block_size)

    def _gauges(self) -> None:
        used = sum(-(-(r.computed + r.sent) // self.setup.block_size) for r in self.running)
        self.counters.set("num_requests_running", len(self.running))
        self.counters.set("num_requests_waiting", len(self.waiting))
        self.counters.set("kv_cache_usage_perc", min(1.0, used / self.setup.kv_blocks))
