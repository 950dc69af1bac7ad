"""Stage B: which record the attention of DeepSeek V4 accepts, and the functions of the release that decide it.

With the FP8 record the release's own code is used as it is: nothing is rebound. A record of another layout would need
a writer and a reader of its own here.
"""

from __future__ import annotations

from .guards import Guard
from .records import Record, RecordError

#: What compute capability 12.x accepts, in vLLM's own names (the guarded functions below).
ACCEPTED_LAYOUTS = ("fp8_ds_mla",)

GUARDS = (
    Guard(
        "models.deepseek_v4.attention",
        "_resolve_dsv4_kv_cache_dtype",
        "use_fp8_ds_mla_layout: bool, kv_cache_dtype: str, cache_config: CacheConfig | None",
        "a7b0b5b3cd9b2e1212dccfe010946d1a5983fbc6caeab3314953c25dbdd7bea7",
    ),
    Guard(
        "models.deepseek_v4.nvidia.flashinfer_sparse",
        "DeepseekV4FlashInferMLASparseBackend.supports_combination",
        "cls, head_size: int, dtype: torch.dtype, kv_cache_dtype: CacheDType | None, "
        "block_size: int | None, use_mla: bool, has_sink: bool, use_sparse: bool, use_mm_prefix: bool, "
        "device_capability: DeviceCapability",
        "0243959b0dda8267548bede0efe92d1f018d75a89e1041ff0910b2b00b01b70f",
    ),
)


def require_accepted(record: Record) -> None:
    """
    Raises:
        RecordError: the attention of this release does not read the record.
    """
    if record.layout not in ACCEPTED_LAYOUTS:
        raise RecordError(
            f"dspark: the KV record {record.name} is stored as {record.layout}; the attention of this release accepts "
            + ", ".join(ACCEPTED_LAYOUTS)
        )
