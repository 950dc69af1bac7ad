"""Tasks that are answered by calling a tool: which tool, with which values, and what the whole conversation is."""

from __future__ import annotations

import json
import random
from typing import Any

from dspark_ops.gates import words
from dspark_ops.gates.agent_tools import function_tool
from dspark_ops.gates.case import Expected, ExpectedCall, ExpectedCalls, ExpectedValue, ToolKind
from dspark_ops.openai_api.model import Record

_TEXT, _WHOLE, _NUMBER, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}
_CITIES = ("Zürich", "São Paulo", "Kraków", "Łódź", "Besançon", "Malmö", "Århus", "Reykjavík")
_UNUSUAL = ("naïve café", "Grüße, 你好", "русский текст", "π ≈ 3.14159", "日本語のメモ", "rocket \U0001f680")
# No backslashes, tabs or combining accents: a sound model may write those in another way that it takes for the same.
_QUOTED = ('say "yes" or "no"', "it's {not} a template", "a <b> & c </d>", "100 % [sic]", 'the "last" one')
# 4 KB.
_BLOCK_LINES, _LINE = 58, 72


class ToolTask(Record):
    """The last turns of a tool case and its answer. tools: those that must be offered."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    expected: Expected
    max_tokens: int
    tool_choice: str | dict[str, Any] | None = "auto"
    quoted: tuple[str, ...] = ()


def tool_task(kind: ToolKind, rng: random.Random, nonce: str, *, characters: float = 80000) -> ToolTask:
    """A task of this kind with values of its own. nonce: goes into the ids of calls that the history tells of.

    characters: what the whole prompt has room for; the long text of 4 KB shrinks with it.
    """
    match kind:
        case "tool-call":
            return _one(rng)
        case "tool-values":
            return _long_text(rng, characters) if rng.random() < 0.25 else _values(rng)
        case "tool-parallel":
            return _parallel(rng)
        case "tool-none":
            return _none(rng)
        case "tool-forced":
            return _forced(rng)
        case "tool-history":
            return _history(rng, nonce)
        case "tool-truncated":
            return _truncated(rng, characters)


def _booking(rng: random.Random) -> tuple[dict[str, Any], ExpectedCall, str]:
    """A tool, one call of it and that call in words."""
    tool = function_tool(
        "book_slot",
        "Book a slot at a site for a job.",
        {"site": _TEXT, "job_id": _TEXT, "day": _TEXT, "minutes": _WHOLE, "urgent": _FLAG},
        ("site", "job_id", "day", "minutes", "urgent"),
    )
    arguments = {
        "site": rng.choice(_CITIES),
        "job_id": words.random_uuid(rng),
        "day": words.day(rng),
        "minutes": rng.randrange(10, 500),
        "urgent": rng.random() < 0.5,
    }
    text = (
        f"site {arguments['site']}, job id {arguments['job_id']}, day {arguments['day']}, "
        f"{arguments['minutes']} minutes, {'urgent' if arguments['urgent'] else 'not urgent'}"
    )
    return tool, ExpectedCall(name="book_slot", arguments=arguments), text


def _one(rng: random.Random) -> ToolTask:
    tool, call, text = _booking(rng)
    return ToolTask(
        messages=(
            _user(f"Book this slot with the tool book_slot, one call, at once and without asking back: {text}."),
        ),
        tools=(tool,),
        expected=ExpectedCalls(calls=(call,)),
        max_tokens=500,
    )


def _values(rng: random.Random) -> ToolTask:
    """Values that escaping breaks: quotes, line breaks, other scripts, numbers beyond 32 bits, lists in lists."""
    tool = function_tool(
        "store_record",
        "Store one record exactly as given.",
        {
            "record_id": _TEXT,
            "due": _TEXT,
            "count": _WHOLE,
            "ratio": _NUMBER,
            "active": _FLAG,
            "title": _TEXT,
            "note": _TEXT,
            "matrix": {"type": "array", "items": {"type": "array", "items": _WHOLE}},
            "owner": {
                "type": "object",
                "properties": {"name": _TEXT, "level": _WHOLE},
                "required": ["name", "level"],
                "additionalProperties": False,
            },
        },
        ("record_id", "due", "count", "ratio", "active", "title", "note", "matrix", "owner"),
    )
    arguments = {
        "record_id": words.random_uuid(rng),
        "due": words.day(rng),
        "count": rng.randrange(2**31, 2**53),
        "ratio": rng.randrange(1, 4000) / 16,
        "active": rng.random() < 0.5,
        "title": f"{rng.choice(_UNUSUAL)} {words.name(rng)}",
        "note": f"{words.name(rng)}: {rng.choice(_QUOTED)}\n{words.name(rng)}: {rng.choice(_QUOTED)}",
        "matrix": [[rng.randrange(-99, 100) for _ in range(rng.randrange(1, 4))] for _ in range(3)],
        "owner": {"name": words.name(rng), "level": rng.randrange(1, 9)},
    }
    given = json.dumps(arguments, ensure_ascii=False, indent=1)
    return ToolTask(
        messages=(
            _user(
                "Call the tool store_record once, at once, without asking back, with exactly the values of this JSON "
                f"document (its strings are JSON strings: \\n is a line break):\n{given}"
            ),
        ),
        tools=(tool,),
        expected=ExpectedCalls(calls=(ExpectedCall(name="store_record", arguments=arguments),)),
        max_tokens=900,
        quoted=(given,),
    )


def _block(rng: random.Random, lines: int) -> str:
    """Lines that must come back byte by byte; no blank at the end of any."""
    return "\n".join(
        f'{n:02d} {" ".join(words.names(rng, 6))} {words.hexadecimal(rng, 12)} "{words.name(rng)}";'
        for n in range(lines)
    )


_WRITE = function_tool(
    "write_note", "Write a note, replacing what was there.", {"path": _TEXT, "content": _TEXT}, ("path", "content")
)


def _long_text(rng: random.Random, characters: float) -> ToolTask:
    path, content = (
        f"notes/{words.name(rng, 3)}.txt",
        _block(rng, min(_BLOCK_LINES, max(6, int(characters / 3 / _LINE)))),
    )
    text = (
        f"Write the text between the two marks to {path} with the tool write_note, one call, at once, without asking "
        "back. Copy it character by character; the marks do not belong to it, and it ends without a line break.\n"
        f"[BEGIN]\n{content}\n[END]"
    )
    call = ExpectedCall(name="write_note", arguments={"path": path, "content": content})
    return ToolTask(
        messages=(_user(text),),
        tools=(_WRITE,),
        expected=ExpectedCalls(calls=(call,)),
        max_tokens=6000,
        quoted=(content,),
    )


def _truncated(rng: random.Random, characters: float) -> ToolTask:
    """As the long text, with room for a part of it only: the engine must say that it was cut off."""
    task = _long_text(rng, characters)
    expected = task.expected
    if isinstance(expected, ExpectedCalls):
        expected = expected.model_copy(update={"finish": ("length",), "truncated": True})
    return task.model_copy(update={"expected": expected, "max_tokens": 96})


def _parallel(rng: random.Random) -> ToolTask:
    made = [_booking(rng) for _ in range(3)]
    listed = "\n".join(f"- {text}" for _, _, text in made)
    text = (
        "Book these three slots with the tool book_slot: three calls in this one answer, at once, without asking back:"
        f"\n{listed}"
    )
    return ToolTask(
        messages=(_user(text),),
        tools=(made[0][0],),
        expected=ExpectedCalls(calls=tuple(call for _, call, _ in made)),
        max_tokens=1200,
    )


def _none(rng: random.Random) -> ToolTask:
    tool, _, text = _booking(rng)
    value = words.code(rng)
    asked = (
        f"A colleague has already booked this slot: {text}. The confirmation is {value}. Nothing is left to do, so "
        "call no tool. Answer with one line: `CONFIRMED: ` and the confirmation, nothing else."
    )
    return ToolTask(
        messages=(_user(asked),),
        tools=(tool,),
        expected=ExpectedValue(label="CONFIRMED", value=value),
        max_tokens=160,
    )


def _forced(rng: random.Random) -> ToolTask:
    task = _one(rng)
    choice = {"type": "function", "function": {"name": "book_slot"}}
    # The API's own rule for a function that was named: the answer may end with `stop`.
    expected = task.expected
    if isinstance(expected, ExpectedCalls):
        expected = expected.model_copy(update={"finish": ("tool_calls", "stop")})
    # Without `strict` vLLM's grammar holds for the envelope only, and `{}` is then the engine's doing, not the model's.
    tool = task.tools[0]
    tools = ({**tool, "function": {**tool["function"], "strict": True}},)
    return task.model_copy(update={"tool_choice": choice, "expected": expected, "tools": tools})


def _history(rng: random.Random, nonce: str) -> ToolTask:
    """A call and its result stand in the history; the next call needs a value of that result."""
    tool, call, text = _booking(rng)
    lookup = function_tool("find_job", "Find the id of a job by its name.", {"name": _TEXT}, ("name",))
    job, call_id = words.name(rng, 3), f"call_{nonce[:10]}"
    result = {"name": job, "job_id": call.arguments["job_id"], "queue": words.name(rng), "size": rng.getrandbits(40)}
    known = text.replace(f"job id {call.arguments['job_id']}, ", "")
    messages = (
        _user(
            f"Find the job {job} with find_job, then book a slot for it with book_slot, one call each, without asking "
            f"back: {known}."
        ),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": "find_job", "arguments": json.dumps({"name": job})},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call_id, "content": json.dumps(result)},
    )
    return ToolTask(messages=messages, tools=(tool, lookup), expected=ExpectedCalls(calls=(call,)), max_tokens=500)


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}
