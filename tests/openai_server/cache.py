"""The prefix cache: blocks of tokens, each known by its own tokens and all before it, and by the session's salt."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PrefixCache:
    """Whole blocks only, the least recently used go first. Hits are never the whole prompt: its last token is computed
    anew, as vLLM does."""

    def __init__(self, block_size: int, blocks: int) -> None:
        self.block_size = block_size
        self._blocks = blocks
        self._kept: OrderedDict[int, None] = OrderedDict()

    def keys(self, tokens: Sequence[str], salt: str | None) -> list[int]:
        """The keys of the prompt's whole blocks, in order."""
        size, parent = self.block_size, hash(("root", salt))
        found: list[int] = []
        for start in range(0, len(tokens) - size + 1, size):
            parent = hash((parent, *tokens[start : start + size]))
            found.append(parent)
        return found

    def cached_tokens(self, keys: Sequence[int], prompt_tokens: int) -> int:
        """Tokens of the longest cached prefix."""
        hits = 0
        for key in keys[: max(0, (prompt_tokens - 1) // self.block_size)]:
            if key not in self._kept:
                break
            self._kept.move_to_end(key)
            hits += 1
        return hits * self.block_size

    def store(self, keys: Sequence[int]) -> None:
        """Keep these blocks, which are computed now."""
        for key in keys:
            self._kept[key] = None
            self._kept.move_to_end(key)
        while len(self._kept) > self._blocks:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()
