"""What a rank was told is read as vLLM reads it."""

from __future__ import annotations

from dspark_ops.doctor.told import Told, site_as_told
from tests.unit.doctor.pair_fixture import load_case_site


def told(*words: str) -> Told:
    return Told.of("head", ("vllm", "serve", "/models/m", *words), {"A": "1"})


def test_both_forms_and_the_last_one() -> None:
    rank = told("--port=8000", "--port", "8001", "--max_num_seqs=6")
    assert rank.last("--port") == "8001"
    assert rank.whole("--max-num-seqs") == 6
    assert rank.last("--host") is None
    assert rank.given("--port")
    assert not rank.given("--host")


def test_numbers() -> None:
    rank = told("--a=0.5", "--b=x", "--c")
    assert (rank.number("--a"), rank.number("--b"), rank.number("--c")) == (0.5, None, None)
    assert (rank.whole("--a"), rank.whole("--c")) == (None, None)


def test_switches() -> None:
    assert told("--enable-x").switch("--enable-x") is True
    assert told("--enable-x", "--no-enable-x").switch("--enable-x") is False
    assert told().switch("--enable-x") is None


def test_documents() -> None:
    rank = told(
        '--speculative-config={"method":"dspark","num_speculative_tokens":5}', "--speculative-config.method=mtp"
    )
    assert rank.document("--speculative-config") == {"method": "mtp", "num_speculative_tokens": 5}
    assert rank.drafted() == 5
    assert told("--speculative-config={broken").document("--speculative-config") is None
    assert told().document("--speculative-config") is None
    assert told().drafted() is None


def test_the_site_takes_the_ranks_part_and_keeps_its_own() -> None:
    site = load_case_site().site
    seen = site_as_told(
        site, told("--max-num-seqs=9", '--speculative-config={"method":"mtp","num_speculative_tokens":2}')
    )
    assert (seen.serve.max_num_seqs, seen.serve.speculative.method, seen.serve.speculative.tokens) == (9, "mtp", 2)
    assert seen.serve.environment == {"A": "1"}
    assert seen.name == site.name
    plain = site_as_told(site, told())
    assert (plain.serve.max_num_seqs, plain.serve.speculative.method) == (site.serve.max_num_seqs, "none")
