"""The rows of the fault matrix as far as they can be judged without a pair, and the way through a trial."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dspark_ops.supervise.core import alerts, machine
from dspark_ops.supervise.core.model import Memory, NodeSight, Observation, Settings
from dspark_ops.supervise.core.policy import start_blocks
from tests.lab import serving_bench, serving_load, serving_matrix
from tests.lab.operator_cli import Operator
from tests.lab.serving_bench import LAB_SETTINGS, Fault, ServingBench, run_trial
from tests.lab.serving_faults import ALL, BY_NAME, CLOCK, ELSEWHERE, PROCESSES
from tests.lab.serving_timeline import ContainerEvent, Expect

TREE = Path(__file__).parents[3]


@dataclass(frozen=True)
class Pair(ServingBench):
    """A pair that is told in the test: what its supervisor says at each moment; scripts are only kept."""

    operator: Operator = field(default_factory=lambda: Operator(Path("site"), Path("ssh")))
    said: list[dict[str, Any]] = field(default_factory=list)
    scripts: list[tuple[str, str]] = field(default_factory=list)
    told: list[tuple[str, ...]] = field(default_factory=list)
    journal: list[dict[str, Any]] = field(default_factory=list)
    now: list[float] = field(default_factory=lambda: [100.0])
    left: tuple[str, ...] = ()

    def root(self, role: str, script: str, **_: object) -> str:
        self.scripts.append((role, script))
        return ""

    def status(self) -> dict[str, Any]:
        return self.said.pop(0) if len(self.said) > 1 else self.said[0]

    def tell(self, *words: str) -> None:
        self.told.append(words)

    def clock(self) -> float:
        self.now[0] += 10
        return self.now[0]

    def lines(self) -> list[str]:
        return [json.dumps(entry) for entry in self.journal]

    def epoch(self) -> str | None:
        found = self.said[0].get("epoch")
        return None if found is None else str(found)

    def events(self, *_: float) -> tuple[ContainerEvent, ...]:
        return ()

    def orphans(self) -> list[str]:
        return list(self.left)

    def prepare(self, *_: Mapping[str, Any]) -> None:
        return None

    def transition(self, at: float, source: str, target: str, *witnesses: str) -> None:
        self.journal.append(
            {"kind": "transition", "at": at, "source": source, "target": target, "reason": "r",
             "witnesses": list(witnesses)}
        )  # fmt: skip


def said(state: str, epoch: str, **more: Any) -> dict[str, Any]:
    return {"state": state, "epoch": epoch, "number": 1, **more}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes each time that somebody asks for it."""
    ticks = iter(range(10_000_000))
    clock = SimpleNamespace(sleep=lambda _: None, monotonic=lambda: float(next(ticks)))
    monkeypatch.setattr(serving_bench, "time", clock)


def died(pair: Pair) -> None:
    pair.transition(115, "serving", "stopping", "process: it ended")
    pair.transition(150, "gate", "serving")


def test_a_trial_waits_for_a_new_epoch_and_not_for_the_old_one_that_still_serves() -> None:
    pair = Pair(said=[said("serving", "s1"), said("serving", "s1"), said("starting", "s2"), said("serving", "s2")])
    pair.transition(50, "gate", "serving")
    fault = Fault("row", Expect("restart", frozenset({"process"})), lambda _: died(pair), client=False)
    trial = run_trial(pair, fault)
    assert (trial.measured.problems, trial.measured.detect_s, trial.measured.serve_s) == ((), 5.0, 40.0)
    assert [change.at for change in trial.seen.changes] == [115, 150]


def test_a_pair_that_does_not_come_back_is_a_problem_and_the_fault_is_taken_off() -> None:
    pair, undone = Pair(said=[said("serving", "s1"), said("starting", "s2", reason="it starts")]), []
    fault = Fault("row", Expect("restart"), lambda _: died(pair), lambda _: undone.append(True), client=False)
    trial = run_trial(pair, fault)
    assert undone == [True]
    assert any("did not serve again in 300 s: starting; it starts" in text for text in trial.measured.problems)


