"""Chains of layers: what an Engine has of an image that it does not have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence


def chain_ids(layers: Sequence[str]) -> tuple[str, ...]:
    """The chain id of each layer, lowest first, as the OCI image specification defines it (config.md, "Layer ChainID").

    An Engine stores a layer under its chain id: the same bytes on top of other layers are another entry.
    """
    chain: list[str] = []
    for layer in layers:
        below = chain[-1] if chain else None
        text = f"{below} {layer}"
        chain.append(layer if below is None else "sha256:" + hashlib.sha256(text.encode()).hexdigest())
    return tuple(chain)


def lacking(layers: Sequence[str], present: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The diff_ids of an image that an Engine holding images with the `present` layers must be given, lowest first."""
    held = {chain for other in present for chain in chain_ids(other)}
    return tuple(layer for layer, chain in zip(layers, chain_ids(layers), strict=True) if chain not in held)
