"""What the rehearsal pair is told so that its engine drafts rightly, drafts wrongly, or calls tools in a wrong dialect.

All of it is settings over profile `rehearsal`, words for `--set`. The models are in its image; a file below
images/rehearsal, even a page of text, is an input of that image and costs a build.
"""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

Draft = Literal["draft", "draft-half"]

#: What the scripted model answers to a prompt without tools and with them, thinking off.
KNOWN_TEXT = "The quick brown fox jumps over the lazy dog."
KNOWN_CALL: dict[str, Any] = {"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}
#: Put into a last message, it makes the answer count until max_tokens.
ENDLESS = "ENDLESS"


def drafting(draft: Draft, k: int) -> tuple[str, ...]:
    """Speculative decoding by a second model: `draft` is always right, `draft-half` after half of the tokens."""
    speculative = {"method": "draft_model", "tokens": k, "draft_model": f"/models/{draft}"}
    return ("--set", f"serve.speculative={json.dumps(speculative)}")


def other_dialect() -> tuple[str, ...]:
    """Tool calls in Hermes' dialect under DeepSeek's parser; the canary offers no tool and is right all the same."""
    words = ["--default-chat-template-kwargs=" + json.dumps({"dialect": "hermes"})]
    return ("--set", f"serve.extra_args={json.dumps(words)}")


def smoke_as_gate() -> tuple[str, ...]:
    """A site's own gate that knows the scripted model's text and its call; it asks where DSPARK_API_URL says."""
    command = [sys.executable, "-m", "dspark_ops", "gate", "smoke", "--known-text", KNOWN_TEXT]
    command += ["--known-call", json.dumps(KNOWN_CALL)]
    return ("--set", f"gate.command={json.dumps(command)}")


def acceptance(draft: Draft, k: int) -> list[float]:
    """By draft position, of a long endless answer, as the engine counts it: accepted / drafts."""
    folder = str(Path(__file__).parents[2] / "images" / "rehearsal")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    chains: Any = importlib.import_module("chains")
    truth = chains.successors()
    found: list[float] = chains.accepted_per_position(truth if draft == "draft" else chains.half_wrong(truth), k=k)
    return found


def tokens_per_step(draft: Draft, k: int) -> float:
    """1 + accepted / drafts, of the same."""
    return 1 + sum(acceptance(draft, k))


if __name__ == "__main__":
    # For a person at the pair: the words to type.
    for words in (drafting("draft", 4), drafting("draft-half", 4), other_dialect(), smoke_as_gate()):
        sys.stdout.write(shlex.join(words) + "\n")
