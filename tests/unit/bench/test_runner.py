"""Whole runs against the test server in virtual time: what is measured, what is refused, what voids a block."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.bench.plan import BenchPlan
from dspark_ops.bench.records import Run, read_run
from dspark_ops.bench.runner import Progress
from dspark_ops.bench.sides import Side
from dspark_ops.bench.summary import summarise
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.openai_api.client import ApiClient
from dspark_ops.openai_api.model import ChatRequest
from tests.openai_server.answers import Solution
from tests.openai_server.app import make_app
from tests.openai_server.setup import Fault, KnownRate, Lies, ServerSetup, Speculation
from tests.openai_server.virtual import VirtualLoop
from tests.unit.bench.harness import Solver, run_bench, small

LEAN = {"metrics": "lean"}
ONE: dict[str, Any] = {"classes": ("prose",), "concurrency": (2,), "caches": ("cold",), "warmup_max": 5}


def _reasons(run: Run) -> str:
    return "\n".join(reason for block in run.blocks for reason in block.reasons)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[Progress]]:
    """A run with everything in it, against a healthy server."""
    plan = small(
        classes=("code", "prose", "tool-json", "long-context", "predictable"),
        mixed_at=2,
        open_requests=5,
        long_prompts=(3000, 500_000),
        window=False,
    )
    said: list[Progress] = []
    path = tmp_path_factory.mktemp("bench") / "run.jsonl"
    setup = ServerSetup(context_length=20_000, **LEAN)  # type: ignore[arg-type]
    return run_bench(plan, path, setup, say=said.append), said


def test_a_healthy_run_is_sound_from_end_to_end(whole: tuple[Run, list[Progress]]) -> None:
    run, _ = whole
    assert not run.partial
    assert run.end is not None
    # five classes and the mixed one x cold and warm, of which the classes at 1 and 2; one open; one long
    assert len(run.blocks) == run.end.blocks_planned == 5 * 2 * 2 + 2 + 1 + 1
    assert {block.state for block in run.blocks} == {"sound"}, _reasons(run)
    assert {sample.outcome for sample in run.samples} == {"valid"}
    assert all(abs(block.identity.off) < 0.05 for block in run.blocks if block.identity is not None)


def test_the_header_says_under_which_conditions(whole: tuple[Run, list[Progress]]) -> None:
    header = whole[0].header
    assert header.plan.temperature == 0.7
    assert header.servers[0].model == "tiny"
    assert header.servers[0].max_model_len == 20_000
    assert header.servers[0].boot is not None
    assert header.servers[0].version is not None
    assert {"python", "processors", "load"} <= header.client.keys()
    assert len({line.sha256 for line in header.prompts}) == len(header.prompts) == 5 * 3 + 1
    assert any("500000" in reason for reason in header.skipped)
    assert "- n1" in header.definitions["decode tok/s"]


def test_the_request_carries_its_sampling_and_a_salt_of_its_own(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = []
    plan = small(**ONE, extra={"chat_template_kwargs": {"thinking": False}})
    solver = Solver(plan)

    def solve(body: dict[str, Any]) -> Any:
        bodies.append(body)
        return solver(body)

    run_bench(plan, tmp_path / "a.jsonl", app=make_app(ServerSetup(metrics="lean"), solver=solve))
    measured = bodies[-3:]
    assert all((b["temperature"], b["top_p"]) == (0.7, 0.9) for b in measured)
    assert all(b["chat_template_kwargs"] == {"thinking": False} for b in bodies)
    assert len({b["cache_salt"] for b in bodies}) == len(bodies)
    assert not any("ignore_eos" in b for b in bodies)


def test_cold_had_no_hits_and_warm_had_them(whole: tuple[Run, list[Progress]]) -> None:
    run, _ = whole
    for sample in run.samples:
        assert sample.cached_tokens is not None
        assert sample.prompt_tokens is not None
        if sample.cache == "cold":
            assert sample.cached_tokens == 0
        else:
            assert sample.cached_tokens > 0.8 * sample.prompt_tokens
    cells = {
        (s.cell.content_class, s.cell.concurrency, s.cell.cache): s for s in summarise(run) if not s.cell.prompt_tokens
    }
    cold, warm = cells["code", 1, "cold"].ttft, cells["code", 1, "warm"].ttft
    assert cold is not None
    assert warm is not None
    assert warm.median < cold.median


def test_streams_of_a_block_overlap_as_many_as_it_says_and_no_more(whole: tuple[Run, list[Progress]]) -> None:
    run, _ = whole
    for block in run.blocks:
        if block.load == "open":
            continue
        mine = [sample for sample in run.samples if sample.block == block.index]
        most = max(sum(a.sent_s <= b.sent_s < a.end_s for a in mine) for b in mine)
        assert most == block.concurrency


def test_the_open_loop_block_starts_requests_when_they_are_due(whole: tuple[Run, list[Progress]]) -> None:
    run, _ = whole
    opened = [sample for sample in run.samples if sample.load == "open"]
    assert len(opened) == 5
    assert all(sample.late_s is not None and abs(sample.late_s) < 0.01 for sample in opened)
    block = next(block for block in run.blocks if block.load == "open")
    assert block.arrival_rate is not None
    gaps = [b.sent_s - a.sent_s for a, b in pairwise(opened)]
    assert len(set(gaps)) == len(gaps)


def test_a_long_prompt_has_its_length_and_its_ttft(whole: tuple[Run, list[Progress]]) -> None:
    run, _ = whole
    cell = next(s for s in summarise(run) if s.cell.prompt_tokens == 3000)
    assert cell.prompt_length is not None
    assert cell.prompt_length.mean == pytest.approx(3000, rel=0.1)
    assert cell.ttft is not None
    assert cell.ttft.mean > 1.0


def test_the_predictable_class_is_flagged_by_what_was_measured(whole: tuple[Run, list[Progress]]) -> None:
    run, _ = whole
    for block in run.blocks:
        codes = {reason.code for reason in block.predictable.reasons}
        if block.content_class == "predictable":
            assert {"acceptance", "samples", "declared"} <= codes
        else:
            assert not block.predictable.predictable, (block.content_class, codes)


def test_answers_are_checked(whole: tuple[Run, list[Progress]]) -> None:
    run, _ = whole
    for name in ("code", "prose", "long-context", "predictable"):
        assert {s.correct for s in run.samples if s.content_class == name} == {True}
    # A call that the limit of tokens cut cannot be told; every whole one is right.
    calls = [s for s in run.samples if s.content_class == "tool-json"]
    assert {s.correct for s in calls if s.finish_reason != "length"} == {True}
    assert {s.correct for s in calls if s.finish_reason == "length"} <= {None, True}


def test_progress_counts_up_and_the_time_left_goes_down(whole: tuple[Run, list[Progress]]) -> None:
    run, said = whole
    blocks = [p for p in said if p.left_s is not None]
    assert [p.done for p in blocks] == list(range(len(run.blocks)))
    assert {p.total for p in blocks} == {len(run.blocks)}
    assert any("warm-up" in p.text for p in said)
    lefts = [p.left_s for p in blocks if p.left_s is not None]
    assert lefts[-1] < lefts[len(lefts) // 2] < lefts[0] * 1.5


def test_a_busy_server_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    async def foreign(api: ApiClient, _: asyncio.AbstractEventLoop) -> None:
        request = ChatRequest(model="tiny", messages=({"role": "user", "content": "x"},), max_tokens=9000)
        await api.chat(request, timeout_s=900)

    with pytest.raises(RefusedError, match="not idle"):
        run_bench(small(**ONE), tmp_path / "a.jsonl", beside=foreign, setup=ServerSetup(prose_tokens=9000))
    assert (tmp_path / "a.jsonl").read_bytes() == b""


def test_a_foreign_request_voids_the_block_it_fell_into(tmp_path: Path) -> None:
    async def foreign(api: ApiClient, loop: asyncio.AbstractEventLoop) -> None:
        request = ChatRequest(model="tiny", messages=({"role": "user", "content": "x"},), max_tokens=2)
        begun = (tmp_path / "a.jsonl").read_text
        while '"record":"sample"' not in begun():
            await asyncio.sleep(0.2)
        await api.chat(request, timeout_s=60)

    run = run_bench(small(**ONE, rounds=3), tmp_path / "a.jsonl", beside=foreign)
    assert [block.state for block in run.blocks] == ["void", "sound", "sound"]
    assert "foreign requests" in _reasons(run)
    cell = summarise(run)[0]
    assert (cell.void_blocks, cell.void_requests, cell.requests) == (1, 3, 6)


def test_a_cache_that_forgets_the_salt_leaves_no_valid_cold_sample(tmp_path: Path) -> None:
    setup = ServerSetup(lies=Lies(always_warm=True), **LEAN)  # type: ignore[arg-type]
    run = run_bench(small(**ONE), tmp_path / "a.jsonl", setup)
    assert {sample.outcome for sample in run.samples} == {"invalid"}
    assert "came from the cache" in run.samples[0].reasons[0]
    silent = setup.model_copy(update={"prompt_details": False})
    run = run_bench(small(**ONE), tmp_path / "b.jsonl", silent)
    assert [block.state for block in run.blocks] == ["void"]
    assert "prefix cache had" in _reasons(run)


def test_without_a_prefix_cache_there_is_no_warm(tmp_path: Path) -> None:
    setup = ServerSetup(prefix_caching=False, **LEAN)  # type: ignore[arg-type]
    plan = small(**ONE | {"caches": ("warm",)})
    run = run_bench(plan, tmp_path / "a.jsonl", setup)
    assert {sample.outcome for sample in run.samples} == {"invalid"}
    run = run_bench(plan, tmp_path / "b.jsonl", setup.model_copy(update={"prompt_details": False}))
    assert [block.state for block in run.blocks] == ["void"]


def test_failures_stay_in_the_denominator(tmp_path: Path) -> None:
    setup = ServerSetup(faults=(Fault(kind="http-500", rate=0.3), Fault(kind="cut", rate=0.2)), seed=4, **LEAN)  # type: ignore[arg-type]
    run = run_bench(small(**ONE | {"per_block": 12}), tmp_path / "a.jsonl", setup)
    cell = summarise(run)[0]
    assert cell.void_blocks == 0, cell.void_reasons
    assert cell.requests == 12
    assert 0 < cell.failed < 12
    assert cell.valid + cell.invalid + cell.failed == 12
    assert cell.valid_share == cell.valid / 12
    assert cell.rate is not None
    assert cell.rate.n == cell.valid


def test_without_usage_nothing_is_measured_and_nothing_estimated(tmp_path: Path) -> None:
    with pytest.raises(NoVerdictError, match="never estimated"):
        run_bench(small(**ONE), tmp_path / "a.jsonl", ServerSetup(usage="missing"))


def test_with_usage_only_at_the_end_a_rate_is_a_bound(tmp_path: Path) -> None:
    setup = ServerSetup(usage="end", known_rate=KnownRate(per_step=(3,), held=17), **LEAN)  # type: ignore[arg-type]
    run = run_bench(small(**ONE), tmp_path / "a.jsonl", setup)
    cell = summarise(run)[0]
    assert cell.rate is None
    assert cell.rate_at_most is not None
    assert setup.known_rate is not None
    assert cell.rate_at_most.least > setup.known_rate.true_rate(120)


def test_without_counters_a_block_is_unchecked_not_sound(tmp_path: Path) -> None:
    run = run_bench(small(**ONE), tmp_path / "a.jsonl", ServerSetup(metrics="none"))
    assert [block.state for block in run.blocks] == ["unchecked"]
    assert summarise(run)[0].acceptance is None
    assert summarise(run)[0].rate is not None


def test_without_speculation_steps_are_tokens(tmp_path: Path) -> None:
    run = run_bench(small(**ONE), tmp_path / "a.jsonl", ServerSetup(speculation=None, **LEAN))  # type: ignore[arg-type]
    identity = run.blocks[0].identity
    assert identity is not None
    assert (identity.by, identity.tokens_per_step, identity.off) == ("generation", 1.0, 0.0)
    assert run.blocks[0].state == "sound"


def test_a_drafter_that_is_wrong_half_the_time_shows(tmp_path: Path) -> None:
    half = ServerSetup(speculation=Speculation(acceptance=(0.5, 0.5, 0.5)), **LEAN)  # type: ignore[arg-type]
    run = run_bench(small(**ONE | {"per_block": 10}), tmp_path / "a.jsonl", half)
    cell = summarise(run)[0]
    assert cell.acceptance == pytest.approx(0.5, abs=0.06)
    assert cell.tokens_per_step == pytest.approx(2.5, abs=0.2)
    assert len(cell.per_position) == 3
    assert cell.identity_off is not None
    assert abs(cell.identity_off) < 0.05
    assert cell.steps_per_s == pytest.approx(1 / half.decode_step_s, rel=0.05)


def test_an_engine_that_starts_anew_voids_the_block(tmp_path: Path) -> None:
    # Five generations of warm-up, the calibration and a block of three come first.
    run = run_bench(small(**ONE, rounds=3), tmp_path / "a.jsonl", ServerSetup(restart_after=11, **LEAN))  # type: ignore[arg-type]
    assert [block.state for block in run.blocks] == ["sound", "void", "sound"]
    assert "anew" in _reasons(run)
    # It is cold again: warmed up anew, and its samples are of another boot.
    assert len(run.warm_ups) == 2
    assert run.blocks[1].ended_s <= run.warm_ups[1].at_s < run.blocks[2].began_s
    assert len({one.boot for one in Side("", (run,)).measured}) == 2


def test_the_budget_ends_a_run_between_blocks_and_the_file_says_so(tmp_path: Path) -> None:
    plan = small(rounds=10, budget_s=90.0)
    run = run_bench(plan, tmp_path / "a.jsonl")
    assert run.end is not None
    assert run.end.reason == "budget"
    assert run.partial
    assert 0 < run.end.blocks_run < run.end.blocks_planned
    # A block that would not end in time is not begun: none was cut short.
    assert run.end.elapsed_s < plan.budget_s
    assert {block.requests for block in run.blocks} == {3}


def test_a_block_that_takes_longer_than_it_seemed_is_cut_and_kept(tmp_path: Path) -> None:
    plan = small(**ONE | {"per_block": 40}, budget_s=35.0)
    solver = Solver(plan)

    def slow_first(body: dict[str, Any]) -> Any:
        # The warm-up's answers are short, so the block seems to fit.
        found = solver(body)
        return found if body["temperature"] else Solution("Ada.")

    run = run_bench(plan, tmp_path / "a.jsonl", app=make_app(ServerSetup(metrics="lean"), solver=slow_first))
    assert run.end is not None
    assert run.end.reason == "budget"
    (block,) = run.blocks
    assert 0 < block.requests < 40
    assert block.state == "sound"
    assert run.end.elapsed_s < plan.budget_s + 10


def test_an_engine_that_rested_is_warmed_up_again(tmp_path: Path) -> None:
    def rest(progress: Progress) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        if progress.done == 1 and progress.left_s is not None:
            loop.jump(1300.0)

    run = run_bench(small(**ONE, rounds=3), tmp_path / "a.jsonl", say=rest)
    assert len(run.warm_ups) == 2
    assert run.blocks[0].ended_s < run.warm_ups[1].at_s < run.blocks[1].began_s


def test_two_arms_take_turns_and_are_told_apart(tmp_path: Path) -> None:
    plan = small(**ONE, arms=("old", "new"), rounds=2)
    slow, fast = (make_app(ServerSetup(decode_step_s=s, metrics="lean"), solver=Solver(plan)) for s in (0.1, 0.05))
    run = run_bench(plan, tmp_path / "a.jsonl", arms=(slow, fast))
    assert [block.arm for block in run.blocks] == ["old", "new", "new", "old"]
    assert [server.arm for server in run.header.servers] == ["old", "new"]
    old, new = summarise(run)
    assert (old.cell.arm, new.cell.arm) == ("old", "new")
    assert old.rate is not None
    assert new.rate is not None
    assert new.rate.median > 1.5 * old.rate.median


def test_a_small_window_gets_shorter_notes_and_what_does_not_fit_is_named(tmp_path: Path) -> None:
    plan = small(classes=("prose", "long-context", "structured"), concurrency=(1,), caches=("cold",), warmup_max=5)
    run = run_bench(plan, tmp_path / "a.jsonl", ServerSetup(context_length=520, **LEAN))  # type: ignore[arg-type]
    assert {block.content_class for block in run.blocks} == {"prose"}
    assert len(run.header.skipped) >= 2
    assert {sample.outcome for sample in run.samples} == {"valid"}


def test_a_window_that_holds_nothing_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(NoVerdictError, match="holds none"):
        run_bench(small(classes=("structured",)), tmp_path / "a.jsonl", ServerSetup(context_length=240))
    assert (tmp_path / "a.jsonl").read_bytes() == b""


def test_the_model_must_be_there() -> None:
    from dspark_ops.bench.preflight import find_model
    from tests.openai_server.transport import StreamingAsgiTransport
    from tests.openai_server.virtual import run_virtual

    async def ask(name: str | None) -> Any:
        app = make_app(ServerSetup(model="m"))
        async with ApiClient("http://test", zero=0.0, transport=StreamingAsgiTransport(app)) as api:
            return await find_model(api, name)

    assert run_virtual(ask(None)) == ("m", 131_072)
    with pytest.raises(NoVerdictError, match="does not serve other; it serves m"):
        run_virtual(ask("other"))


def test_the_plan_in_the_file_is_the_plan(whole: tuple[Run, list[Progress]]) -> None:
    run, _ = whole
    assert BenchPlan.model_validate_json(run.header.plan.model_dump_json()) == run.header.plan
    assert read_run(Path(run.path)) == run


def test_the_arm_that_waited_is_warmed_up_again(tmp_path: Path) -> None:
    # The other arm's prompt may take a thousand seconds; here the clock jumps within its block.
    plan = small(**ONE, arms=("A", "B"), rounds=1)
    solvers = Solver(plan), Solver(plan)

    def slow(body: dict[str, Any]) -> Any:
        if body["temperature"] and body["max_tokens"] > 1:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.jump(1300.0)
        return solvers[0](body)

    setup = ServerSetup(metrics="lean")
    arms = make_app(setup, solver=slow), make_app(setup, solver=solvers[1])
    run = run_bench(
        plan.model_copy(update={"timeout_s": 9000.0, "budget_s": 90_000.0}), tmp_path / "a.jsonl", arms=arms
    )
    assert [(warm.arm, warm.at_s > 1300) for warm in run.warm_ups] == [("A", False), ("B", False), ("B", True)]
