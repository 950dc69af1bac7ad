"""The KV records of DeepSeek V4 by name: what a token of one layer is stored as.

`fp8` is what is carried. The others are known, so that asking for them is answered by name and not by a typing error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

VARIABLE = "DSPARK_KV_RECORD"
DEFAULT = "fp8"


class RecordError(ValueError):
    """A record that does not exist, or that this build does not carry."""


@dataclass(frozen=True)
class Record:
    """One record.

    layout: the format's name where it is implemented (vLLM, FlashInfer). parts: the bytes of one token and layer.
    refused: why this build does not carry it, None if it does.
    """

    name: str
    layout: str
    kind: str
    parts: tuple[tuple[str, int], ...]
    refused: str | None = None

    @property
    def token_bytes(self) -> int:
        return sum(count for _, count in self.parts)


_FP8_PARTS = (("448 e4m3", 448), ("64 bf16 RoPE", 128), ("7 UE8M0 scales", 7), ("pad", 1))

RECORDS = {
    record.name: record
    for record in (
        Record("fp8", "fp8_ds_mla", "FP8", _FP8_PARTS),
        Record(
            "fp8-584",
            "fp8_ds_mla",
            "FP8, pages aligned to 584",
            _FP8_PARTS,
            refused="vLLM 0.32.0 warms up its compressor kernels for pages of a multiple of 576 bytes; the same bytes "
            "a token with 584 gain 1.1 % of the pool, and no reader was seen on them",
        ),
        Record(
            "nvfp4-384",
            "nvfp4",
            "NVFP4",
            (("448 e2m1", 224), ("28 e4m3 scales", 28), ("64 bf16 RoPE", 128), ("pad", 4)),
            refused="its kernels are not carried by this build",
        ),
        Record(
            "nvfp4-416",
            "nvfp4",
            "NVFP4",
            (("512 e2m1", 256), ("32 e4m3 scales", 32), ("64 bf16 RoPE", 128)),
            refused="it is the geometry of a 512-wide latent; DeepSeek V4 stores 448 quantised values",
        ),
    )
}


def selected_record() -> Record:
    """The record that the environment asks for; the default where it is silent.

    Raises:
        RecordError: no such record, or one that is not carried.
    """
    wanted = os.environ.get(VARIABLE, DEFAULT)
    record = RECORDS.get(wanted)
    carried = ", ".join(name for name, one in RECORDS.items() if one.refused is None)
    if record is None:
        raise RecordError(f"dspark: {VARIABLE}={wanted!r} is no KV record; expected {carried}")
    if record.refused is not None:
        raise RecordError(f"dspark: the KV record {wanted} is known but refused: {record.refused}; expected {carried}")
    return record
