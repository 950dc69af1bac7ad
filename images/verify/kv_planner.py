"""Run inside the image: what does the release's own KV cache planner make of these layers?

    python3 -B kv_planner.py < question.json

The question is `{"cases": [case, ...]}` and the answer, on standard output, has one result per case in the same order.
A case: `layers` (one object per cache: name, kind `full` or `window`, family `mla` or `dense`, block_tokens,
tokens_per_state, record_bytes, alignment, window), `memory_bytes`, `max_model_len`, `in_flight_tokens`, optional
`split` (groups holding state caches are divided in so many, which no release does by itself). A result that the
release refused is `{"error": ...}`. No model, no weights and no device are needed: only the planner's arithmetic runs.
"""

from __future__ import annotations

import contextlib
import json
import sys
from types import SimpleNamespace
from typing import Any

SCHEMA = "dspark-ops/kv-planner/v1"


def main() -> int:
    """Answer the question on standard input."""
    question = json.load(sys.stdin)
    # Whatever the engine prints goes to standard error: standard output is one document.
    with contextlib.redirect_stdout(sys.stderr):
        import vllm

        results = [answered(case) for case in question["cases"]]
        document = {"schema": SCHEMA, "vllm": vllm.__version__, "results": results}
    print(json.dumps(document))
    return 0


def answered(case: dict[str, Any]) -> dict[str, Any]:
    """One result, or how the release refused the case."""
    try:
        return planned(case)
    except Exception as refused:  # whatever the planner raises is its answer
        return {"error": f"{type(refused).__name__}: {refused}"}


def planned(case: dict[str, Any]) -> dict[str, Any]:
    """The release's groups, block and capacity for one case."""
    from vllm.v1.core import kv_cache_utils as planner

    config = settings(case)
    specs = {layer["name"]: spec_of(layer) for layer in case["layers"]}
    groups = planner.get_kv_cache_groups(config, dict(specs))
    if case.get("split", 1) > 1:
        groups = [part for group in groups for part in divided(group, case["split"])]
    made = planner.get_kv_cache_config_from_groups(config, groups, case["memory_bytes"])
    # The release logs these two figures and gives no public way to them.
    block = planner._get_kv_cache_bytes_per_block(groups, config.cache_config.get_resolved_kv_cache_layout())  # noqa: SLF001
    tokens, concurrency = planner.get_kv_cache_capacity(config, made)
    needed = planner._max_memory_usage_bytes_from_groups(config, groups)  # noqa: SLF001
    return {
        "groups": [
            {
                "layers": len(group.layer_names),
                "page_bytes": page_bytes(group),
                "blocks": -(-group.kv_cache_spec.max_memory_usage_bytes(config) // group.kv_cache_spec.page_size_bytes),
            }
            for group in groups
        ],
        "block_bytes": block,
        "blocks": made.num_blocks,
        "request_blocks": needed // block,
        "concurrency": concurrency,
        "tokens": tokens,
    }


def page_bytes(group: Any) -> int:
    """Bytes of one block of the whole group: the group's spec is one layer's, or all layers' together."""
    several = getattr(group.kv_cache_spec, "kv_cache_specs", None)
    if several is not None:
        return sum(spec.page_size_bytes for spec in several.values())
    return group.kv_cache_spec.page_size_bytes * len(group.layer_names)


def spec_of(layer: dict[str, Any]) -> Any:
    """The cache spec that the model's own attention layer would make."""
    import torch
    from vllm.v1 import kv_cache_interface as kinds

    common: dict[str, Any] = {"block_size": layer["block_tokens"], "num_kv_heads": 1, "dtype": torch.uint8}
    if layer["family"] == "dense":
        # Keys and values have half of the record each.
        return kinds.FullAttentionSpec(head_size=layer["record_bytes"] // 2, **common)
    common |= {"head_size": layer["record_bytes"], "state_content_bytes": layer["record_bytes"]}
    common |= {"max_tp_shards": 1, "alignment": layer["alignment"], "tokens_per_state": layer["tokens_per_state"]}
    if layer["kind"] == "window":
        return kinds.SlidingWindowMLASpec(sliding_window=layer["window"], **common)
    return kinds.MLAAttentionSpec(**common)


def divided(group: Any, parts: int) -> list[Any]:
    """The group in `parts`, layer by layer in turn, when it holds compressor states; else itself."""
    from vllm.v1.kv_cache_interface import KVCacheGroupSpec, UniformTypeKVCacheSpecs

    if not any("state_cache" in name for name in group.layer_names):
        return [group]
    specs = group.kv_cache_spec.kv_cache_specs
    # A layer's two states stay together.
    numbers = sorted({int(name.split(".")[2]) for name in group.layer_names})
    made = []
    for first in range(parts):
        chosen = set(numbers[first::parts])
        part = {name: specs[name] for name in group.layer_names if int(name.split(".")[2]) in chosen}
        if part:
            made.append(KVCacheGroupSpec(list(part), UniformTypeKVCacheSpecs.from_specs(part)))
    return made


def settings(case: dict[str, Any]) -> Any:
    """The part of the engine's configuration that its planner reads."""
    from vllm.v1.kv_cache_layout import KVCacheLayout

    packed = any(layer["family"] == "mla" for layer in case["layers"])
    layout = KVCacheLayout.BLHNC if packed else KVCacheLayout.LBNHC
    return SimpleNamespace(
        cache_config=SimpleNamespace(
            get_resolved_kv_cache_layout=lambda: layout,
            num_gpu_blocks_override=None,
            prefix_cache_retention_interval=None,
            enable_prefix_caching=True,
            block_size=256,
        ),
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
        attention_config=SimpleNamespace(hisparse_config=None),
        model_config=SimpleNamespace(max_model_len=case["max_model_len"], is_encoder_decoder=False),
        parallel_config=SimpleNamespace(
            decode_context_parallel_size=1, prefill_context_parallel_size=1, pipeline_parallel_size=1
        ),
        max_in_flight_tokens=case["in_flight_tokens"],
        speculative_config=None,
        kv_transfer_config=None,
    )


if __name__ == "__main__":
    sys.exit(main())
