"""The figures that the arithmetic must give, and geometries by chance. Used here and by the release tests."""

from __future__ import annotations

from random import Random

from dspark_ops.kv.caches import LayerCache
from dspark_ops.kv.geometry import FLASH_0731, V4Geometry
from dspark_ops.kv.plan import Capacity, Layout
from dspark_ops.kv.records import RECORDS, Record

MILLION = 1_048_576
GIB12 = 12 << 30
#: (record, F) -> tokens of a 12 GiB pool at 1,048,576, as the planner of vLLM 0.32.0 computes them.
TABLE = {
    ("fp8", 16384): 1_250_741,
    ("fp8", 8192): 1_809_462,
    ("fp8", 4096): 2_329_846,
    ("fp8", 2048): 2_721_133,
    ("alias-584", 16384): 1_264_848,
    ("alias-584", 8192): 1_829_870,
    ("alias-584", 4096): 2_356_124,
    ("alias-584", 2048): 2_751_824,
    ("nvfp4-384", 16384): 1_457_285,
    ("nvfp4-384", 8192): 2_108_271,
    ("nvfp4-384", 4096): 2_714_590,
    ("nvfp4-384", 2048): 3_170_492,
    ("nvfp4-384-split", 16384): 1_124_950,
    ("nvfp4-384-split", 8192): 1_807_903,
    ("nvfp4-384-split", 4096): 2_595_875,
    ("nvfp4-384-split", 2048): 3_319_212,
    ("nvfp4-384-bf16-state", 16384): 1_768_316,
    ("nvfp4-384-bf16-state", 8192): 2_558_243,
    ("nvfp4-384-bf16-state", 4096): 3_293_971,
    ("nvfp4-384-bf16-state", 2048): 3_847_177,
    ("fp4-288-bf16-state", 16384): 2_176_247,
    ("fp4-288-bf16-state", 8192): 3_148_402,
    ("fp4-288-bf16-state", 4096): 4_053_853,
    ("fp4-288-bf16-state", 2048): 4_734_678,
}


class Case:
    """One question: layers, the division of states, memory, length, F."""

    def __init__(
        self, layers: tuple[LayerCache, ...], *, split: int, pool_bytes: int, max_model_len: int, in_flight_tokens: int
    ) -> None:
        self.layers, self.split, self.pool_bytes = layers, split, pool_bytes
        self.max_model_len, self.in_flight_tokens = max_model_len, in_flight_tokens

    def ours(self) -> Capacity:
        return Layout.of(self.layers, split_states=self.split).capacity(
            self.pool_bytes, max_model_len=self.max_model_len, in_flight_tokens=self.in_flight_tokens
        )

    def question(self) -> dict[str, object]:
        return {
            "layers": [layer.model_dump() for layer in self.layers],
            "memory_bytes": self.pool_bytes,
            "max_model_len": self.max_model_len,
            "in_flight_tokens": self.in_flight_tokens,
            "split": self.split,
        }


def case_of(record: str, in_flight_tokens: int, *, pool_bytes: int = GIB12, max_model_len: int = MILLION) -> Case:
    """The 0731 geometry under a record."""
    chosen = RECORDS[record]
    return Case(
        FLASH_0731.layers(chosen),
        split=chosen.split_states,
        pool_bytes=pool_bytes,
        max_model_len=max_model_len,
        in_flight_tokens=in_flight_tokens,
    )


#: 21,316,272,128 bytes gave 3,027,217 tokens on two GB10 (a public report; asynchronous scheduling off).
GOLDEN = case_of("alias-584", 8192, pool_bytes=21_316_272_128)
GOLDEN_TOKENS = 3_027_217

#: Five windows beside two and three states: groups two or three deep leave two places unused, and three is taken.
TIE = Case(
    FLASH_0731.model_copy(update={"compress_ratios": (4, 128, 4, 128, 128), "draft_layers": 0}).layers(RECORDS["fp8"]),
    split=1,
    pool_bytes=GIB12,
    max_model_len=MILLION,
    in_flight_tokens=8192,
)


def chance_case(chance: Random) -> Case:
    """A V4-like model that nobody made, under a record that nobody stores."""
    kinds = chance.choice(((0, 4, 128), (0, 4, 128), (0, 128), (0, 4), (0,)))
    ratios = [chance.choice(kinds) for _ in range(chance.randint(1, 50))]
    geometry = V4Geometry(
        compress_ratios=tuple(ratios),  # type: ignore[arg-type]
        draft_layers=chance.randint(0, 4),
        window_tokens=chance.choice((64, 128, 256, 1000)),
        head_dim=chance.choice((128, 256, 512)),
        index_head_dim=chance.choice((64, 96, 128)),
    )
    record = Record(
        name="chance",
        label="by chance",
        carried="planned",
        main_bytes=chance.choice((288, 384, 528, 584, 1024)),
        main_alignment=chance.choice((1, 16, 512, 576, 584)),
        index_bytes=chance.choice((68, 132)),
        index_alignment=chance.choice((1, 256, 512, 576)),
        state_element_bytes=chance.choice((2, 4)),
        state_alignment=chance.choice((1, 256, 512, 576)),
    )
    return Case(
        geometry.layers(record),
        split=1,
        pool_bytes=chance.randint(1 << 26, 1 << 36),
        max_model_len=chance.randint(1, 1 << 20),
        in_flight_tokens=chance.randint(1, 1 << 16),
    )
