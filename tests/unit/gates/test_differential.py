"""Two ways of serving: a difference is called by an exact test over pairs, and only where both were proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspark_ops.errors import ConfigError
from dspark_ops.gates.case import Reason
from dspark_ops.gates.coldness import Proof
from dspark_ops.gates.differential import (
    Arm,
    _bad_of,
    diff_endpoints,
    diff_warm,
    difference,
    earlier_arm,
    paired_plan,
)
from dspark_ops.gates.outcome import BurstResult, Judged, RunResult
from dspark_ops.gates.record import RunFolder
from dspark_ops.gates.runner import Conduct
from tests.openai_server.app import Fault, ServerSetup
from tests.unit.gates.gate_bench import PAIR, Bench, plan

pytestmark = pytest.mark.timeout(300)


def arm(title: str, bad: int, pairs: int = 60, begin: int = 0) -> Arm:
    return Arm(title=title, bad_of={f"{n}/0": begin <= n < begin + bad for n in range(pairs)})


def test_eight_pairs_one_way_are_a_difference_and_seven_are_none() -> None:
    assert difference(arm("on", 8), arm("off", 0)).differ
    none = difference(arm("on", 7), arm("off", 0))
    assert not none.differ
    assert "no difference is shown" in none.words
    assert none.seen_from == 8


def test_pairs_that_are_bad_in_both_tell_nothing() -> None:
    found = difference(arm("on", 20), arm("off", 20))
    assert (found.both_bad, found.only_first, found.p) == (20, 0, 1.0)
    assert not found.differ


def test_only_questions_that_both_were_asked_are_pairs() -> None:
    assert difference(arm("on", 3, pairs=60), arm("off", 0, pairs=24)).pairs == 24


def run_warm(folder: Path, setup: ServerSetup, **changes: Any) -> tuple[RunResult, Conduct]:
    return Bench(setup, folder, plan("diff", **changes)).run(diff_warm)


def test_a_fault_of_cold_prefills_is_a_difference_between_cold_and_warm(tmp_path: Path) -> None:
    setup = PAIR.model_copy(update={"faults": (Fault(kind="word-salad", rate=0.9, when="cold"),)})
    result, _ = run_warm(tmp_path, setup, pairs=12)
    assert (result.verdict, int(result.exit_code)) == ("fail", 1)
    assert result.facts["difference"]["only_first"] >= 8
    assert result.facts["difference"]["only_second"] == 0


def test_nan_that_the_engine_counted_makes_one_pair_bad() -> None:
    reason = Reason(code="corrupted", observed="1 request with NaN", expected="none")
    good = tuple(Judged(name=f"a/0/{slot}", kind="arithmetic", outcome="pass") for slot in range(3))
    burst = BurstResult(part="a", index=0, judged=good, engine=(reason,), proof=Proof(doubts=()))
    assert sum(_bad_of(burst).values()) == burst.bad == 1
    assert not any(_bad_of(burst.model_copy(update={"engine": ()})).values())


def test_a_healthy_server_is_the_same_cold_and_warm(tmp_path: Path) -> None:
    result, _ = run_warm(tmp_path, PAIR, pairs=6)
    assert result.verdict == "pass"
    assert "no difference is shown" in result.message


def test_repeats_that_are_not_warm_are_void(tmp_path: Path) -> None:
    result, _ = run_warm(tmp_path, PAIR.model_copy(update={"prefix_caching": False}), pairs=6)
    assert result.verdict == "void"
    assert [doubt.code for doubt in result.doubts] == ["not-warm"]


def test_two_boots_are_compared_through_the_first_ones_folder(tmp_path: Path) -> None:
    """Speculation on and off cannot serve at once on one pair: the first run is kept, the second asks the same."""
    bad = PAIR.model_copy(update={"faults": (Fault(kind="off-by-one", rate=0.9),)})

    async def alone(run: Conduct) -> RunResult:
        run.folder.write("header", level="diff", target="with speculation", plan=run.plan.model_dump(mode="json"))
        return await diff_endpoints(run, None, None, ("with speculation",))

    first, _ = Bench(bad, tmp_path / "on", plan("diff", seed=4, pairs=12)).run(alone)
    assert first.verdict == "void"
    assert "--against-run" in first.message
    kept, header = earlier_arm(tmp_path / "on")
    asked = paired_plan(plan("diff", seed=99), header)
    assert (asked.seed, asked.pairs) == (4, 12)

    async def against(run: Conduct) -> RunResult:
        return await diff_endpoints(run, None, kept, ("without speculation",))

    result, _ = Bench(PAIR, tmp_path / "off", asked).run(against)
    assert result.verdict == "fail"
    assert result.facts["difference"]["pairs"] == 12


def test_a_folder_without_such_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        earlier_arm(tmp_path)


def test_a_first_half_that_was_not_proven_is_no_half(tmp_path: Path) -> None:
    """What was warm in the earlier run must not be compared as cold, nor what another run in the folder asked."""
    folder = RunFolder(tmp_path)
    folder.open()
    doubt = {"code": "prefix-hits", "observed": "12", "expected": "0", "client": False}

    def burst(index: int, *doubts: dict[str, object], bad: int = 0) -> None:
        judged = [{"name": f"diff-1/{index}/0", "kind": "report", "outcome": "fail" if bad else "pass"}]
        told = {"index": index, "counted": True, "judged": judged, "proof": {"doubts": doubts}, "bad": bad}
        folder.write("burst", part="diff-1", **told)

    folder.write("header", level="diff", target="a")
    burst(7)
    folder.write("header", level="diff", target="b")
    burst(0)
    burst(1, doubt)
    burst(2, doubt | {"client": True}, bad=1)
    folder.close()
    arm, _ = earlier_arm(tmp_path)
    assert arm.bad_of == {"0/0": False, "2/0": True}
