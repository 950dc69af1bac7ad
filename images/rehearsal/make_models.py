#!/usr/bin/env python3
"""Write the rehearsal models: `make_models.py DIRECTORY`. Standard library only; the same bytes every time.

  scripted    Llama of two layers whose weights hold the successor table of chains.py: known text from a real engine
  draft       the same table in one layer: a draft model that is always right
  draft-half  one layer, wrong after half of the tokens: chains.accepted_per_position() tells its acceptance

How a table becomes weights: the rows of the embedding are those of a Hadamard matrix, +1 and -1 and orthogonal, which
RMSNorm leaves as they are. Row b of the output layer is the sum of the embeddings of the tokens that b follows, times
40/hidden, so the logit of the right token is 40 and that of any other 0. Attention and MLP run, but their last matrices
are zero and add nothing. Every number is exact in bfloat16: neither the CPU nor the number of ranks changes the text.
"""

from __future__ import annotations

import json
import random
import struct
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chains

#: As wide as the vocabulary is long: that many orthogonal rows fit.
HIDDEN = chains.VOCABULARY
HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE = 4, 2, 32, 64
SCALE = 40 / HIDDEN
MODELS = {"scripted": 2, "draft": 1, "draft-half": 1}
_HERE = Path(__file__).resolve().parent
_LIMIT = 1048576


def main(target: Path) -> None:
    """Write every model below `target`, each complete in its own directory."""
    for name, layers in MODELS.items():
        table = chains.half_wrong(chains.successors()) if name == "draft-half" else chains.successors()
        directory = target / name
        directory.mkdir(parents=True, exist_ok=True)
        write_tokenizer(directory)
        _write_json(directory / "config.json", config(layers))
        write_weights(directory / "model.safetensors", tensors(layers, table))
        print(f"{name}: {sum(path.stat().st_size for path in directory.iterdir()) / 1e6:.1f} MB")


def config(layers: int) -> dict[str, Any]:
    """The model's config.json: a plain Llama, so that every part of the engine knows it."""
    ids = chains.token_ids()
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": chains.VOCABULARY,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": _LIMIT,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": ids["<s>"],
        "eos_token_id": ids[chains.END],
        "pad_token_id": ids["<pad>"],
    }


def embedding() -> list[list[float]]:
    """One row of +1 and -1 per token, each orthogonal to every other (Sylvester's construction)."""
    return [
        [-1.0 if (row & column).bit_count() & 1 else 1.0 for column in range(HIDDEN)]
        for row in range(chains.VOCABULARY)
    ]


def output_layer(rows: list[list[float]], table: dict[int, int]) -> list[list[float]]:
    """For each token, the scaled sum of the rows that it follows."""
    head = [[0.0] * HIDDEN for _ in rows]
    for before, after in table.items():
        head[after] = [sum_ + SCALE * value for sum_, value in zip(head[after], rows[before], strict=True)]
    return head


def tensors(layers: int, table: dict[int, int]) -> Iterator[tuple[str, tuple[int, ...], list[float]]]:
    """Name, shape and values of every weight, in the order of the file."""
    rows = embedding()
    yield "model.embed_tokens.weight", (len(rows), HIDDEN), [value for row in rows for value in row]
    draw = random.Random(1)  # noqa: S311 - reproducible, not secret
    query, key = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    for layer in range(layers):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (HIDDEN,), [1.0] * HIDDEN
        for part, height in (("q", query), ("k", key), ("v", key)):
            yield f"{at}.self_attn.{part}_proj.weight", (height, HIDDEN), _signs(draw, height * HIDDEN, 0.0625)
        yield f"{at}.self_attn.o_proj.weight", (HIDDEN, query), [0.0] * (HIDDEN * query)
        yield f"{at}.post_attention_layernorm.weight", (HIDDEN,), [1.0] * HIDDEN
        for part in ("gate", "up"):
            shape = (INTERMEDIATE, HIDDEN)
            yield f"{at}.mlp.{part}_proj.weight", shape, _signs(draw, INTERMEDIATE * HIDDEN, 0.0625)
        yield f"{at}.mlp.down_proj.weight", (HIDDEN, INTERMEDIATE), [0.0] * (HIDDEN * INTERMEDIATE)
    yield "model.norm.weight", (HIDDEN,), [1.0] * HIDDEN
    head = output_layer(rows, table)
    yield "lm_head.weight", (len(head), HIDDEN), [value for row in head for value in row]


def bfloat16(values: list[float]) -> bytes:
    """Little-endian bfloat16; a value that it cannot hold exactly is a mistake in the recipe."""
    halves = array("H", struct.pack(f"<{len(values)}f", *values))
    if sys.byteorder != "little":
        halves.byteswap()
    if any(halves[0::2]):
        raise ValueError("a weight is not exact in bfloat16")
    exact = halves[1::2]
    if sys.byteorder != "little":
        exact.byteswap()
    return exact.tobytes()


def write_weights(path: Path, weights: Iterator[tuple[str, tuple[int, ...], list[float]]]) -> None:
    """A safetensors file: header length, JSON header, data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, shape, values in weights:
        start = len(data)
        data += bfloat16(values)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def tokenizer() -> dict[str, Any]:
    """tokenizer.json: byte-level BPE without merges, and each chunk of a chain as a token of its own."""
    ids = chains.token_ids()
    special = {*chains.SPECIAL, *chains.CHAINS, chains.ENDLESS}
    added = sorted((ids[token], token) for token in chains.added_tokens())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": n, "content": t, **flags, "special": t in special} for n, t in added],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(ids.items(), key=lambda item: item[1])),
            "merges": [],
        },
    }


def write_tokenizer(directory: Path) -> None:
    """Everything that turns messages into tokens and back."""
    ids = chains.token_ids()
    template = (_HERE / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n")
    _write_json(directory / "tokenizer.json", tokenizer())
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": chains.END,
            "pad_token": "<pad>",
            "model_max_length": _LIMIT,
            "clean_up_tokenization_spaces": False,
            "add_bos_token": False,
            "chat_template": template,
        },
    )
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    _write_json(
        directory / "generation_config.json",
        {"bos_token_id": ids["<s>"], "eos_token_id": ids[chains.END], "pad_token_id": ids["<pad>"]},
    )


def _signs(draw: random.Random, number: int, size: float) -> list[float]:
    bits = draw.getrandbits(number)
    return [size if bits >> n & 1 else -size for n in range(number)]


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
