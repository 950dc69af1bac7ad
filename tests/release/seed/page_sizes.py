"""Runs in the engine image with a tree of vLLM 0.22.1 in front: what its own classes make of a KV cache dtype."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import get_args

import torch
import vllm
import vllm.models.deepseek_v4.attention  # stage B edits it: it must import
from vllm.config.cache import CacheDType
from vllm.models.deepseek_v4.nvidia.flashmla import DeepseekV4FlashMLASparseBackend
from vllm.utils.torch_utils import STR_DTYPE_TO_TORCH_DTYPE, is_quantized_kv_cache
from vllm.v1.attention.backends.mla.sparse_swa import DeepseekSparseSWABackend
from vllm.v1.core import kv_cache_utils
from vllm.v1.kv_cache_interface import MLAAttentionSpec, SlidingWindowMLASpec, get_kv_quant_mode

COMMON = {"num_kv_heads": 1, "dtype": torch.uint8, "alignment": 576}


class Specs:
    """DeepSeek V4's cache specs under one dtype, as its attention layers make them."""

    def __init__(self, dtype):
        self.v4 = {**COMMON, "head_size": 512, "cache_dtype_str": dtype, "model_version": "deepseek_v4"}
        self.window = SlidingWindowMLASpec(block_size=64, sliding_window=128, **self.v4)

    def main(self, ratio):
        return MLAAttentionSpec(block_size=256, compress_ratio=ratio, **self.v4)

    def model(self):
        """DeepSeek V4 Flash: 43 layers; ratio 0 has a window only, 4 an indexer as well."""
        specs = {}
        for layer, ratio in enumerate([0, 0, *[4, 128] * 20, 4]):
            name = f"model.layers.{layer}.attn"
            specs[f"{name}.swa_cache"] = self.window
            if not ratio:
                continue
            specs[name] = self.main(ratio)
            both = 1 + (ratio == 4)
            specs[f"{name}.compressor.state_cache"] = state(4 if ratio == 4 else 8, 2 * both * 512, both * ratio)
            if ratio == 4:
                indexer = MLAAttentionSpec(block_size=256, head_size=132, compress_ratio=4, **COMMON)
                specs[f"{name}.indexer.k_cache"] = indexer
                specs[f"{name}.indexer.compressor.state_cache"] = state(4, 512, 8)
        return specs


def state(block, width, window):
    fixed = {"num_kv_heads": 1, "dtype": torch.float32, "alignment": 576}
    return SlidingWindowMLASpec(block_size=block, head_size=width, sliding_window=window, **fixed)


def told(call):
    """What the call gives, or how it refuses."""
    try:
        return call()
    except Exception as refused:
        return f"{type(refused).__name__}: {refused}"


def groups(specs):
    scheduler = SimpleNamespace(disable_hybrid_kv_cache_manager=False)
    config = SimpleNamespace(scheduler_config=scheduler, speculative_config=None)
    return len(kv_cache_utils.get_kv_cache_groups(config, specs.model()))


def unified(specs):
    both = kv_cache_utils.unify_kv_cache_spec_page_size({"main": specs.main(4), "window": specs.window})
    return sorted({spec.page_size_bytes for spec in both.values()})


def seen(dtype):
    specs = Specs(dtype)
    return {
        "known": dtype in get_args(CacheDType),
        "torch_dtype": str(STR_DTYPE_TO_TORCH_DTYPE.get(dtype)),
        "quantised": is_quantized_kv_cache(dtype),
        "quant_mode": get_kv_quant_mode(dtype).name,
        "c4_page": specs.main(4).page_size_bytes,
        "c128_page": specs.main(128).page_size_bytes,
        "window_page": specs.window.page_size_bytes,
        "main_shape": DeepseekV4FlashMLASparseBackend.get_kv_cache_shape(7, 64, 1, 512, dtype),
        "window_shape": DeepseekSparseSWABackend.get_kv_cache_shape(7, 64, 1, 512, dtype),
        "unified": told(lambda: unified(specs)),
        "groups": told(lambda: groups(specs)),
    }


sys.stdout.write(json.dumps({"vllm": vllm.__version__, **{dtype: seen(dtype) for dtype in sys.argv[1:]}}) + "\n")