def test_a_fault_that_breaks_is_taken_off_too() -> None:
    undone: list[bool] = []

    def broken(_: ServingBench) -> None:
        raise serving_bench.NotHereError("no such kernel")

    fault = Fault("row", Expect("nothing"), broken, lambda _: undone.append(True), client=False)
    with pytest.raises(serving_bench.NotHereError):
        run_trial(Pair(said=[said("serving", "s1")]), fault)
    assert undone == [True]


@pytest.mark.parametrize(("number", "problem"), [(1, None), (2, "it started although it said that it waits")])
def test_what_waits_must_say_so_and_must_not_start(number: int, problem: str | None) -> None:
    waits = said("cooling", "s1", waits_for=["ports on head are free: somebody"])
    later = {**waits, "number": number}
    pair = Pair(said=[said("serving", "s1"), waits, waits, later, said("serving", "s2")])
    pair.said.pop(0)
    fault = Fault("row", Expect("waits"), lambda _: None, told="ports on head are free: ", client=False)
    problems = run_trial(pair, fault).seen.problems
    assert problems == (() if problem is None else (problem,))


def test_a_latch_is_resumed_after_the_fault() -> None:
    pair = Pair(said=[said("starting", "s2"), said("failed", "s4"), said("serving", "s5")])
    run_trial(pair, Fault("row", Expect("latches"), lambda _: None, client=False))
    assert ("resume",) in pair.told


def test_an_orphan_is_a_problem() -> None:
    pair = Pair(said=[said("serving", "s1")], left=("left on the worker: process 7",))
    trial = run_trial(pair, Fault("row", Expect("nothing"), lambda _: None, client=False))
    assert trial.measured.problems == ("left on the worker: process 7",)


def test_a_matrix_tells_trials_that_failed_from_rows_that_were_not_run(tmp_path: Path) -> None:
    def not_here(_: ServingBench) -> None:
        raise serving_bench.NotHereError("no such kernel")

    calm = Fault("calm", Expect("nothing"), lambda _: None, client=False)
    absent = Fault("absent", Expect("nothing"), not_here, client=False)
    pair = Pair(said=[said("serving", "s1")])
    evidence, told = tmp_path / "evidence", tmp_path / "told"
    with evidence.open("w") as lines, told.open("w") as words:
        found = serving_matrix.run_rows(pair, [calm, absent], 2, words, lines)
        orphaned = serving_matrix.run_rows(Pair(said=[said("serving", "s1")], left=("x",)), [calm], 1, words, lines)
    assert (found.exit_code(), found.not_run) == (3, {"absent": "no such kernel"})
    assert [json.loads(line)["trial"] for line in evidence.read_text().splitlines()] == [1, 2, 1]
    assert orphaned.exit_code() == 1
    assert serving_matrix.Matrix().exit_code() == 3


def test_rows_have_names_of_their_own_and_the_core_is_small() -> None:
    assert len(BY_NAME) == len(ALL)
    assert [fault.name for fault in ALL if fault.core] == ["kill -9 engine core", "a rank dies under a hold"]
    assert {f"kill -9 {name}" for name in PROCESSES} < BY_NAME.keys()


def test_what_is_proven_elsewhere_is_there() -> None:
    assert [where for where in ELSEWHERE.values() if not (TREE / where).exists()] == []


#: The others are done through the lab's own Engine, by no script.
SCRIPTED = [fault for fault in ALL if "power" not in fault.name and "frozen" not in fault.name]


@pytest.mark.parametrize("fault", SCRIPTED, ids=lambda fault: fault.name)
def test_every_script_is_shell_and_every_program_in_it_is_python(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(said=[said("cooling", "s1", held=True, at=0.0, engine={"running": 1, "waiting": 1})])
    monkeypatch.setattr(Pair, "clock", lambda _: -3600.0 if "-3600" not in fault.name else 3600.0)
    fault.inject(pair)
    fault.revert(pair)
    for role, script in pair.scripts:
        assert role in ("head", "worker")
        checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, ""), script
        for text in re.findall(r"<<'(?:HOLD|EDIT|LOAD)'\n(.*?)\n(?:HOLD|EDIT|LOAD)\n", script, re.DOTALL):
            compile(text, fault.name, "exec")


