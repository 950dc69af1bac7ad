"""Stage C: the envelope of a record, in numbers, and the functions that hand these numbers to vLLM's planner."""

from __future__ import annotations

from dataclasses import dataclass

from .guards import Guard
from .records import Record, RecordError


@dataclass(frozen=True)
class Envelope:
    """Bytes of one token in one layer, and what the bytes of a page are rounded up to."""

    token_bytes: int
    page_alignment_bytes: int


ENVELOPES = {"fp8": Envelope(584, 576)}

GUARDS = (
    Guard(
        "models.deepseek_v4.attention",
        "DeepseekV4Attention.get_kv_cache_spec",
        "self, vllm_config: VllmConfig",
        "4231b9626c1c3da455dd401a73fbb07467d68ff828a8fa5fe74a4d2a97c5c04d",
    ),
    Guard(
        "v1.attention.backends.mla.sparse_swa",
        "DeepseekV4SWACache.__init__",
        "self, head_dim: int, window_size: int, dtype: torch.dtype, prefix: str, "
        "cache_config: CacheConfig, backend_cls: 'type[AttentionBackend] | None'=None, "
        "block_size: int=64, packed_bytes_per_token: int=584, packed_page_alignment: int=576, "
        "bounded_replay: bool=False",
        "efc8150a4d412d0bafabf5ba27e6e5064caa60fa0b092bf698e66e973ea2209e",
    ),
    Guard(
        "v1.attention.backends.mla.sparse_swa",
        "DeepseekV4SWACache.get_kv_cache_spec",
        "self, vllm_config: VllmConfig",
        "d535321717080524f088dc0c85ef462ce69282f400153ee93d10e36c3bd9f998",
    ),
)


def envelope_of(record: Record) -> Envelope:
    """
    Raises:
        RecordError: this stage has no numbers for the record.
    """
    try:
        return ENVELOPES[record.name]
    except KeyError:
        raise RecordError(
            f"dspark: stage C has no envelope for the KV record {record.name}; it has {', '.join(ENVELOPES)}"
        ) from None
