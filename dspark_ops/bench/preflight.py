"""Before the first measurement: which model, how long its window is, who else is there, which prompts it can hold."""

from __future__ import annotations

import json
import math
import os
import platform
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from dspark_ops.bench.corpus.build import long_prompt, make_prompts
from dspark_ops.bench.corpus.model import ContentClass, Prompt
from dspark_ops.bench.corpus.names import Names, notes
from dspark_ops.bench.plan import BenchPlan
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.openai_api.model import Answer, ChatRequest, EngineCounters, Record

_POLL_S = 1.0
_CALIBRATION_CHARS = 3000
#: Of an answer to a long prompt: enough for a rate at that depth.
LONG_ANSWER_TOKENS = 128
# What a chat template adds, and what a count by characters may be off.
_TEMPLATE_TOKENS = 64
_MARGIN = 1.15
_LONG_MARGIN = 0.97
_LEAST_CONTEXT = 200
_ATTEMPTS = 5


class Served(Protocol):
    """One entry of `/v1/models`."""

    @property
    def id(self) -> str: ...
    @property
    def max_model_len(self) -> int | None: ...


class Api(Protocol):
    """What the run needs of a client (`openai_api.client.ApiClient`)."""

    async def chat(self, request: ChatRequest, *, timeout_s: float) -> Answer: ...
    async def scrape(self) -> EngineCounters: ...
    async def models(self) -> Sequence[Served]: ...
    async def version(self) -> str | None: ...


class Prompts(Record):
    """The prompts of a run by class, the long ones apart, and what the window could not hold."""

    by_class: dict[ContentClass, tuple[Prompt, ...]]
    long: tuple[tuple[int, Prompt], ...] = ()
    skipped: tuple[str, ...] = ()

    def all(self) -> dict[str, Prompt]:
        """Every prompt by its key."""
        found = {prompt.key: prompt for prompts in self.by_class.values() for prompt in prompts}
        return found | {prompt.key: prompt for _, prompt in self.long}

    def keys(self) -> dict[ContentClass, tuple[str, ...]]:
        """The keys by class."""
        return {name: tuple(prompt.key for prompt in prompts) for name, prompts in self.by_class.items()}


def client_conditions() -> dict[str, str]:
    """This side's machine, for the header: a busy one measures itself."""
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": str(os.cpu_count() or "unknown"),
        "load": load,
    }


async def find_model(api: Api, name: str | None) -> tuple[str, int | None]:
    """The model's name and window in tokens. name: None, whichever single one is served.

    Raises:
        NoVerdictError: it is not served, or there are several and none was named.
    """
    served = {model.id: model.max_model_len for model in await api.models()}
    shown = ", ".join(sorted(served)) or "none"
    if name is None and len(served) != 1:
        raise NoVerdictError(f"the server serves {shown}; one was expected", hint="name it with --model")
    chosen = next(iter(served)) if name is None else name
    if chosen not in served:
        raise NoVerdictError(f"the server does not serve {chosen}; it serves {shown}")
    return chosen, served[chosen]


