"""`serve.extra_args` taken apart as vLLM's parser takes it, and the options that other keys own. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

#: Options that are rendered from the site: option -> the key that an operator changes, or why there is none.
OWNED_OPTIONS = {
    "--served-model-name": "set model.served_name",
    "--model": "set model.path",
    "--host": "set serve.api_host",
    "--port": "set serve.api_port",
    "--master-port": "set serve.master_port",
    "--master-addr": "it is the head's address on the first rail",
    "--distributed-timeout-seconds": "set serve.distributed_timeout_s",
    "--max-model-len": "set serve.max_model_len",
    "--max-num-seqs": "set serve.max_num_seqs",
    "--max-num-batched-tokens": "set serve.max_num_batched_tokens",
    "--kv-cache-dtype": "set serve.kv_cache_dtype",
    "--gpu-memory-utilization": "set serve.gpu_memory_utilization",
    "--kv-cache-memory-bytes": "set serve.kv_cache_memory_mib",
    "--speculative-config": "set serve.speculative",
    "--spec-method": "set serve.speculative.method",
    "--spec-model": "set serve.speculative.draft_model",
    "--spec-tokens": "set serve.speculative.tokens",
    "--tensor-parallel-size": "the pair is two ranks of one engine",
    "--data-parallel-size": "the pair is two ranks of one engine",
    "--nnodes": "the pair is two ranks of one engine",
    "--node-rank": "it is rendered per node; both ranks with the same one hang without a word",
    "--headless": "it is rendered for the worker alone",
    "--distributed-executor-backend": "the ranks are joined by mp over the rails",
    "--config": "a second file of arguments would win over this one unseen",
}

#: Options whose value is a secret.
SECRET_OPTIONS = frozenset({"--api-key", "--hf-token", "--ssl-keyfile-password"})

#: Variables of the engine whose value is a secret of ours. What other libraries read (HF_TOKEN) is the operator's
#: choice; the doctor tells of it.
SECRET_VARIABLES = frozenset({"VLLM_API_KEY"})


@dataclass(frozen=True)
class Option:
    """One option of the list. index: of its word in serve.extra_args. below: of `--name.below`, else None."""

    index: int
    name: str
    below: str | None
    values: tuple[str, ...]

    def document(self) -> dict[str, Any] | None:
        """Its value as a JSON object, `--name.below=value` included; None when it is none."""
        try:
            value: object = json.loads(self.values[0]) if len(self.values) == 1 else None
        except ValueError:
            value = self.values[0]
        if self.below is not None:
            return {self.below: value}
        return value if isinstance(value, dict) else None


def take_apart(words: Iterable[str]) -> tuple[list[Option], list[tuple[int, str]]]:
    """The options, and what is wrong with a word (its index, in words). vLLM reads `_` in a name as `-`."""
    options: list[Option] = []
    wrong: list[tuple[int, str]] = []
    takes_values = False
    for index, word in enumerate(words):
        head, equals, value = word.partition("=")
        if word.startswith("--") and len(word) > 2 and not any(char.isspace() for char in head):
            name, _, below = head.partition(".")
            options.append(Option(index, name.replace("_", "-"), below or None, (value,) if equals else ()))
            takes_values = not equals
        elif word.startswith("--"):
            wrong.append((index, f"{word!r} is no option; expected --option=value in one word"))
            takes_values = False
        elif word.startswith("-") and not _is_number(word):
            wrong.append((index, f"{word!r} is a short option; expected the long one, as --attention-backend"))
            takes_values = False
        elif takes_values:
            options[-1] = replace(options[-1], values=(*options[-1].values, word))
        else:
            wrong.append((index, f"{word!r} belongs to no option; expected --option=value"))
    return options, wrong


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