def test_what_is_left_of_a_rank_is_told_and_the_one_that_runs_is_not(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\ncase $2 in inspect) echo 0123456789abcdef;; *) echo 'dspark-rank running';"
                      " echo 'dspark-rank-2 exited';; esac\n")  # fmt: skip
    docker.chmod(0o755)
    left = subprocess.Popen(["VLLM::EngineCore", "60"], executable="/bin/sleep")
    try:
        done = subprocess.run(
            ["bash", "-euc", serving_bench._ORPHANS],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        left.kill()
        left.wait()
    told = done.stdout.splitlines()
    assert f"process {left.pid}: VLLM::EngineCore 60 " in told
    assert [line for line in told if line.startswith("dspark-rank")] == ["dspark-rank-2 exited"]
    assert done.stderr == ""


def test_the_words_that_rows_wait_for_are_those_of_the_supervisor() -> None:
    settings, memory = Settings(memory_needed_gib=5.0), Memory(seed="s")
    short = NodeSight(port_holders=("python3 (pid 7) on port 25000",), mem_available_gib=1.0, by_management=True)
    seen = Observation(wall_s=1e9, monotonic_s=1e5, boot_id="b", head=short, worker=short, state_saved=False)
    words = [block.text for block in start_blocks(settings, memory, seen)]
    held = machine.hold(memory, seen, reason="trial", owner="matrix", for_s=900.0)
    words += machine.step(settings, held, seen).memory.waits_for
    rows = {fault.told for fault in ALL if fault.expect.kind == "waits"}
    assert "" not in rows
    assert {told for told in rows if not any(told in text for text in words)} == set()


def test_the_alerts_that_rows_expect_are_known_to_the_supervisor() -> None:
    known = set(re.findall(r'key="([a-z-]+)"', inspect.getsource(alerts)))
    assert {key for fault in ALL for key in fault.expect.alerts} - known == set()


@pytest.mark.parametrize("kind", ["prefill", "saturation"])
def test_load_is_ended_by_name_and_only_its_own(kind: serving_load.Load) -> None:
    assert "--unit=serving-load " in serving_load.start(kind)
    assert "serving-load" in serving_load.stop()


def test_the_lab_settings_are_thresholds_that_the_daemon_takes() -> None:
    for fault in ALL:
        wedge = serving_matrix._wedge(80.0)
        Settings.from_document({"memory_needed_gib": 1.0, **LAB_SETTINGS, **wedge, **fault.settings})


def test_settings_are_written_once_and_nothing_else_of_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "supervise.json"
    path.write_text(json.dumps({"site": "lab", "settings": {"budget": 4, "probe_s": 5.0}}))
    argv = [sys.executable, "-", str(path), json.dumps({"budget": 1000})]

    def run() -> str:
        return subprocess.run(argv, input=serving_bench._SET, capture_output=True, text=True, check=True).stdout

    assert (run(), run()) == ("changed\n", "")
    assert json.loads(path.read_text()) == {"site": "lab", "settings": {"budget": 1000, "probe_s": 5.0}}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("words", "moved"), [(["x/supervise.pyz", "run"], True), (["x/supervise.pyz", "rank"], False)])
def test_only_the_daemons_clock_is_moved(tmp_path: Path, words: list[str], moved: bool) -> None:
    offset = tmp_path / "clock"
    offset.write_text("3600")
    line = CLOCK.replace("/run/serving-clock", str(offset))
    # As site does it: the line runs inside a function, and what it leaves behind is called later.
    program = f"import time\nbefore = time.time()\ndef site(): exec({line!r})\nsite()\nprint(time.time() - before)"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert (float(done.stdout) > 3000) is moved
