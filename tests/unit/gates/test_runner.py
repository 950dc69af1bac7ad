"""The gate against the fault-injecting server: the broken is found, the unproven is void, the healthy passes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.gates import levels
from dspark_ops.gates.book import AgentBook
from dspark_ops.gates.case import Case
from dspark_ops.gates.levels import smoke
from dspark_ops.gates.outcome import RunResult
from dspark_ops.gates.record import read_run
from dspark_ops.gates.sequential import RELEASE, SequentialPlan
from dspark_ops.openai_api.client import ApiClient
from dspark_ops.openai_api.model import Answer, ChatRequest
from tests.openai_server.app import Fault, Lies, ServerSetup
from tests.unit.gates.gate_bench import MODEL, PAIR, PROMPT_TOKENS, Bench, plan, run_release, run_smoke

# Many simulated requests on a machine that others use too.
pytestmark = pytest.mark.timeout(300)

#: Decides after a handful of bursts; what the real plan promises is computed in test_sequential.
SHORT = SequentialPlan(healthy=0.1, broken=0.6, alpha=0.05, beta=0.05, cap=40)


def with_fault(kind: Any, rate: float = 1.0, **more: Any) -> ServerSetup:
    return PAIR.model_copy(update={"faults": (Fault(kind=kind, rate=rate, **more),)})


def codes(result: RunResult) -> list[str]:
    return [doubt.code for doubt in result.doubts]


def test_a_healthy_server_passes_smoke(tmp_path: Path) -> None:
    result, run = run_smoke(tmp_path)
    assert (result.verdict, int(result.exit_code)) == ("pass", 0)
    assert result.message.startswith("the gate passed: 0 of 10 cold requests were bad: at most 25.9 %")
    assert [(part.name, part.asked, part.bad) for part in result.parts] == [
        ("prompts", 5, 0),
        ("tools", 3, 0),
        ("oracles", 2, 0),
    ]
    assert all(burst.proof.proven and burst.proof.hits == 0 for burst in run.bursts)


def test_a_healthy_server_passes_release_by_the_sequential_test(tmp_path: Path) -> None:
    result, run = run_release(tmp_path)
    assert result.verdict == "pass"
    assert len(run.bursts) == 66
    assert "0 of 66 bursts were bad: at most 4.4 % of bursts are (95 %)" in result.message
    assert min(burst.proof.most_running or 0 for burst in run.bursts) == 6


def test_every_mix_of_a_burst_runs_six_at_once_on_a_pair_of_true_size(tmp_path: Path) -> None:
    """Prompts of 20,000 tokens against steps of 8,192: prefills follow each other, no answer may end too early."""
    pair = ServerSetup(model=MODEL, metrics="lean")
    asked = plan("release", bursts=4).model_copy(update={"prompt_tokens": 20000, "timeout_s": 900.0})
    result, run = Bench(pair, tmp_path, asked).run(levels.release)
    assert result.verdict == "pass", result.message
    assert [burst.proof.most_running for burst in run.bursts] == [6, 6, 6, 6]
    lengths = [judged.prompt_tokens or 0 for burst in run.bursts for judged in burst.judged]
    assert min(lengths) > 17000


@pytest.mark.parametrize(
    "kind",
    ["char-run", "word-salad", "schema-dump", "empty", "off-by-one", "wrong-value", "wrong-name", "forgets", "cut"],
)
def test_smoke_finds_what_is_always_wrong(tmp_path: Path, kind: str) -> None:
    result, _ = run_smoke(tmp_path, with_fault(kind))
    assert (result.verdict, int(result.exit_code)) == ("fail", 1)
    assert result.bad


def test_no_answer_is_a_bad_answer(tmp_path: Path) -> None:
    result, _ = run_smoke(tmp_path, with_fault("hang"), timeout_s=30.0)
    assert result.verdict == "fail"
    assert {judged.outcome for judged in result.bad} == {"no-answer"}
    assert result.bound is not None
    assert result.bound.requests == 10


def test_what_the_engine_counts_as_corrupt_is_bad_although_the_text_is_right(tmp_path: Path) -> None:
    result, _ = run_smoke(tmp_path, with_fault("nan"))
    assert result.verdict == "fail"
    assert "NaN" in result.engine[0].observed
    assert result.bad == ()


def test_a_poisoned_state_is_found_by_the_second_turn_alone(tmp_path: Path) -> None:
    result, run = run_smoke(tmp_path, with_fault("forgets"))
    assert [judged.name for judged in result.bad] == ["prompts/3/0+2"]
    assert run.bursts[3].bad == 1


def test_the_reported_fault_is_found_cold_and_not_warm(tmp_path: Path) -> None:
    """Cold prefills spoilt in sixty of a hundred: the gate is cold, so it sees them."""
    for seed in range(4):
        result, _ = run_smoke(tmp_path / str(seed), with_fault("loop-30", 0.6, when="cold"), seed)
        assert result.verdict == "fail"


def test_release_rejects_five_percent_of_requests(tmp_path: Path) -> None:
    result, run = run_release(tmp_path, with_fault("word-salad", 0.05), seed=1)
    assert result.verdict == "fail"
    assert RELEASE.decide(sum(burst.bad > 0 for burst in run.bursts), 0) == "reject"
    assert len(run.bursts) < 66


def test_a_single_bad_burst_is_kept_and_more_are_asked(tmp_path: Path) -> None:
    spoilt: list[str] = []

    def spoil(case: Case) -> Case:
        if case.kind != "arithmetic" or spoilt:
            return case
        spoilt.append(case.nonce)
        return case.model_copy(update={"expected": case.expected.model_copy(update={"steps": (), "value": "none"})})

    bench = Bench(PAIR, tmp_path, plan("release"), alter=spoil)
    result, run = bench.run(lambda conduct: levels.release(conduct, SHORT))
    assert result.verdict == "pass", result.message
    assert len(run.bursts) > SHORT.still_to_go(0, 0)
    assert result.message.startswith("the gate passed: 1 of ")
    assert result.next_step is not None
    assert sum(entry["record"] == "exchange" for entry in read_run(run.folder.path)) == 1


def test_a_fixed_number_of_bursts_says_what_it_is_worth(tmp_path: Path) -> None:
    result, run = run_release(tmp_path, bursts=3)
    assert len(run.bursts) == 3
    assert "0 of 3 bursts were bad: at most 63.2 % of bursts are (95 %)" in result.message


# --- mutations: what is not cold, concurrent and alone must not become a verdict


@pytest.mark.parametrize(
    ("lies", "code"),
    [
        (Lies(always_warm=True), "prefix-hits"),
        (Lies(cold_of_burst=2), "prefix-hits"),
        (Lies(serialise=True), "not-concurrent"),
    ],
    ids=["warm served as cold", "two of six cold", "serialised"],
)
def test_a_server_that_is_not_cold_or_concurrent_makes_the_run_void(tmp_path: Path, lies: Lies, code: str) -> None:
    result, run = run_release(tmp_path, PAIR.model_copy(update={"lies": lies}))
    assert (result.verdict, int(result.exit_code)) == ("void", 3)
    assert code in codes(result)
    assert len(run.bursts) <= 2


def same_text(case: Case) -> Case:
    """The mutated gate: one system text and no tools for all, the nonce behind them, no salt."""
    request = case.request
    text = "You are an agent with a long manual. " * (PROMPT_TOKENS // 10) + f"[{case.nonce}]"
    messages = ({"role": "system", "content": text}, request.messages[-1])
    mutated = request.model_copy(update={"messages": messages, "cache_salt": None, "tools": (), "tool_choice": None})
    return case.model_copy(update={"request": mutated})


def test_a_nonce_behind_the_shared_text_makes_the_run_void(tmp_path: Path) -> None:
    result, _ = Bench(PAIR, tmp_path, plan("release"), alter=same_text).run(levels.release)
    assert result.verdict == "void"
    assert "prefix-hits" in codes(result)


def test_prompts_that_differ_only_in_two_of_six_make_the_run_void(tmp_path: Path) -> None:
    seen: list[Case] = []

    def alter(case: Case) -> Case:
        seen.append(case)
        request = seen[(len(seen) - 1) % 2].request
        return case.model_copy(update={"request": request, "expected": seen[(len(seen) - 1) % 2].expected})

    result, _ = Bench(PAIR, tmp_path, plan("release"), alter=alter).run(levels.release)
    assert result.verdict == "void"
    assert "prefix-hits" in codes(result)


def test_requests_sent_one_after_the_other_make_the_run_void(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def one_by_one(self: ApiClient, requests: Sequence[ChatRequest], *, timeout_s: float) -> list[Answer]:
        return [await self.chat(request, timeout_s=timeout_s) for request in requests]

    monkeypatch.setattr(ApiClient, "burst", one_by_one)
    result, run = run_release(tmp_path)
    assert result.verdict == "void"
    assert {"t0-spread", "not-concurrent"} <= set(codes(result))
    assert len(run.bursts) == 1


def test_a_clock_that_was_late_once_costs_one_burst_and_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, calls = ApiClient.burst, [0]

    async def late_once(self: ApiClient, requests: Sequence[ChatRequest], *, timeout_s: float) -> list[Answer]:
        calls[0] += 1
        if calls[0] != 2:
            return await right(self, requests, timeout_s=timeout_s)

        async def one(n: int, request: ChatRequest) -> Answer:
            await asyncio.sleep(0.02 * n)
            return await self.chat(request, timeout_s=timeout_s)

        return list(await asyncio.gather(*(one(n, request) for n, request in enumerate(requests))))

    monkeypatch.setattr(ApiClient, "burst", late_once)
    result, run = run_release(tmp_path, bursts=3)
    assert result.verdict == "pass", result.message
    assert [burst.counted for burst in run.bursts] == [True, False, True, True]
    assert result.bound is not None
    assert result.bound.bursts == 3


def test_a_clock_that_is_always_late_gives_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(self: ApiClient, requests: Sequence[ChatRequest], *, timeout_s: float) -> list[Answer]:
        async def one(n: int, request: ChatRequest) -> Answer:
            await asyncio.sleep(0.02 * n)
            return await self.chat(request, timeout_s=timeout_s)

        return list(await asyncio.gather(*(one(n, request) for n, request in enumerate(requests))))

    monkeypatch.setattr(ApiClient, "burst", late)
    result, run = run_release(tmp_path)
    assert result.verdict == "void"
    assert codes(result) == ["t0-spread"]
    assert len(run.bursts) == 4


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"metrics": "none"}, "no-metrics"),
        ({"max_num_seqs": 4}, "not-concurrent"),
        ({"restart_after": 8}, "restarted"),
    ],
)
def test_an_engine_that_cannot_show_it_makes_the_run_void(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    result, _ = run_release(tmp_path, PAIR.model_copy(update=changes))
    assert (result.verdict, int(result.exit_code)) == ("void", 3)
    assert code in codes(result)
    assert result.next_step


def test_without_metrics_nothing_is_asked(tmp_path: Path) -> None:
    _, run = run_release(tmp_path, PAIR.model_copy(update={"metrics": "none"}))
    assert run.bursts == []


def test_prompts_that_are_much_shorter_than_said_make_the_run_void(tmp_path: Path) -> None:
    book = AgentBook(model=MODEL, tokens_per_character=1.0)  # a quarter of the text that the server needs
    result, _ = Bench(PAIR, tmp_path, plan("smoke"), book=book).run(smoke)
    assert result.verdict == "void"
    assert result.doubts[0].code == "short-prompts"


def test_somebody_elses_request_makes_the_run_void(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ApiClient.burst

    async def with_a_stranger(self: ApiClient, requests: Sequence[ChatRequest], *, timeout_s: float) -> list[Answer]:
        stranger = ChatRequest(model=MODEL, messages=({"role": "user", "content": "and me?"},), max_tokens=5)
        other = asyncio.ensure_future(self.chat(stranger, timeout_s=timeout_s))
        answers = await right(self, requests, timeout_s=timeout_s)
        await other
        return answers

    monkeypatch.setattr(ApiClient, "burst", with_a_stranger)
    result, _ = run_release(tmp_path)
    assert result.verdict == "void"
    assert "foreign-requests" in codes(result)


def test_bad_answers_of_a_void_run_are_told(tmp_path: Path) -> None:
    setup = with_fault("word-salad").model_copy(update={"lies": Lies(always_warm=True)})
    result, _ = run_release(tmp_path, setup)
    assert result.verdict == "void"
    assert "bad answers seen before that" in result.message
    assert result.bad


def test_a_budget_that_is_used_up_is_no_verdict(tmp_path: Path) -> None:
    result, run = run_release(tmp_path, budget_s=30.0)
    assert result.verdict == "void"
    assert "the time was up after" in result.message
    assert 0 < len(run.bursts) < 66


def test_smoke_asks_for_calls_streamed_and_whole(tmp_path: Path) -> None:
    modes: list[bool] = []

    def noted(case: Case) -> Case:
        if case.request.tools and case.kind.startswith("tool"):
            modes.append(case.request.stream)
        return case

    result, _ = Bench(PAIR, tmp_path / "good", plan("smoke"), alter=noted).run(levels.smoke)
    assert (result.verdict, modes) == ("pass", [True, False, True])
    result, _ = run_smoke(tmp_path / "bad", with_fault("unary-differs"))
    assert (result.verdict, [judged.name for judged in result.bad]) == ("fail", ["tools/1/0"])


def test_nan_in_a_second_turn_is_the_engines_word_against_it(tmp_path: Path) -> None:
    result, run = run_smoke(tmp_path, with_fault("nan"))
    assert result.verdict == "fail"
    (burst,) = [burst for burst in run.bursts if burst.later]
    assert "counted 2 requests with NaN" in burst.engine[0].observed


def test_a_server_that_scores_nothing_is_said_to_be_not_judged_so(tmp_path: Path) -> None:
    result, _ = run_release(tmp_path, PAIR.model_copy(update={"prompt_logprobs": False}), rescore=True, bursts=1)
    (part,) = [part for part in result.parts if part.name == "likelihood"]
    assert "not judged" in (part.why or "")


# --- the record


def test_each_failure_is_kept_with_request_and_answer(tmp_path: Path) -> None:
    result, run = run_smoke(tmp_path, with_fault("off-by-one"))
    kept = {entry["name"]: entry for entry in read_run(run.folder.path) if entry["record"] == "exchange"}
    assert set(kept) == {judged.name for judged in result.bad}
    first = kept[result.bad[0].name]
    assert first["request"]["messages"][0]["role"] == "system"
    assert first["answer"]["content"]
    assert first["reasons"]
    assert json.loads(json.dumps(first["expected"]))


def test_the_same_seed_asks_the_same_questions_with_new_salts(tmp_path: Path) -> None:
    salts: list[str | None] = []
    texts: list[str] = []

    def noted(case: Case) -> Case:
        salts.append(case.request.cache_salt)
        texts.append(case.request.given_text())
        return case

    for name in ("a", "b"):
        bench = Bench(PAIR, tmp_path / name, plan("smoke", seed=9), alter=noted)
        bench.run(levels.smoke)
    half = len(texts) // 2
    assert texts[:half] == texts[half:]
    assert len(set(salts[:half])) == half


def test_a_late_burst_with_a_bad_answer_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bad must not be asked again until it is good."""

    async def late(self: ApiClient, requests: Sequence[ChatRequest], *, timeout_s: float) -> list[Answer]:
        async def one(n: int, request: ChatRequest) -> Answer:
            await asyncio.sleep(0.02 * n)
            return await self.chat(request, timeout_s=timeout_s)

        return list(await asyncio.gather(*(one(n, request) for n, request in enumerate(requests))))

    monkeypatch.setattr(ApiClient, "burst", late)
    result, run = run_release(tmp_path, with_fault("word-salad"), bursts=3)
    assert result.verdict == "fail"
    assert [burst.counted for burst in run.bursts] == [True]
