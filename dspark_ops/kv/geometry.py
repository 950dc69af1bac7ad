"""What a model's layers cache: DeepSeek V4 by its compress ratios, or plain attention with keys and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from dspark_ops.errors import ConfigError
from dspark_ops.kv.caches import LayerCache, Model, Positive
from dspark_ops.kv.records import Record

#: Tokens of a block of the main cache; the profiles serve with it, and V4's kernels know no other.
V4_BLOCK_TOKENS = 256
_WINDOW_BLOCK_TOKENS = 64
#: Per compress ratio: tokens of a block of its states, and how many times the ratio its states reach back.
_STATE = {4: (4, 2), 128: (8, 1)}
#: Architectures whose every layer keeps keys and values of every token.
_PLAIN = {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
_ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class V4Geometry(Model):
    """DeepSeek V4. compress_ratios: of each target layer, 0 for a window alone. draft_layers have a window alone.

    Every rank holds the whole of it: the one latent head cannot be divided.
    """

    kind: Literal["deepseek_v4"] = "deepseek_v4"
    compress_ratios: Annotated[tuple[Literal[0, 4, 128], ...], Field(min_length=1)]
    draft_layers: Annotated[int, Field(ge=0)]
    window_tokens: Positive
    head_dim: Positive
    index_head_dim: Positive

    def layers(self, record: Record, *, drafting: bool = True) -> tuple[LayerCache, ...]:
        """The caches of one rank under one record, in the order in which the release makes them."""
        made: list[LayerCache] = []
        drafts = (0,) * (self.draft_layers if drafting else 0)
        for number, ratio in enumerate((*self.compress_ratios, *drafts)):
            name = f"model.layers.{number}.attn"
            main = {"record_bytes": record.main_bytes, "alignment": record.main_alignment}
            window = {"kind": "window", "block_tokens": _WINDOW_BLOCK_TOKENS, "window": self.window_tokens}
            made.append(LayerCache.model_validate({"name": f"{name}.swa_cache", **window, **main}))
            if ratio == 0:
                continue
            whole = {"kind": "full", "block_tokens": V4_BLOCK_TOKENS, "tokens_per_state": ratio}
            made.append(LayerCache.model_validate({"name": name, **whole, **main}))
            made.append(self._state(f"{name}.compressor.state_cache", ratio, self.head_dim, record))
            if ratio == 4:
                index = {"record_bytes": record.index_bytes, "alignment": record.index_alignment}
                made.append(LayerCache.model_validate({"name": f"{name}.indexer.k_cache", **whole, **index}))
                made.append(self._state(f"{name}.indexer.compressor.state_cache", ratio, self.index_head_dim, record))
        return tuple(made)

    def _state(self, name: str, ratio: int, width: int, record: Record) -> LayerCache:
        block_tokens, reach = _STATE[ratio]
        # A running value and a running score of each channel, once per window that is still open.
        numbers = 2 * reach * width
        return LayerCache(
            name=name,
            kind="window",
            block_tokens=block_tokens,
            record_bytes=numbers * record.state_element_bytes,
            alignment=record.state_alignment,
            window=reach * ratio,
        )


class PlainGeometry(Model):
    """Layers with keys and values of every token. kv_heads: of the whole model, divided among the ranks.

    draft: the layers of a draft model beside it.
    """

    kind: Literal["plain"] = "plain"
    layer_count: Positive
    kv_heads: Positive
    head_dim: Positive
    draft: PlainGeometry | None = None

    def layers(self, *, ranks: int, element_bytes: int, block_tokens: int) -> tuple[LayerCache, ...]:
        """The caches of one rank. Fewer heads than ranks are replicated."""
        record = 2 * max(1, self.kv_heads // ranks) * self.head_dim * element_bytes
        own = tuple(
            LayerCache(
                name=f"model.layers.{number}.attn",
                kind="full",
                family="dense",
                block_tokens=block_tokens,
                record_bytes=record,
            )
            for number in range(self.layer_count)
        )
        if self.draft is None:
            return own
        beside = self.draft.layers(ranks=ranks, element_bytes=element_bytes, block_tokens=block_tokens)
        return own + tuple(layer.model_copy(update={"name": f"draft.{layer.name}"}) for layer in beside)


Geometry = V4Geometry | PlainGeometry

#: The checkpoint of 2026-07-31: 43 layers (2 window alone, 21 with ratio 4, 20 with ratio 128), 3 draft layers.
FLASH_0731 = V4Geometry(
    compress_ratios=(0, 0, *(4, 128) * 20, 4),
    draft_layers=3,
    window_tokens=128,
    head_dim=512,
    index_head_dim=128,
)


def read_config(path: Path) -> Mapping[str, Any]:
    """A model's config.json. Raises ConfigError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as trouble:
        raise ConfigError(f"{path}: expected a model's config.json: {trouble}") from trouble
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document


def geometry_of(config: Mapping[str, Any], where: str) -> Geometry:
    """The geometry that a config.json describes. Raises ConfigError for a model that the plan does not know."""
    try:
        if config.get("model_type") == "deepseek_v4":
            return _v4(config)
        architectures = config.get("architectures") or ["none"]
        windows = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        if architectures[0] in _PLAIN and windows is None:
            return _plain(config)
    except (KeyError, TypeError, IndexError, AttributeError) as trouble:
        raise ConfigError(f"{where}: a key that the plan needs is absent or of another type: {trouble}") from trouble
    except ValidationError as trouble:
        first = trouble.errors()[0]
        raise ConfigError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from trouble
    raise ConfigError(
        f"{where}: model_type {config.get('model_type')!r}, {architectures[0]}: caches that this plan does not know",
        hint=f"DeepSeek V4, or plain attention without a window ({', '.join(sorted(_PLAIN))})",
    )


def _v4(config: Mapping[str, Any]) -> V4Geometry:
    count = int(config["num_hidden_layers"])
    ratios = [int(ratio) for ratio in config["compress_ratios"]]
    # A ratio of 1 compresses nothing: the layer has a window alone.
    target = [0 if ratio == 1 else ratio for ratio in ratios[:count]]
    if len(target) < count:
        raise KeyError(f"compress_ratios has {len(ratios)} entries for {count} layers")
    return V4Geometry.model_validate(
        {
            "compress_ratios": target,
            # vLLM 0.32.0, models/deepseek_v4/nvidia/dspark.py: three where the checkpoint does not say.
            "draft_layers": config.get("n_mtp_layers") or 3,
            "window_tokens": config["sliding_window"],
            "head_dim": config["head_dim"],
            "index_head_dim": config["index_head_dim"],
        }
    )


def _plain(config: Mapping[str, Any]) -> PlainGeometry:
    heads = config["num_attention_heads"]
    return PlainGeometry.model_validate(
        {
            "layer_count": config["num_hidden_layers"],
            "kv_heads": config.get("num_key_value_heads") or heads,
            "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        }
    )


def element_bytes_of(dtype: str, config: Mapping[str, Any]) -> int:
    """Bytes of one number of a plain cache: by --dtype, or by the model's own. Raises ConfigError."""
    name = config.get("dtype") or config.get("torch_dtype") if dtype == "auto" else dtype
    if not isinstance(name, str) or name not in _ELEMENT_BYTES:
        raise ConfigError(
            f"element type {name!r} of a plain KV cache is not known", hint=f"one of {', '.join(_ELEMENT_BYTES)}"
        )
    return _ELEMENT_BYTES[name]
