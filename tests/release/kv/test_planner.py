"""Our arithmetic against the planner of vLLM 0.32.0 itself, which runs in the engine image on a CPU."""

from __future__ import annotations

import json
from random import Random

import pytest

from dspark_ops.errors import ConfigError
from dspark_ops.kv.geometry import PlainGeometry
from dspark_ops.kv.release import ReleasePlan, parse_answer, planner_program
from tests.release.conftest import EnginePython
from tests.unit.kv.cases import GOLDEN, GOLDEN_TOKENS, TABLE, TIE, Case, case_of, chance_case

pytestmark = [pytest.mark.release, pytest.mark.timeout(300)]

_CHANCE_CASES = 150


def _asked(engine_python: EnginePython, cases: list[Case]) -> tuple[str, tuple[ReleasePlan, ...]]:
    """One container for all of them. The program reads standard input, which here brings the program."""
    question = json.dumps({"cases": [case.question() for case in cases]})
    script = (
        "import io, sys\n"
        f"sys.stdin = io.StringIO({question!r})\n"
        f"exec(compile({planner_program()!r}, 'kv_planner.py', 'exec'), {{'__name__': '__main__'}})\n"
    )
    done = engine_python([], script)
    assert done.returncode == 0, done.stderr[-2000:]
    return parse_answer(done.stdout, len(cases))


def _same(ours: Case, theirs: ReleasePlan) -> None:
    plan = ours.ours()
    assert [group.page_bytes for group in theirs.groups] == [group.page_bytes for group in plan.groups]
    assert [group.blocks for group in theirs.groups] == [group.request_blocks for group in plan.groups]
    assert (theirs.block_bytes, theirs.blocks) == (plan.block_bytes, plan.blocks)
    assert (theirs.request_blocks, theirs.tokens) == (plan.request_blocks, plan.tokens)
    assert theirs.concurrency == plan.concurrency


def test_the_golden_case_and_the_table_are_the_releases_own(engine_python: EnginePython) -> None:
    cases = [GOLDEN, *(case_of(record, tokens) for record, tokens in TABLE), TIE]
    vllm, plans = _asked(engine_python, cases)
    assert vllm == "0.32.0"
    assert plans[0].tokens == GOLDEN_TOKENS
    assert [plan.tokens for plan in plans[1:-1]] == list(TABLE.values())
    for case, plan in zip(cases, plans, strict=True):
        _same(case, plan)


def test_models_by_chance_get_the_same_plan(engine_python: EnginePython) -> None:
    chance = Random(51041)  # noqa: S311 - cases, not secrets
    cases = []
    while len(cases) < _CHANCE_CASES:
        case = chance_case(chance)
        try:
            case.ours()
        except ConfigError:
            continue
        cases.append(case)
    _, plans = _asked(engine_python, cases)
    for case, plan in zip(cases, plans, strict=True):
        _same(case, plan)


def test_plain_attention_gets_the_same_plan(engine_python: EnginePython) -> None:
    tiny = PlainGeometry(
        layer_count=2, kv_heads=2, head_dim=32, draft=PlainGeometry(layer_count=1, kv_heads=4, head_dim=16)
    )
    cases = [
        Case(
            geometry.layers(ranks=ranks, element_bytes=4, block_tokens=128),
            split=1,
            pool_bytes=50 << 20,
            max_model_len=1000,
            in_flight_tokens=1,
        )
        for geometry in (tiny, tiny.model_copy(update={"draft": None}))
        for ranks in (1, 2)
    ]
    _, plans = _asked(engine_python, cases)
    for case, plan in zip(cases, plans, strict=True):
        _same(case, plan)
