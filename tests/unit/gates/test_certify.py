"""Certify: every part, both boots, both modes of a tool call; what is missing is no certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspark_ops.errors import ConfigError
from dspark_ops.gates.certify import Boot, boots_of, certify, soak
from dspark_ops.gates.outcome import RunResult
from dspark_ops.gates.record import RunFolder, read_run
from dspark_ops.gates.runner import Conduct
from dspark_ops.gates.verdict import failed
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
    kept = {entry["name"] for entry in read_run(tmp_path) if entry["record"] == "exchange"}
    assert {judged.name for judged in result.bad} <= kept


def test_a_budget_names_what_was_not_done(tmp_path: Path) -> None:
    result = run(tmp_path, budget_s=8.0)
    assert result.verdict == "void"
    assert "the time was up; not done:" in result.message
    assert "long" in result.message


def test_a_soak_in_which_all_is_bad_ends_early(tmp_path: Path) -> None:
    """A server that refuses at once would be written down as fast as it refuses, for as long as the soak takes."""
    setup = PAIR.model_copy(update={"faults": (Fault(kind="empty", rate=1.0),)})

    async def only(conduct: Conduct) -> RunResult:
        await conduct.first_look()
        await soak(conduct)
        return failed(conduct, "what was bad")

    result, _ = Bench(setup, tmp_path, plan("certify", soak_s=600.0)).run(only)
    (part,) = result.parts
    assert not part.done
    assert "ended early" in (part.why or "")
    assert part.asked < 100


def test_bad_answers_of_a_call_without_an_end_are_not_undone_by_another(tmp_path: Path) -> None:
    setup = PAIR.model_copy(update={"faults": (Fault(kind="off-by-one", rate=1.0),)})
    few: dict[str, Any] = {"boots": 1, "tool_cases": 1, "soak_s": 0.0, "long_probes": ()}
    assert run(tmp_path, setup, bursts=50, budget_s=10.0, **few).verdict == "void"
    (unfinished,) = boots_of(tmp_path, MODEL)
    assert not unfinished.complete
    assert unfinished.bad > 0
    again = run(tmp_path, earlier=(unfinished,), **few)
    assert again.verdict == "fail"
    assert "bad in earlier calls" in again.message


def test_boots_that_were_asked_otherwise_are_no_certificate(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open()
    asked = plan("certify", bursts=1)
    folder.write("header", level="certify", model=MODEL, plan=asked.model_dump(mode="json"))
    folder.write("boot", process_start=1.0, bad_of_burst=[0], bad=0, complete=True)
    folder.close()
    assert len(boots_of(tmp_path, MODEL, asked.model_copy(update={"seed": 7}))) == 1
    with pytest.raises(ConfigError, match="bursts 1, and this call has 50"):
        boots_of(tmp_path, MODEL, plan("certify", bursts=50))
