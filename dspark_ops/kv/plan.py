"""From caches and memory to blocks, tokens and concurrency: the arithmetic of vLLM 0.32.0. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dspark_ops.kv.caches import LayerCache, Model
from dspark_ops.kv.grouping import Group, group_layers

#: The release whose arithmetic this is.
PLANNER_RELEASE = "0.32.0"


class GroupPlan(Model):
    """One group. page_bytes: of one block of all its layers. request_blocks: that one request of full length holds."""

    caches: int
    holds: str
    page_bytes: int
    request_blocks: int


class Capacity(Model):
    """What one rank's pool holds at one setting.

    block_bytes: every block is as wide as the widest group's page. tokens is concurrency times max_model_len, which is
    what vLLM prints: it grows with max_model_len while the bytes stay as they are. fits: vLLM starts only when one
    request of full length fits beside one block that it keeps back. longest_model_len: the longest with which it would
    start, None when it would with none.
    """

    pool_bytes: int
    max_model_len: int
    in_flight_tokens: int
    groups: tuple[GroupPlan, ...]
    block_bytes: int
    blocks: int
    request_blocks: int
    concurrency: float
    tokens: int
    fits: bool
    longest_model_len: int | None


@dataclass(frozen=True)
class Layout:
    """The groups of one rank: what a record and a geometry come to, before any memory is known."""

    groups: tuple[Group, ...]

    @classmethod
    def of(cls, layers: Sequence[LayerCache], *, split_states: int = 1) -> Layout:
        return cls(group_layers(layers, split_states=split_states))

    @property
    def block_bytes(self) -> int:
        return max(group.page_bytes for group in self.groups)

    def request_blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        return sum(group.request_blocks(max_model_len, in_flight_tokens) for group in self.groups)

    def capacity(self, pool_bytes: int, *, max_model_len: int, in_flight_tokens: int) -> Capacity:
        """What a pool of that size holds."""
        blocks = pool_bytes // self.block_bytes
        per_request = self.request_blocks(max_model_len, in_flight_tokens)
        # In floating point, as the release: its figure is what a boot log is compared with.
        concurrency = blocks / per_request
        return Capacity(
            pool_bytes=pool_bytes,
            max_model_len=max_model_len,
            in_flight_tokens=in_flight_tokens,
            groups=tuple(
                GroupPlan(
                    caches=len(group.layers),
                    holds=_holds(group),
                    page_bytes=group.page_bytes,
                    request_blocks=group.request_blocks(max_model_len, in_flight_tokens),
                )
                for group in self.groups
            ),
            block_bytes=self.block_bytes,
            blocks=blocks,
            request_blocks=per_request,
            concurrency=concurrency,
            tokens=int(concurrency * max_model_len),
            fits=per_request <= blocks - 1,
            longest_model_len=self._longest(blocks - 1, max_model_len, in_flight_tokens),
        )

    def _longest(self, usable_blocks: int, at_most: int, in_flight_tokens: int) -> int | None:
        low, high = 0, at_most
        while low < high:
            middle = (low + high + 1) // 2
            if self.request_blocks(middle, in_flight_tokens) <= usable_blocks:
                low = middle
            else:
                high = middle - 1
        return low or None


def in_flight(max_num_batched_tokens: int, *, asynchronous: bool) -> int:
    """F: tokens scheduled and not yet settled. Asynchronous scheduling has two batches under way, without it one.

    The drafted tokens are inside max_num_batched_tokens (vLLM 0.32.0, vllm/config/vllm.py, max_in_flight_tokens).
    """
    return (2 if asynchronous else 1) * max_num_batched_tokens


def _holds(group: Group) -> str:
    """What a group is, for people."""
    first = group.layers[0]
    if first.window is None:
        return "every token"
    if "state_cache" in first.name:
        return f"compressor state, ratio {first.window // (2 if first.block_tokens == 4 else 1)}"
    return f"window of {first.window}"
