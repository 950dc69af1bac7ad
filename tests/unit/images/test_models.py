"""The rehearsal models: a table that a real engine must follow, so its properties are the promises of the README."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import chains
import jinja2
import make_models
import pytest

_IDS = chains.token_ids()
_TOKENS = {number: token for token, number in _IDS.items()}


def _follow(table: dict[int, int], start: str, limit: int = 400) -> list[str]:
    written: list[str] = []
    now = table[_IDS[start]]
    while _TOKENS[now] != chains.END and len(written) < limit:
        written.append(_TOKENS[now])
        now = table[now]
    return written


def _template(messages: list[dict[str, Any]], **arguments: Any) -> str:
    text = Path(make_models.__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
    return environment.from_string(text).render(messages=messages, add_generation_prompt=True, **arguments)


def test_ids_are_unique_and_below_the_vocabulary() -> None:
    assert len(set(_IDS.values())) == len(_IDS)
    assert max(_IDS.values()) < chains.VOCABULARY
    assert set(chains.byte_alphabet()) == set(range(256))
    assert len(set(chains.byte_alphabet().values())) == 256


def test_every_chain_is_written_out_and_ends() -> None:
    table = chains.successors()
    assert set(table) == set(range(chains.VOCABULARY))
    for branch, chain in chains.CHAINS.items():
        assert _follow(table, branch) == list(chain)
    assert "".join(_follow(table, "<|go:plain|>")) == "The quick brown fox jumps over the lazy dog."


def test_no_chunk_occurs_twice() -> None:
    chunks = [chunk for chain in (*chains.CHAINS.values(), chains.COUNT) for chunk in chain]
    assert len(chunks) == len(set(chunks))


def test_the_endless_answer_counts_and_never_ends() -> None:
    written = _follow(chains.successors(), chains.ENDLESS)
    assert [int(token) for token in written] == [n % 128 for n in range(400)]


def test_both_ranks_are_needed_all_along() -> None:
    half = chains.VOCABULARY // 2
    for branch, chain in chains.CHAINS.items():
        sides = [_IDS[token] // half for token in (branch, *chain)]
        assert sum(a != b for a, b in pairwise(sides)) >= len(chain) // 2, branch


@pytest.mark.parametrize("name", ["scripted", "draft-half"])
def test_the_weights_hold_the_table(name: str) -> None:
    table = chains.successors() if name == "scripted" else chains.half_wrong(chains.successors())
    rows = make_models.embedding()
    head = make_models.output_layer(rows, table)
    for row in range(0, chains.VOCABULARY, 5):
        logits = [sum(a * b for a, b in zip(rows[row], weights, strict=True)) for weights in head]
        assert logits[table[row]] == 40
        assert sorted(logits)[-2] == 0


def test_a_weight_that_bfloat16_cannot_hold_is_refused() -> None:
    assert make_models.bfloat16([1.0, -2.5]) == struct.pack("<HH", 0x3F80, 0xC020)
    with pytest.raises(ValueError, match="bfloat16"):
        make_models.bfloat16([0.1])


def test_the_half_wrong_draft_errs_on_half_and_never_ends_a_text_itself() -> None:
    truth = chains.successors()
    draft = chains.half_wrong(truth)
    wrong = [row for row in truth if draft[row] != truth[row]]
    assert len(wrong) == pytest.approx(chains.VOCABULARY // 2, abs=8)
    assert all(_TOKENS[draft[row]] in chains.COUNT for row in wrong)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_acceptance_of_the_drafts_is_known(k: int) -> None:
    truth = chains.successors()
    assert chains.accepted_per_position(truth, k=k) == [1.0] * k
    half = chains.accepted_per_position(chains.half_wrong(truth), k=k)
    assert half == sorted(half, reverse=True)
    assert 0.4 < half[0] < 0.65


@pytest.mark.parametrize(
    ("content", "arguments", "ending"),
    [
        ("hello", {"thinking": False}, "</think><|go:plain|>"),
        ("hello", {"enable_thinking": False}, "</think><|go:plain|>"),
        ("hello", {}, "<think><|go:think|>"),
        ("weather?", {"tools": [{"name": "f"}], "thinking": False}, "</think><|go:tool|>"),
        ("weather?", {"tools": [{"name": "f"}]}, "<think><|go:thinktool|>"),
        ("weather?", {"tools": [{"name": "f"}], "dialect": "hermes"}, "<|go:hermes|>"),
        ("ENDLESS", {"tools": [{"name": "f"}]}, "<|go:endless|>"),
        ("hello", {"branch": "plain"}, "<|go:plain|>"),
        ([{"type": "text", "text": "ENDLESS"}], {}, "<|go:endless|>"),
    ],
)
def test_the_template_chooses_the_answer(content: Any, arguments: dict[str, Any], ending: str) -> None:
    prompt = _template([{"role": "user", "content": content}], **arguments)
    assert prompt.endswith(ending)
    assert prompt.startswith("<|user|>")
    assert "\n" not in prompt


def test_after_a_tools_result_the_model_answers_in_words() -> None:
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "rain"},
    ]
    assert _template(messages, tools=[{"name": "f"}], thinking=False).endswith("</think><|go:plain|>")


def test_the_same_bytes_every_time_and_readable_weights(tmp_path: Path) -> None:
    for run in ("first", "second"):
        make_models.main(tmp_path / run)
    files = sorted(p.relative_to(tmp_path / "first") for p in (tmp_path / "first").rglob("*") if p.is_file())
    assert {path.parts[0] for path in files} == {"scripted", "draft", "draft-half"}
    for path in files:
        assert (tmp_path / "first" / path).read_bytes() == (tmp_path / "second" / path).read_bytes()
    raw = (tmp_path / "first/scripted/model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    assert header["lm_head.weight"] == {
        "dtype": "BF16",
        "shape": [chains.VOCABULARY, make_models.HIDDEN],
        "data_offsets": [len(raw) - 8 - size - 2 * chains.VOCABULARY * make_models.HIDDEN, len(raw) - 8 - size],
    }
    tokenizer = json.loads((tmp_path / "first/scripted/tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer["model"]["vocab"] == _IDS
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    assert chains.END in special
    assert "</think>" not in special
