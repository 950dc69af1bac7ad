"""What a few real completions show: nothing empty, no markup, no echo, the same twice, a call that parses."""

from __future__ import annotations

import json
import re

from dspark_ops.doctor.outcome import NotApplicableError, Outcome, PairView, fail, judge, need, ok
from dspark_ops.doctor.registry import pair_rule
from dspark_ops.doctor.rules.api import answering
from dspark_ops.facts.replies import TOOL, TOOL_ARGUMENTS, RepliesFacts, ReplyFacts, StreamFacts

#: Tokens and tags that belong to the engine and its parsers, never to a reader.
_MARKUP = re.compile(
    r"<\uff5c[^<>\n]{1,40}\uff5c>|\uff5cDSML\uff5c|<\|[a-z_]{2,40}\|>|</?think>|</?tool_calls?>|</?s>|<pad>",
    re.IGNORECASE,
)
_SHOWN = 160


def _replies(view: PairView) -> RepliesFacts:
    answering(view)
    return need(view.facts.head.replies, "the completions")


def _came(reply: ReplyFacts | None, what: str) -> ReplyFacts:
    """A completion that came; that none came is what service.canary and service.health are for."""
    found = need(reply, what)
    if found.error is not None:
        raise NotApplicableError(f"{what} did not come: {found.error[:_SHOWN]}")
    return found


def _streamed(view: PairView) -> StreamFacts:
    found = need(_replies(view).stream, "the streamed completion")
    if found.error is not None:
        raise NotApplicableError(f"the streamed completion did not come: {found.error[:_SHOWN]}")
    return found


@pair_rule("correctness.empty_reply")
def empty_reply(view: PairView) -> Outcome:
    """A completion that counts tokens also shows some: in its content, its reasoning or a call."""
    reply = _came(_replies(view).canary, "the completion")
    if (reply.content or "").strip() or (reply.reasoning or "").strip() or reply.tool_calls:
        return ok("the completion has text")
    return fail(f"{reply.completion_tokens or 0} tokens, and neither content nor reasoning", "text, or reasoning")


@pair_rule("correctness.markup")
def markup(view: PairView) -> Outcome:
    """No special token and no tag of a parser reaches the reader."""
    replies = _replies(view)
    shown = {"completion": _came(replies.canary, "the completion").content or ""}
    if replies.tool is not None and replies.tool.content is not None:
        shown["tool call"] = replies.tool.content
    problems = [
        f"the {name} shows {match[0]!r}" for name, text in shown.items() if (match := _MARKUP.search(text)) is not None
    ]
    return judge(problems, "no markup is shown", "text without special tokens and tags")


@pair_rule("correctness.prompt_echo")
def prompt_echo(view: PairView) -> Outcome:
    """The answer does not open with the question: what a prefill that lost its end does."""
    content = (_came(_replies(view).canary, "the completion").content or "").strip()
    prompt, expected = view.profile.canary.prompt.strip(), view.profile.canary.expect
    if content.startswith(prompt) and not expected.startswith(prompt):
        return fail(f"the completion opens with its prompt: {content[:_SHOWN]!r}", "an answer")
    return ok("the answer does not repeat its question")


@pair_rule("correctness.repeatable")
def repeatable(view: PairView) -> Outcome:
    """The same question gets the same answer twice, at temperature 0, once in one piece and once streamed."""
    once = (_came(_replies(view).canary, "the completion").content or "").strip()
    again = (_streamed(view).content or "").strip()
    if once == again:
        return ok("twice the same")
    return fail(f"{once[:_SHOWN]!r}, then {again[:_SHOWN]!r}", "the same answer twice")


@pair_rule("correctness.stream")
def stream(view: PairView) -> Outcome:
    """A stream ends as it should, without an error inside and without empty lists of calls."""
    found = _streamed(view)
    problems = [f"an error inside the stream: {text}" for text in found.errors]
    if not found.done:
        problems.append("it does not end with [DONE]")
    if found.finish_reason is None:
        problems.append("it names no reason for its end")
    if found.empty_tool_lists:
        problems.append(f"{found.empty_tool_lists} pieces of text carry an empty list of calls")
    return judge(problems, f"{found.events} events, ended by {found.finish_reason}", "a stream that clients can read")


@pair_rule("correctness.length_reported")
def length_reported(view: PairView) -> Outcome:
    """An answer that was cut says that it was cut."""
    reply = _came(_replies(view).short, "the completion that is cut after one token")
    if reply.finish_reason == "length":
        return ok("cut, and said so")
    return fail(f"cut after one token, and it says {reply.finish_reason}", "finish_reason length")


@pair_rule("correctness.tool_call")
def tool_call(view: PairView) -> Outcome:
    """A question with a tool gets one call of that tool, with the arguments that the question gives."""
    reply = _came(_replies(view).tool, "the completion with a tool")
    wanted = f"one call of {TOOL} with {json.dumps(TOOL_ARGUMENTS)}"
    if len(reply.tool_calls) != 1:
        told = f"{len(reply.tool_calls)} calls, ended by {reply.finish_reason}: {(reply.content or '')[:_SHOWN]!r}"
        return fail(told, wanted)
    (call,) = reply.tool_calls
    if call.name != TOOL:
        return fail(f"a call of {call.name}", wanted)
    try:
        arguments = json.loads(call.arguments or "")
    except (ValueError, RecursionError):
        return fail(f"arguments that are no JSON: {(call.arguments or '')[:_SHOWN]!r}", wanted)
    if arguments != TOOL_ARGUMENTS:
        return fail(f"a call with {json.dumps(arguments)[:_SHOWN]}", wanted)
    if reply.finish_reason != "tool_calls":
        return fail(f"a call, and finish_reason {reply.finish_reason}", f"{wanted}, and finish_reason tool_calls")
    return ok(f"{TOOL} with {json.dumps(arguments)}")
