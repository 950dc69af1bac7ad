"""How vLLM 0.32.0 puts the layers' caches into groups that share one pool of blocks. Exact integers; pure.

The rules are those of vllm/v1/core/kv_cache_utils.py of that release: caches of the same kind, block and window are one
bucket; a bucket whose page sizes come in equal numbers is a repeating pattern and may be divided; every group may own
any block, so a block is as wide as the widest group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dspark_ops.errors import ConfigError
from dspark_ops.kv.caches import LayerCache

#: The compressor states, which one of the records divides; the name is the release's own.
STATE = "state_cache"


@dataclass(frozen=True)
class Group:
    """Caches that are given blocks together: one block of the group is one page of each."""

    layers: tuple[LayerCache, ...]

    @property
    def page_bytes(self) -> int:
        return sum(layer.page_bytes for layer in self.layers)

    def request_blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        return max(layer.request_blocks(max_model_len, in_flight_tokens) for layer in self.layers)


def group_layers(layers: Sequence[LayerCache], *, split_states: int = 1) -> tuple[Group, ...]:
    """The groups of one rank. split_states divides a group of compressor states in so many; the release has 1.

    Raises:
        ConfigError: caches that differ in kind and agree in page size, which the release lays out by other rules.
    """
    buckets = _buckets(layers)
    if len(buckets) > 1 and len({layer.page_bytes for layer in layers}) == 1:
        raise ConfigError(
            "several kinds of cache with one page size: this plan knows the packed layout alone",
            hint="ask the release itself: `kv plan --engine`",
        )
    groups = tuple(Group(tuple(part)) for part in _divided(buckets))
    return tuple(part for group in groups for part in _split(group, split_states))


def _buckets(layers: Sequence[LayerCache]) -> list[list[LayerCache]]:
    found: dict[tuple[str, int, int | None], list[LayerCache]] = {}
    for layer in layers:
        found.setdefault((layer.kind, layer.block_tokens, layer.window), []).append(layer)
    return list(found.values())


def _divided(buckets: list[list[LayerCache]]) -> list[list[LayerCache]]:
    """The buckets, those that repeat a pattern divided so that the groups become about equally deep."""
    if len(buckets) == 1:
        return buckets
    depths = [_depth(bucket) for bucket in buckets]
    # A pattern of several page sizes stays whole: the deepest such bucket says how deep a group is at least.
    mixed = [depth for bucket, depth in zip(buckets, depths, strict=True) if depth and len(_by_page(bucket)) > 1]
    if not mixed:
        return _states_capped(buckets)
    repeats = _least_padding([depth for depth in depths if depth is not None], max(mixed))
    made: list[list[LayerCache]] = []
    for bucket, depth in zip(buckets, depths, strict=True):
        parts = 1 if depth is None else -(-depth // repeats)
        made += _dealt(bucket, parts)
    return made


def _states_capped(buckets: list[list[LayerCache]]) -> list[list[LayerCache]]:
    """Without a mixed pattern: a window's layers are divided where together they would widen the block."""
    widest = max(
        max(layer.page_bytes for layer in bucket) if bucket[0].kind == "window" else _page_sum(bucket)
        for bucket in buckets
    )
    made: list[list[LayerCache]] = []
    for bucket in buckets:
        if bucket[0].kind == "full":
            made.append(bucket)
            continue
        fit = max(widest // bucket[0].page_bytes, 1)
        made += _dealt(bucket, -(-len(bucket) // fit))
    return made


def _by_page(bucket: list[LayerCache]) -> dict[int, list[LayerCache]]:
    pages: dict[int, list[LayerCache]] = {}
    for layer in bucket:
        pages.setdefault(layer.page_bytes, []).append(layer)
    return pages


def _page_sum(bucket: list[LayerCache]) -> int:
    return sum(layer.page_bytes for layer in bucket)


def _depth(bucket: list[LayerCache]) -> int | None:
    """How often the bucket's pattern of page sizes repeats; None when the sizes come in unequal numbers."""
    counts = {len(same) for same in _by_page(bucket).values()}
    return counts.pop() if len(counts) == 1 else None


def _least_padding(depths: list[int], at_least: int) -> int:
    """The depth of a group that leaves the fewest unused places in the last one of each bucket; the larger of two."""
    candidates = range(at_least, max(depths) + 1)
    return min(candidates, key=lambda size: (sum(-depth % size for depth in depths), -size), default=at_least)


def _dealt(bucket: list[LayerCache], parts: int) -> list[list[LayerCache]]:
    """The pattern's repeats dealt out in turn, as cards."""
    if parts == 1:
        return [bucket]
    repeats = list(zip(*_by_page(bucket).values(), strict=True))
    return [[layer for repeat in repeats[first::parts] for layer in repeat] for first in range(parts)]


def _split(group: Group, parts: int) -> tuple[Group, ...]:
    """A group of compressor states in `parts`, the states of one layer together; any other group as it is."""
    if parts == 1 or not any(STATE in layer.name for layer in group.layers):
        return (group,)
    owners = sorted({_owner(layer) for layer in group.layers})
    made = []
    for first in range(parts):
        chosen = set(owners[first::parts])
        if chosen:
            made.append(Group(tuple(layer for layer in group.layers if _owner(layer) in chosen)))
    return tuple(made)


def _owner(layer: LayerCache) -> int:
    """The number of the model's layer: `model.layers.7.attn…` is 7."""
    return int(layer.name.split(".")[2])
