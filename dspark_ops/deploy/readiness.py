"""Ready means tokens: wait until a completion is correct, and stop waiting as soon as a rank dies."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dspark_ops.config.models import ROLES, Profile, Role, Site
from dspark_ops.deploy.observed import describe_exit, judge_canary
from dspark_ops.facts import service
from dspark_ops.facts.rank import RANK_CONTAINER, parse_inspect
from dspark_ops.memory.floor import FloorWatch
from dspark_ops.transport.base import Command, Http, NodeReading, Probe
from dspark_ops.transport.ssh import SshRunner, read_nodes

# The engine's own words to the stage a person waits for; the latest that matches wins (vLLM 0.32 log lines).
_STAGES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("starting", re.compile(r"vLLM API server version|non-default args")),
    ("joining the ranks", re.compile(r"distributed_init_method=tcp://")),
    ("ranks joined", re.compile(r"rank \d+ in world size \d+ is assigned")),
    ("loading weights", re.compile(r"Loading (safetensors|weights)|Starting to load model")),
    ("capturing graphs", re.compile(r"Capturing \w+ graphs|Graph capturing")),
    ("sizing the KV cache", re.compile(r"KV cache size:")),
    ("API server is up", re.compile(r"Application startup complete")),
)
_LOST_LIMIT_S = 30.0


@dataclass(frozen=True)
class Readiness:
    """How waiting ended. text is the completion; failure says which rank failed and how, None when ready.

    lost: roles that could not be reached any more, so that nothing can be undone there now.
    """

    ready: bool
    text: str | None
    failure: str | None
    elapsed_s: float
    lost: tuple[Role, ...] = ()


def wait_ready(
    runners: Mapping[Role, SshRunner],
    site: Site,
    profile: Profile,
    epoch: str,
    *,
    progress: Callable[[str], None],
    poll_s: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Readiness:
    """Poll both nodes until the completion is correct, a rank is gone, or `guards.ready_timeout_s` has passed.

    Memory below `guards.memory_floor_gib` on either node is a failure too: the caller then stops both ranks. A wrong
    text three times in a row is a failure: it starts, and it garbles.
    """
    began, stage, healthy, wrong = clock(), "", False, 0
    lost_since: dict[Role, float] = {}
    floor = FloorWatch(site, warn=progress)
    while True:
        readings = read_nodes(runners, _probes(site, profile, healthy))
        elapsed = clock() - began
        gone = _lost(readings, lost_since, clock())
        if gone:
            names = " and ".join(gone)
            return Readiness(False, None, f"{names}: not reachable for {_LOST_LIMIT_S:.0f} s", elapsed, gone)
        failure = _rank_failure(readings, epoch) or _floor_crossed(floor, readings)
        if failure is not None:
            return Readiness(False, None, failure, elapsed)
        said = _stage(readings["head"].get("log").text())
        if said and said != stage:
            stage = said
            progress(f"head: {stage}")
        if healthy:
            answer = judge_canary(readings["head"], profile.canary)
            if answer.correct:
                return Readiness(True, answer.text, None, elapsed)
            if answer.text is not None:
                wrong += 1
                if wrong == 3:
                    return Readiness(False, answer.text, f"the pair answers, but wrongly: {answer.error}", elapsed)
        healthy = readings["head"].get("health").ok and readings["head"].reachable
        if elapsed > site.guards.ready_timeout_s:
            at = f"; the head's last stage: {stage}" if stage else ""
            return Readiness(False, None, f"not ready within {site.guards.ready_timeout_s} s{at}", elapsed)
        sleep(poll_s)


def rank_failure(runners: Mapping[Role, SshRunner], epoch: str) -> str | None:
    """Why the ranks of this start do not run any more, from one fresh look; None when nothing is known against them."""
    rank = Command("rank", ("docker", "container", "inspect", RANK_CONTAINER), root=True)
    return _rank_failure(read_nodes(runners, dict.fromkeys(ROLES, (rank,))), epoch, "after it was ready")


def _probes(site: Site, profile: Profile, healthy: bool) -> dict[Role, Sequence[Probe]]:
    rank = Command("rank", ("docker", "container", "inspect", RANK_CONTAINER), root=True)
    log = Command("log", ("docker", "logs", "--tail", "15", RANK_CONTAINER), root=True)
    health = Http("health", f"{service.api_url(site)}/health", timeout_s=3.0)
    memory = FloorWatch.probes()
    head: list[Probe] = [rank, log, health, *memory]
    if healthy:
        head.append(service.canary_probe(site, profile))
    return {"head": head, "worker": [rank, *memory]}


def _lost(readings: Mapping[Role, NodeReading], since: dict[Role, float], now_s: float) -> tuple[Role, ...]:
    """The roles that have not answered for longer than the limit."""
    for role in ROLES:
        if readings[role].reachable:
            since.pop(role, None)
        else:
            since.setdefault(role, now_s)
    return tuple(role for role in ROLES if role in since and now_s - since[role] > _LOST_LIMIT_S)


def _rank_failure(readings: Mapping[Role, NodeReading], epoch: str, when: str = "while starting") -> str | None:
    for role in ("worker", "head"):
        reading = readings[role]
        if not reading.reachable:
            continue
        result = reading.get("rank")
        if "No such container" in (result.stderr or ""):
            return f"the rank on {role} is gone {when}"
        rank = parse_inspect(result.text())
        if rank is None:
            continue  # Docker was slow or restarting: could not tell, ask again
        if not rank.running:
            return f"the rank on {role} ended {when}: {describe_exit(rank)}"
        if rank.label("epoch") != epoch:
            return f"the rank on {role} was started by somebody else meanwhile (another epoch)"
    return None


def _floor_crossed(floor: FloorWatch, readings: Mapping[Role, NodeReading]) -> str | None:
    """The nodes below the floor while starting; a node that cannot be reached is judged by `_lost`."""
    judged = [floor.judge(role, readings[role]) for role in ROLES if readings[role].reachable]
    crossed = [said for said in judged if said is not None]
    return "memory floor crossed while starting: " + "; ".join(crossed) if crossed else None


def _stage(log: str | None) -> str | None:
    stage = None
    for line in (log or "").splitlines():
        for name, pattern in _STAGES:
            if pattern.search(line):
                stage = name
    return stage
