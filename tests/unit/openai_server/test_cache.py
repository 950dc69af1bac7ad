"""The prefix cache alone: whole blocks, from the front, never all of a prompt."""

from __future__ import annotations

from tests.openai_server.cache import PrefixCache

_PROMPT = [f"t{n}" for n in range(64)]


def warm(cache: PrefixCache, tokens: list[str], salt: str | None = None) -> int:
    return cache.cached_tokens(cache.keys(tokens, salt), len(tokens))


def kept(blocks: int = 100) -> PrefixCache:
    cache = PrefixCache(16, blocks)
    cache.store(cache.keys(_PROMPT, None))
    return cache


def test_the_last_token_is_always_computed() -> None:
    """A prompt that is all in the cache: 64 tokens are four blocks, of which three are read."""
    assert warm(kept(), _PROMPT) == 48
    assert warm(kept(), [*_PROMPT, "more"]) == 64


def test_a_block_counts_only_behind_all_before_it() -> None:
    other = ["x", *_PROMPT[1:]]
    assert warm(kept(), other) == 0
    assert warm(kept(), [*_PROMPT[:20], "x", *_PROMPT[21:]]) == 16


def test_a_salt_is_part_of_the_prefix() -> None:
    assert warm(kept(), _PROMPT, "salt") == 0


def test_the_least_recently_used_blocks_go() -> None:
    cache = kept(blocks=5)
    assert warm(cache, _PROMPT) == 48
    cache.store(cache.keys([f"u{n}" for n in range(32)], None))
    assert warm(cache, _PROMPT) == 48
    cache.clear()
    assert warm(cache, _PROMPT) == 0
