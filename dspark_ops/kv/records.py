"""The records: what one stored token of DeepSeek V4 costs under each KV layout, named for what it is."""

from __future__ import annotations

from typing import Literal

from dspark_ops.errors import ConfigError
from dspark_ops.kv.caches import Model, Positive

#: release: the profile's release stores it by itself. seed: the seed's stages do. planned: arithmetic only.
Carried = Literal["release", "seed", "planned"]


class Record(Model):
    """One layout. *_bytes: of a token's record; *_alignment: what a page of it is padded to a multiple of.

    main is in the window and compressed caches, index the indexer's key, state the compressors' running sums:
    state_element_bytes per number. split_states: their group is divided in so many.
    """

    name: str
    label: str
    carried: Carried
    main_bytes: Positive
    main_alignment: Positive
    index_bytes: Positive = 132
    index_alignment: Positive
    state_element_bytes: Positive = 4
    state_alignment: Positive
    split_states: Positive = 1

    @property
    def honest(self) -> str:
        """The label, and whether anything stores it."""
        if self.carried == "planned":
            return f"{self.label}; not carried by this build"
        return self.label


_FP4 = {"index_alignment": 256, "state_alignment": 256, "main_alignment": 16, "carried": "planned"}
_ALIAS = {"main_bytes": 584, "main_alignment": 584, "index_alignment": 512, "state_alignment": 512, "carried": "seed"}
_FP8 = {"main_bytes": 584, "main_alignment": 576, "index_alignment": 576, "state_alignment": 576}

RECORDS = {
    record.name: record
    for record in (
        Record.model_validate(
            {"name": "fp8", "label": "FP8, 584 bytes, pages in multiples of 576", "carried": "release", **_FP8}
        ),
        Record.model_validate(
            {"name": "alias-584", "label": "the seed's nvfp4_ds_mla: FP8 in a 584-byte envelope, no FP4", **_ALIAS}
        ),
        Record.model_validate({"name": "nvfp4-384", "label": "NVFP4, 384 bytes", "main_bytes": 384, **_FP4}),
        Record.model_validate(
            {
                "name": "nvfp4-384-split",
                "label": "NVFP4, 384 bytes, the group of states split in two",
                "main_bytes": 384,
                "split_states": 2,
                **_FP4,
            }
        ),
        Record.model_validate(
            {
                "name": "nvfp4-384-bf16-state",
                "label": "NVFP4, 384 bytes, compressor state in bf16",
                "main_bytes": 384,
                "state_element_bytes": 2,
                **_FP4,
            }
        ),
        Record.model_validate(
            {
                "name": "fp4-288-bf16-state",
                "label": "all FP4, 288 bytes, compressor state in bf16",
                "main_bytes": 288,
                "state_element_bytes": 2,
                **_FP4,
            }
        ),
        Record.model_validate(
            {"name": "fp8-index-68", "label": "FP8 with the MXFP4 indexer (refused on GB10)", "index_bytes": 68, **_FP8}
            | {"carried": "planned"}
        ),
    )
}

#: What the releases' --kv-cache-dtype stores on GB10. `auto` and `fp8` become fp8_ds_mla there by themselves.
_OF_DTYPE = {"auto": "fp8", "fp8": "fp8", "fp8_e4m3": "fp8", "fp8_ds_mla": "fp8"}


def record_named(name: str) -> Record:
    """The record of that name. Raises ConfigError listing them."""
    if name not in RECORDS:
        raise ConfigError(f"no record {name!r}", hint=f"one of {', '.join(RECORDS)}")
    return RECORDS[name]


def record_of_dtype(kv_cache_dtype: str, *, lane: str) -> Record:
    """What a site's kv_cache_dtype really stores. Raises ConfigError for one that the lane cannot serve."""
    if lane == "seed" and kv_cache_dtype == "nvfp4_ds_mla":
        return RECORDS["alias-584"]
    name = _OF_DTYPE.get(kv_cache_dtype)
    if name is None:
        raise ConfigError(
            f"serve.kv_cache_dtype {kv_cache_dtype!r} has no record that lane {lane} stores for DeepSeek V4 on GB10",
            hint=f"fp8_ds_mla, or plan a layout by --record: {', '.join(RECORDS)}",
        )
    return RECORDS[name]
