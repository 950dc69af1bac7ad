"""The text of the rehearsal models as chains of tokens: what follows what. Standard library only, no weights here.

A model of the rehearsal knows nothing but the previous token: its weights hold `successors()`. The chat template ends
each prompt with one branch token (`<|go:plain|>` ...), so the branch chooses the answer and a real engine gives known
text at any temperature. A chunk occurs once in all chains, because it has one successor.
"""

from __future__ import annotations

import random
from itertools import pairwise

#: Rows of the embedding and of the output layer. TP=2 splits them in two halves of 256.
VOCABULARY = 512
END = "</s>"
SPECIAL = ("<pad>", "<s>", END, "<|user|>", "<|system|>", "<|assistant|>", "<|tool|>")
#: DeepSeek-V4's mark; its bars are U+FF5C.
_DSML = "\uff5cDSML\uff5c"
#: The engine's reasoning and tool-call parsers look these up in the vocabulary.
MARKS = ("<think>", "</think>", _DSML, "<tool_call>", "</tool_call>")

CHAINS: dict[str, tuple[str, ...]] = {
    "<|go:plain|>": ("The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", "."),
    "<|go:think|>": ("First,", " weigh", " the facts.", "</think>", "It is", " forty", "-two", "!"),
    "<|go:tool|>": (
        f"<{_DSML}tool_calls>\n",
        f'<{_DSML}invoke name="get_weather">\n',
        f'<{_DSML}parameter name="city" string="true">',
        "Paris",
        f"</{_DSML}parameter>\n",
        f'<{_DSML}parameter name="days" string="false">',
        "3",
        f"</{_DSML}parameter>\n ",
        f"</{_DSML}invoke>\n",
        f"</{_DSML}tool_calls>",
    ),
    # The end of the reasoning is spelled with its newlines: the bare mark already leads to "It is".
    "<|go:thinktool|>": (
        "I need",
        " the time.",
        "</think>\n\n",
        f"<{_DSML}tool_calls>\n\n",
        f'<{_DSML}invoke name="get_time">\n',
        f'<{_DSML}parameter name="zone" string="true">',
        "UTC",
        f"</{_DSML}parameter>\n\n",
        f"</{_DSML}invoke>\n\n",
        f"</{_DSML}tool_calls>\n",
    ),
    "<|go:hermes|>": (
        "<tool_call>",
        '\n{"name": "get_weather",',
        ' "arguments": {"city":',
        ' "Oslo",',
        ' "days": 5}}\n',
        "</tool_call>",
    ),
}
ENDLESS = "<|go:endless|>"
#: The endless answer counts, so that a lost, doubled or garbled token is seen at once. It starts again after 127.
COUNT = tuple(f" {number:03d}" for number in range(128))


def byte_alphabet() -> dict[int, str]:
    """The printable character that byte-level BPE writes for each byte (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def added_tokens() -> tuple[str, ...]:
    """Every token that is not a single byte, once, in a fixed order."""
    chunks = (chunk for chain in CHAINS.values() for chunk in chain)
    singles = set(byte_alphabet().values())
    ordered = dict.fromkeys((*SPECIAL, *CHAINS, ENDLESS, *MARKS, *chunks, *COUNT))
    return tuple(token for token in ordered if token not in singles)


def token_ids() -> dict[str, int]:
    """Token -> id. Neighbours in a chain lie in different halves of the vocabulary, but for bytes and shared marks.

    Each half is one rank's share at TP=2, so an answer needs both ranks all along and a wrong collective is wrong text.
    Both halves hold 128 bytes, then the added tokens in turn.
    """
    half = VOCABULARY // 2
    characters = [character for _, character in sorted(byte_alphabet().items())]
    ids = {c: n if n < half // 2 else half + n - half // 2 for n, c in enumerate(characters)}
    free = [half // 2, half + half // 2]
    for token in added_tokens():
        side = 0 if free[0] <= free[1] - half else 1
        ids[token] = free[side]
        free[side] += 1
    return ids


def successors() -> dict[int, int]:
    """Id -> id of the next token for every row: the chains, the count, and into the count from anywhere else."""
    ids = token_ids()
    following: dict[int, int] = {}
    for branch, chain in CHAINS.items():
        for token, after in pairwise((branch, *chain, END)):
            following[ids[token]] = ids[after]
    for token, after in pairwise((ENDLESS, *COUNT, COUNT[0])):
        following[ids[token]] = ids[after]
    for row in range(VOCABULARY):
        following.setdefault(row, ids[COUNT[row % len(COUNT)]])
    return following


def half_wrong(table: dict[int, int]) -> dict[int, int]:
    """The table of a draft model that errs after a fixed, irregular half of the tokens; its errors are numbers."""
    ids = token_ids()
    count = [ids[token] for token in COUNT]
    draw = random.Random(4)  # noqa: S311 - reproducible, not secret
    erring = set(draw.sample(sorted(table), len(table) // 2))
    return {
        row: count[(count.index(after) + 7) % len(count)] if after in count else count[row % len(count)]
        for row, after in table.items()
        if row in erring
    } | {row: after for row, after in table.items() if row not in erring}


def accepted_per_position(draft: dict[int, int], *, k: int, tokens: int = 1280) -> list[float]:
    """Acceptance per draft position of `draft` on the endless answer, as the engine counts it: accepted / drafts."""
    ids, truth = token_ids(), successors()
    last, written, drafts, accepted = truth[ids[ENDLESS]], 1, 0, [0] * k
    while written < tokens:
        drafts += 1
        guess = last
        for position in range(k):
            guess = draft[guess]
            if guess != truth[last]:
                break
            accepted[position] += 1
            last, written = truth[last], written + 1
        last, written = truth[last], written + 1
    return [number / drafts for number in accepted]
