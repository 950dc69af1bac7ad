"""Log-probabilities as a plain forward pass would give them: high for what the model would say, low where it would not.

The server knows what it said and what was wrong with it. A loop is unlikely only where it begins, a fluent error is
as likely as the truth: what likelihood cannot see in a real engine is not seen here either.
"""

from __future__ import annotations

import random
import re
from collections import OrderedDict
from collections.abc import Sequence
from zlib import crc32

from tests.openai_server.tokens import ASSISTANT, END_THINK, EOS, SPECIAL, THINK

# Nats for each token.
_HEALTHY_MEAN, _PROMPT_MEAN = 0.35, 1.2
_LOW_MEAN, _LOW_SPREAD, _LOW_LEAST = 7.5, 1.5, 2.0
_REMEMBERED = 20_000
_FOREIGN = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]")


class Likelihood:
    """What was said, by its text, and the kind of fault in it; from that the log-probabilities of any prompt."""

    def __init__(self) -> None:
        self._said: OrderedDict[str, str] = OrderedDict()

    def remember(self, text: str, kind: str) -> None:
        """An answer that was given. kind: `healthy` or the name of its text fault."""
        self._said[text] = kind
        if len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)

    def score(self, tokens: Sequence[str]) -> list[float]:
        """One log-probability for each token of a prompt; the answer is what stands behind the last assistant mark."""
        rng = random.Random(crc32("".join(tokens[-256:]).encode("utf-8", "surrogatepass")))  # noqa: S311
        begin = self._answer_begins(tokens)
        values = [-rng.expovariate(1 / _PROMPT_MEAN) for _ in range(begin)]
        answer = list(tokens[begin:])
        text = "".join(answer[:-1] if answer and answer[-1] == EOS else answer)
        kind = self._said.get(text) or self._said.get(text.rpartition(END_THINK)[2], "unknown")
        prompt_is_foreign = any(_FOREIGN.search(t) for t in tokens[:begin])
        for at, token in enumerate(answer):
            low = _unlikely(kind, at, token, foreign=not prompt_is_foreign)
            surprise = max(_LOW_LEAST, rng.gauss(_LOW_MEAN, _LOW_SPREAD)) if low else rng.expovariate(1 / _HEALTHY_MEAN)
            values.append(-surprise)
        return values

    def _answer_begins(self, tokens: Sequence[str]) -> int:
        for at in range(len(tokens) - 1, -1, -1):
            if tokens[at] == ASSISTANT:
                return at + 2 if tokens[at + 1 : at + 2] in ([END_THINK], [THINK]) else at + 1
        return 0


def _unlikely(kind: str, at: int, token: str, *, foreign: bool) -> bool:
    """Whether the model would hardly have said this token at this place of the answer."""
    match kind:
        case "word-salad":
            return at > 0
        case "mid-word" | "apostrophe-opening" | "bos":
            return at < 4
        case "char-run":
            return at < 4
        case "loop-8":
            return at < 16
        case "loop-30":
            return at < 48
        case "dsml-close" | "tool-xml":
            return "DSML" in token or "｜" in token or "</" in token or "tool" in token  # noqa: RUF001
        case _:
            return (foreign and bool(_FOREIGN.search(token))) or token in SPECIAL[:-2]
