"""The caches of one engine rank, layer by layer, as a release's attention layers would ask for them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["full", "window"]
Family = Literal["mla", "dense"]
Positive = Annotated[int, Field(gt=0)]


class Model(BaseModel):
    """Base of this package's documents."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerCache(Model):
    """One cache of one layer. A block of it is a page, and a page covers block_tokens tokens.

    tokens_per_state: tokens that one stored record stands for (4 and 128 in compressed layers). alignment: pages are
    padded to a multiple of it. window: tokens that stay readable; None for a cache that keeps every token.
    """

    name: str
    kind: Kind
    family: Family = "mla"
    block_tokens: Positive
    tokens_per_state: Positive = 1
    record_bytes: Positive
    alignment: Positive = 1
    window: Positive | None = None

    @property
    def page_bytes(self) -> int:
        """Bytes of one block of this layer, padding included."""
        return _round_up(self.block_tokens // self.tokens_per_state * self.record_bytes, self.alignment)

    def request_blocks(self, max_model_len: int, in_flight_tokens: int) -> int:
        """The blocks that one request of full length may hold at once.

        A window keeps what is in flight too, and may begin anywhere in its first block: hence one more.
        """
        if self.window is None:
            return _divide_up(max_model_len, self.block_tokens)
        held = min(self.window - 1 + in_flight_tokens, max_model_len)
        return _divide_up(held, self.block_tokens) + 1


def _divide_up(value: int, by: int) -> int:
    return -(-value // by)


def _round_up(value: int, to: int) -> int:
    return _divide_up(value, to) * to
