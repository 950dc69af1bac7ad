"""Whole requests as an agent sends them: a long system text, many tools, some history, and one task at the end.

The nonce is the first thing in the system text and the salt is the request's own, so that no prefix is shared: a
cold prefill is meant. Everything is drawn from the generator that is given: the same one gives the same request.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final

from dspark_ops.errors import ConfigError
from dspark_ops.gates import words
from dspark_ops.gates.agent_text import history, paragraphs
from dspark_ops.gates.agent_tools import offered_tools
from dspark_ops.gates.case import TEXT_KINDS, TOOL_KINDS, Case, CaseKind, TextKind, ToolKind
from dspark_ops.gates.tasks import Task, second_question, text_task
from dspark_ops.gates.tool_cases import ToolTask, tool_task
from dspark_ops.openai_api.model import Answer, ChatRequest

#: English and JSON with a large vocabulary: about four characters to a token.
TOKENS_PER_CHARACTER: Final = 0.25
_MOST_TOOLS, _FEWEST_TOOLS = 58, 20
# Shares of the prompt's characters.
_TOOLS_SHARE, _HISTORY_SHARE = 0.45, 0.12
# More than this over the target is no answer to "a prompt of that length".
_OVER = 1.1
#: Both names under which templates know the switch; a template that knows neither ignores them.
NO_THINKING: Final[dict[str, Any]] = {"chat_template_kwargs": {"thinking": False, "enable_thinking": False}}


def make_case(
    kind: CaseKind,
    rng: random.Random,
    *,
    prompt_tokens: int,
    salt: str,
    model: str = "default",
    tokens_per_character: float = TOKENS_PER_CHARACTER,
    count: Callable[[str], int] | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stream: bool = True,
    extra: dict[str, Any] | None = None,
    thinking_tokens: int = 0,
) -> Case:
    """A case of about `prompt_tokens`, as counted by `count`, else by `tokens_per_character` (see `measured_ratio`).

    extra: further body fields; None turns thinking off. thinking_tokens: added to max_tokens where it is on. Raises
    ConfigError when the task alone is longer than that.
    """
    nonce = words.hexadecimal(rng, 16)
    room = _room(prompt_tokens, tokens_per_character, count, rng)
    task: Task | ToolTask
    if kind in TEXT_KINDS:
        task = text_task(_text_kind(kind), rng)
    elif kind in TOOL_KINDS:
        task = tool_task(_tool_kind(kind), rng, nonce, characters=room)
    else:
        raise ConfigError(f"{kind} is no kind of agent case", hint="KnownTextBook makes the cases of known text")
    messages, tools = _fill(task, rng, nonce, room)
    request = ChatRequest(
        model=model,
        messages=tuple(messages),
        tools=tools,
        tool_choice=task.tool_choice if isinstance(task, ToolTask) else None,
        max_tokens=_answer_tokens(kind, task.max_tokens, tokens_per_character) + thinking_tokens,
        temperature=temperature,
        top_p=top_p,
        stream=stream,
        cache_salt=salt,
        extra=NO_THINKING if extra is None else extra,
    )
    if characters(request) > room * _OVER + 64:
        raise ConfigError(
            f"a {kind} case takes {characters(request)} characters, and {prompt_tokens} tokens are about {room:.0f}",
            hint="ask for longer prompts",
        )
    tag = task.tag if isinstance(task, Task) else None
    return Case(kind=kind, request=request, expected=task.expected, nonce=nonce, quoted=task.quoted, tag=tag)


def second_turn(case: Case, answer: Answer) -> Case | None:
    """The turn after a `second-turn` case: the same prefix and salt, the server's own answer, then the question for
    the tag. Warm by intent. None: the case gave no tag, or there is no whole answer to go on from.
    """
    if case.tag is None or answer.failure is not None or answer.tool_calls:
        return None
    task = second_question(case.tag)
    messages = (
        *case.request.messages,
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": task.text},
    )
    request = case.request.model_copy(update={"messages": messages, "max_tokens": task.max_tokens})
    return Case(kind=case.kind, request=request, expected=task.expected, nonce=case.nonce, warm=True)


def characters(request: ChatRequest) -> int:
    """The length of all that the model is given: messages and tool schemas as JSON. Unit: characters."""
    return len(json.dumps([list(request.messages), list(request.tools)], ensure_ascii=False))


def measured_ratio(request: ChatRequest, tokens: int) -> float:
    """Tokens per character of a request of ours that the server has counted, for `tokens_per_character`."""
    return tokens / characters(request)


def _fill(
    task: Task | ToolTask, rng: random.Random, nonce: str, room: float
) -> tuple[list[dict[str, Any]], tuple[dict[str, Any], ...]]:
    """Messages and tools of `room` characters around a task."""
    must = task.tools if isinstance(task, ToolTask) else ()
    turns = task.messages if isinstance(task, ToolTask) else ({"role": "user", "content": task.text},)
    facts = (task.fact, *task.decoys) if isinstance(task, Task) and task.fact else ()
    room -= len(json.dumps([list(turns), list(must)], ensure_ascii=False)) + sum(map(len, facts)) + 300
    tools = offered_tools(
        rng, must, characters=room * _TOOLS_SHARE, most=_MOST_TOOLS, fewest=_FEWEST_TOOLS, nonce=nonce
    )
    room -= len(json.dumps(list(tools), ensure_ascii=False)) - len(json.dumps(list(must), ensure_ascii=False))
    past = history(rng, characters=min(room * 0.5, room * _HISTORY_SHARE / (1 - _TOOLS_SHARE)))
    room -= len(json.dumps(past, ensure_ascii=False))
    text = paragraphs(rng, characters=room, facts=facts)
    system = f"[{nonce}] {text}"
    return [{"role": "system", "content": system}, *past, *turns], tools


def _answer_tokens(kind: CaseKind, tokens: int, ratio: float) -> int:
    """Room for an answer: more where a token is little text (a tiny model's vocabulary). A cut stays a cut."""
    return tokens if kind == "tool-truncated" else int(tokens * max(1.0, ratio / TOKENS_PER_CHARACTER / 1.5))


def _room(prompt_tokens: int, ratio: float, count: Callable[[str], int] | None, rng: random.Random) -> float:
    """How many characters make up that many tokens."""
    if count is not None:
        sample = paragraphs(random.Random(rng.getrandbits(32)), characters=4000, facts=())  # noqa: S311 - reproducible
        ratio = count(sample) / len(sample)
    return prompt_tokens / ratio


def _text_kind(kind: CaseKind) -> TextKind:
    return next(k for k in TEXT_KINDS if k == kind)


def _tool_kind(kind: CaseKind) -> ToolKind:
    return next(k for k in TOOL_KINDS if k == kind)
