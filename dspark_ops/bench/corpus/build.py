"""Make the prompts of a run: the same seed gives the same prompts, byte for byte, in every process."""

from __future__ import annotations

import random
from collections.abc import Callable

from dspark_ops.bench.corpus import code, predictable_text, prose, reasoning, structured, tool_json
from dspark_ops.bench.corpus.long_context import needle
from dspark_ops.bench.corpus.model import ContentClass, Prompt
from dspark_ops.bench.corpus.names import Names, notes
from dspark_ops.bench.corpus.template import Asked

TEMPLATES: dict[ContentClass, tuple[Callable[[Names], Asked], ...]] = {
    "code": code.TEMPLATES,
    "prose": prose.TEMPLATES,
    "reasoning": reasoning.TEMPLATES,
    "tool-json": tool_json.TEMPLATES,
    "structured": structured.TEMPLATES,
    "predictable": predictable_text.TEMPLATES,
}


def make_prompts(
    content_class: ContentClass, count: int, *, seed: int, max_tokens: int, preamble_chars: int, context_chars: int
) -> tuple[Prompt, ...]:
    """`count` different prompts of a class, its templates in turn.

    preamble_chars: notes that each begins with, its own, so that every prompt is long enough for a prefix cache; 0 for
    none. context_chars: of the long-context class.
    """
    made = []
    for i in range(count):
        # Which prompts a run has is no secret; the seed makes them the same again.
        rng = random.Random(f"{seed} {content_class} {i}")  # noqa: S311
        names = Names(rng)
        if content_class == "long-context":
            template, asked = "needle", needle(names, context_chars, depth=(i % 12 + 0.5) / 12)
        else:
            make = TEMPLATES[content_class][i % len(TEMPLATES[content_class])]
            template, asked = make.__name__, make(names)
        made.append(
            _prompt(f"{content_class}-{i:02}", content_class, template, asked, names, max_tokens, preamble_chars)
        )
    return tuple(made)


def long_prompt(number: int, *, seed: int, chars: int, max_tokens: int) -> Prompt:
    """A long prompt for its TTFT: about `chars` characters of notes with a fact in the middle."""
    rng = random.Random(f"{seed} long {number} {chars}")  # noqa: S311
    names = Names(rng)
    asked = needle(names, chars, depth=0.5)
    return _prompt(f"long-{number}-{chars}", "long-context", "needle", asked, names, max_tokens, 0)


def _prompt(
    key: str,
    content_class: ContentClass,
    template: str,
    asked: Asked,
    names: Names,
    max_tokens: int,
    preamble_chars: int,
) -> Prompt:
    messages = []
    if preamble_chars and content_class != "long-context":
        told = f"You are a careful assistant. Notes of the day, for background only:\n\n{notes(names, preamble_chars)}"
        messages.append({"role": "system", "content": told})
    messages.append({"role": "user", "content": asked.text})
    return Prompt(
        key=key,
        content_class=content_class,
        template=template,
        messages=tuple(messages),
        tools=asked.tools,
        max_tokens=round(max_tokens * asked.length),
        expected=asked.expected,
    )
