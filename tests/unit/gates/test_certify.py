"""Certify: every part, both boots, both modes of a tool call; what is missing is no certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspark_ops.gates.certify import Boot, boots_of, certify
from dspark_ops.gates.outcome import RunResult
from dspark_ops.gates.runner import Conduct
from tests.openai_server.app import Fault, ServerSetup
from tests.unit.gates.gate_bench import MODEL, PAIR, Bench, plan

pytestmark = pytest.mark.timeout(300)

SMALL: dict[str, Any] = {"bursts": 2, "tool_cases": 7, "soak_s": 20.0, "long_probes": (4000, 100000)}


def run(folder: Path, setup: ServerSetup = PAIR, earlier: tuple[Boot, ...] = (), **changes: Any) -> RunResult:
    async def level(conduct: Conduct) -> RunResult:
        conduct.folder.write("header", level="certify", model=MODEL)
        return await certify(conduct, earlier, window=setup.context_length)

    return Bench(setup, folder, plan("certify", **(SMALL | changes))).run(level)[0]


def test_one_boot_is_no_certificate_and_the_second_makes_it(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert first.verdict == "void"
    assert "1 of 2 boots are certified so far, all good" in first.message
    assert [(part.name, part.done, part.bad) for part in first.parts] == [
        ("bursts", True, 0),
        ("tools", True, 0),
        ("soak", True, 0),
        ("long", True, 0),
    ]
    assert "not asked: 100000 tokens" in (first.parts[-1].why or "")
    (boot,) = boots_of(tmp_path, MODEL)
    assert boots_of(tmp_path, "another") == ()
    again = run(tmp_path, earlier=(boot.model_copy(update={"process_start": 1.0}),))
    assert again.verdict == "pass"
    assert "0 of 4 bursts were bad" in again.message
    assert "2 boots" in again.message


def test_the_same_boot_twice_is_refused(tmp_path: Path) -> None:
    run(tmp_path, boots=1, tool_cases=1, soak_s=0.0, long_probes=())
    kept = boots_of(tmp_path, MODEL)
    starts: list[float] = []

    async def same(conduct: Conduct) -> RunResult:
        first = await conduct.first_look()
        starts.append(first.process_start or 0.0)
        earlier = (kept[0].model_copy(update={"process_start": starts[0]}),)
        return await certify(conduct, earlier, window=None)

    result, conduct = Bench(PAIR, tmp_path, plan("certify", **SMALL)).run(same)
    assert result.verdict == "void"
    assert "restart the pair" in result.message
    assert conduct.bursts == []


def test_a_tool_call_that_differs_when_it_is_not_streamed_fails(tmp_path: Path) -> None:
    setup = PAIR.model_copy(update={"faults": (Fault(kind="unary-differs", rate=1.0),)})
    result = run(tmp_path, setup, boots=1, bursts=1, soak_s=0.0, long_probes=())
    assert result.verdict == "fail"
    assert {judged.name.split("/")[0] for judged in result.bad} == {"tools"}


def test_a_budget_names_what_was_not_done(tmp_path: Path) -> None:
    result = run(tmp_path, budget_s=8.0)
    assert result.verdict == "void"
    assert "the time was up; not done:" in result.message
    assert "long" in result.message
