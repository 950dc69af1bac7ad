"""Waiting for readiness, with readings as a node gives them: every way it can end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.readiness import Readiness, wait_ready
from dspark_ops.deploy.spec import RankSpec
from dspark_ops.transport.base import NodeReading, Probe, ProbeResult
from dspark_ops.transport.ssh import SshRunner

Specs = dict[Role, RankSpec]
TEXT = "The quick brown fox jumps over the lazy dog."
GONE = ProbeResult(id="rank", rc=1, stdout="[]\n", stderr="Error: No such container: dspark-rank\n")


def inspect(spec: RankSpec, epoch: str = "e1", **state: Any) -> ProbeResult:
    entry = {
        "Id": "c" * 64,
        "Image": spec.image_id,
        "State": {"Status": "running", "Running": True, "ExitCode": 0, "OOMKilled": False} | state,
        "Config": {"Labels": spec.document(epoch)["labels"], "Env": [], "Cmd": []},
        "HostConfig": {},
    }
    return ProbeResult(id="rank", rc=0, stdout=json.dumps([entry]))


def health(up: bool) -> ProbeResult:
    return ProbeResult(id="health", rc=200, stdout="") if up else ProbeResult(id="health", error="refused")


def answer(text: str | None) -> ProbeResult:
    if text is None:
        return ProbeResult(id="service.canary", rc=500, stdout="EngineCore encountered an issue.")
    return ProbeResult(id="service.canary", rc=200, stdout=json.dumps({"choices": [{"message": {"content": text}}]}))


def log(line: str) -> ProbeResult:
    return ProbeResult(id="log", rc=0, stdout=line + "\n")


class Scripted:
    """A node that gives one reading after another, the last one for ever."""

    def __init__(self, role: Role, readings: Sequence[Sequence[ProbeResult] | None]) -> None:
        self.node, self.readings, self.asked = role, list(readings), list[set[str]]()

    def read(self, probes: Sequence[Probe], *, timeout_s: float = 60.0) -> NodeReading:  # noqa: ARG002
        self.asked.append({p.id for p in probes})
        now = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if now is None:
            return NodeReading(node=self.node, reachable=False, error="no answer")
        return NodeReading(node=self.node, reachable=True, results={r.id: r for r in now})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


Script = Sequence[Sequence[ProbeResult] | None]


def wait(loaded: LoadedSite, head: Script, worker: Script) -> tuple[Readiness, list[str], dict[Role, Scripted]]:
    nodes = {"head": Scripted("head", head), "worker": Scripted("worker", worker)}
    runners = cast("dict[Role, SshRunner]", nodes)
    clock, said = Clock(), list[str]()
    end = wait_ready(runners, loaded.site, loaded.profile, "e1", progress=said.append, clock=clock, sleep=clock.sleep)
    return end, said, cast("dict[Role, Scripted]", nodes)


def test_ready_is_a_correct_completion_and_not_a_healthy_port(loaded: LoadedSite, specs: Specs) -> None:
    head, worker = (inspect(specs[role]) for role in ROLES)
    end, said, nodes = wait(
        loaded,
        [
            [head, health(False), log("INFO Loading safetensors checkpoint")],
            [head, health(True), log("INFO:     Application startup complete.")],
            [head, health(True), answer(None)],
            [head, health(True), answer(TEXT)],
        ],
        [[worker]],
    )
    assert (end.ready, end.text) == (True, TEXT)
    assert said == ["head: loading weights", "head: API server is up"]
    # The completion is asked only of a head that says it is up: a starting engine is not disturbed.
    assert ["service.canary" in ids for ids in nodes["head"].asked] == [False, False, True, True]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"Status": "exited", "Running": False, "ExitCode": 137}, "SIGKILL"),
        ({"Status": "exited", "Running": False, "ExitCode": 0}, "leaves with 0 when it dies"),
        ({"Status": "exited", "Running": False, "ExitCode": 1, "OOMKilled": True}, "out of memory"),
    ],
)
def test_a_worker_that_ends_while_starting_ends_the_wait_at_once(
    loaded: LoadedSite, specs: Specs, state: dict[str, Any], words: str
) -> None:
    head = [inspect(specs["head"]), health(False)]
    end, _, _ = wait(loaded, [head], [[inspect(specs["worker"])], [inspect(specs["worker"], **state)]])
    assert not end.ready
    assert "worker" in (end.failure or "")
    assert words in (end.failure or "")
    assert end.elapsed_s < 5


def test_a_rank_that_is_removed_meanwhile_is_gone(loaded: LoadedSite, specs: Specs) -> None:
    end, _, _ = wait(loaded, [[GONE, health(False)]], [[inspect(specs["worker"])]])
    assert "head is gone" in (end.failure or "")


def test_a_docker_that_is_slow_once_is_no_death(loaded: LoadedSite, specs: Specs) -> None:
    head = [inspect(specs["head"]), health(True), answer(TEXT)]
    slow = [ProbeResult(id="rank", error="no answer within 8 s")]
    end, _, _ = wait(loaded, [head], [slow, [inspect(specs["worker"])]])
    assert end.ready


def test_a_wrong_text_is_a_failure_even_though_it_answers(loaded: LoadedSite, specs: Specs) -> None:
    head = [inspect(specs["head"]), health(True), answer("ŧħ€ ŧħ€ ŧħ€")]
    end, _, _ = wait(loaded, [head], [[inspect(specs["worker"])]])
    assert "wrongly" in (end.failure or "")
    assert end.text == "ŧħ€ ŧħ€ ŧħ€"


def test_a_node_that_is_lost_is_named_so_that_nobody_claims_to_have_undone_it(loaded: LoadedSite, specs: Specs) -> None:
    end, _, _ = wait(loaded, [[inspect(specs["head"]), health(False)]], [None])
    assert end.lost == ("worker",)
    assert not end.ready


def test_a_silent_hang_ends_at_the_limit_with_the_last_stage(loaded: LoadedSite, specs: Specs) -> None:
    head = [inspect(specs["head"]), health(False), log("distributed_init_method=tcp://10.77.0.1:25000")]
    end, _, _ = wait(loaded, [head], [[inspect(specs["worker"])]])
    assert "not ready within 420 s" in (end.failure or "")
    assert "joining the ranks" in (end.failure or "")


def test_a_start_by_somebody_else_is_not_claimed_as_ours(loaded: LoadedSite, specs: Specs) -> None:
    end, _, _ = wait(loaded, [[inspect(specs["head"], "e2"), health(True)]], [[inspect(specs["worker"])]])
    assert "another epoch" in (end.failure or "")


def memory(available_gib: float) -> ProbeResult:
    text = f"MemTotal: 9437184 kB\nMemAvailable: {round(available_gib * 1024**2)} kB\n"
    return ProbeResult(id="memory.meminfo", files={"/proc/meminfo": text})


def test_a_floor_that_is_crossed_while_starting_ends_the_wait_and_names_the_node(
    loaded: LoadedSite, specs: Specs
) -> None:
    head, worker = (inspect(specs[role]) for role in ROLES)
    floor = loaded.site.guards.memory_floor_gib
    end, _, nodes = wait(
        loaded,
        [[head, health(False), memory(8.0)]],
        [[worker, memory(8.0)], [worker, memory(floor * 0.9)], [worker, memory(floor * 0.9)]],
    )
    assert not end.ready
    assert end.lost == ()
    assert f"memory floor crossed while starting: worker: {floor * 0.9:.1f} GiB" in (end.failure or "")
    assert all("memory.meminfo" in ids for node in nodes.values() for ids in node.asked)
    assert end.elapsed_s < 5


def test_memory_that_cannot_be_read_is_said_and_does_not_end_the_wait(loaded: LoadedSite, specs: Specs) -> None:
    head, worker = (inspect(specs[role]) for role in ROLES)
    starting = [[head, health(False), memory(8.0)]] * 7
    end, said, _ = wait(loaded, [*starting, [head, health(True)], [head, health(True), answer(TEXT)]], [[worker]])
    assert end.ready
    assert [line for line in said if line.startswith("worker: MemAvailable could not be read")] != []