async def wait_idle(
    api: Api,
    *,
    idle_s: float,
    wait_s: float,
    now: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> EngineCounters | None:
    """Wait until running and waiting were 0 for `idle_s`; the last reading. None: the engine does not say.

    Raises:
        RefusedError: somebody was there all the time; `wait_s` is beyond `idle_s`.
    """
    began = now()
    since: float | None = None
    while True:
        seen = await api.scrape()
        if seen.running is None or seen.waiting is None:
            return None
        if seen.running or seen.waiting:
            since = None
        elif since is None:
            since = now()
        if since is not None and now() - since >= idle_s:
            return seen
        if now() - began >= idle_s + wait_s:
            raise RefusedError(
                f"the server was not idle for {idle_s:g} s within {idle_s + wait_s:g} s: {seen.running:g} running, "
                f"{seen.waiting:g} waiting, 0 expected",
                hint="a measurement needs the server alone; stop its clients, or come back later",
            )
        # In steps of the pause that is asked for, so that a short one is not overslept.
        await sleep(min(_POLL_S, max(0.05, idle_s / 5)))


async def chars_per_token(api: Api, model: str, plan: BenchPlan, window: int | None) -> float:
    """Characters of our notes per token of the model, by the server's own count of one short prompt.

    Raises:
        NoVerdictError: the server does not answer a small request, or without usage: then nothing can be measured.
    """
    # A token has a character at least, so this fits any window.
    chars = _CALIBRATION_CHARS if window is None else min(_CALIBRATION_CHARS, window // 2)
    text = notes(Names(random.Random(f"{plan.seed} calibration")), chars)  # noqa: S311
    request = ChatRequest(
        model=model,
        messages=({"role": "user", "content": text},),
        max_tokens=1,
        temperature=plan.temperature,
        top_p=plan.top_p,
        cache_salt=f"calibration {plan.seed}",
        extra=plan.extra,
    )
    # A server that fails now and then is measured, with its failures; one that always does is not.
    for _ in range(_ATTEMPTS):
        answer = await api.chat(request, timeout_s=plan.timeout_s)
        if answer.failure is None:
            break
    if answer.failure is not None:
        raise NoVerdictError(
            f"the server does not answer a request of one token in {_ATTEMPTS} attempts: {answer.failure.message}"
        )
    if answer.usage is None or answer.usage.prompt_tokens < 1:
        raise NoVerdictError(
            "the server gives no usage with its answers; tokens are never estimated",
            hint="a server that knows stream_options.include_usage is needed",
        )
    return len(text) / answer.usage.prompt_tokens


def fit_prompts(plan: BenchPlan, chars_each: float, window: int | None) -> Prompts:
    """The prompts that the model's window holds. chars_each: characters per token. window: tokens; None: not known.

    A window too small for the notes at the beginning gets shorter ones; a class that does not fit is skipped, with its
    reason.
    """
    skipped: list[str] = []
    by_class: dict[ContentClass, tuple[Prompt, ...]] = {}
    for name in plan.classes:
        prompts = _fit_class(plan, name, chars_each, window, skipped)
        if prompts:
            by_class[name] = prompts
    long = []
    targets = list(plan.long_prompts)
    most = None if window is None else int((window - LONG_ANSWER_TOKENS) * _LONG_MARGIN) - _TEMPLATE_TOKENS
    if plan.window and most is None:
        skipped.append("a prompt as long as the window: the server does not say how long that is")
    elif plan.window and most is not None:
        targets.append(most)
    for number, target in enumerate(targets):
        if most is not None and target > most:
            skipped.append(f"a prompt of {target} tokens: the window has {window}")
            continue
        chars = int(target * chars_each)
        long.append((target, long_prompt(number, seed=plan.seed, chars=chars, max_tokens=LONG_ANSWER_TOKENS)))
    return Prompts(by_class=by_class, long=tuple(long), skipped=tuple(skipped))


def _fit_class(
    plan: BenchPlan, name: ContentClass, chars_each: float, window: int | None, skipped: list[str]
) -> tuple[Prompt, ...]:
    preamble, context = plan.preamble_tokens, plan.context_tokens
    if window is not None:
        context = min(context, int((window - plan.max_tokens - _TEMPLATE_TOKENS) / _MARGIN) - _LEAST_CONTEXT)
    if name == "long-context" and context < _LEAST_CONTEXT:
        skipped.append(f"{name}: a window of {window} tokens leaves no room for it")
        return ()
    while True:
        prompts = make_prompts(
            name,
            plan.prompts_per_class,
            seed=plan.seed,
            max_tokens=plan.max_tokens,
            preamble_chars=int(preamble * chars_each),
            context_chars=int(context * chars_each),
        )
        needed = max(_tokens(prompt, chars_each) + prompt.max_tokens for prompt in prompts)
        if window is None or needed <= window:
            if preamble < plan.preamble_tokens and name != "long-context":
                skipped.append(f"{name}: its notes have {preamble} tokens, not {plan.preamble_tokens}, to fit")
            return prompts
        if preamble == 0 or name == "long-context":
            skipped.append(f"{name}: it needs up to {needed} tokens, the window has {window}")
            return ()
        preamble = preamble // 2 if preamble > 50 else 0


def _tokens(prompt: Prompt, chars_each: float) -> int:
    """About how many tokens a prompt has, rather too many."""
    chars = prompt.chars + len(json.dumps(prompt.tools)) * bool(prompt.tools)
    return math.ceil(chars / chars_each * _MARGIN) + _TEMPLATE_TOKENS
