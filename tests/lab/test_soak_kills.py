"""Nothing that happens to a deploy loses anything: the CLI killed, SSH cut, a node restarted, in each phase.

Each trial begins with a release that serves and a tenant on the head that has to leave for another release. After the
harm, the next `deploy` or `rollback` ends clean, and the tenant comes back as the container it was.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

from dspark_ops.config.load import load_site
from dspark_ops.tenants.records import FOLDER
from tests.lab.conftest import RehearsalPair
from tests.lab.node_power import power_cycle
from tests.lab.operator_cli import HOSTS, RANK, Operator, wait_for_line
from tests.lab.real_tenants import Nodes, container

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(900)]

TENANT = "soak-tenant"
TEXT = "The quick brown fox jumps over the lazy dog."
FIRST = ("--set", "serve.max_num_seqs=6")
SECOND = ("--set", "serve.max_num_seqs=5")
EVICTING = (
    "--set",
    "tenants.policy=evict-listed",
    "--set",
    f"tenants.evict=[container:{TENANT}]",
    "--set",
    "tenants.large_memory_gib=0.1",
)
# What runs is read back in an instant; with a gate behind it the harm still falls into the deploy.
GATE = ("--set", 'gate.command=["/bin/sleep", "4"]')
Verb = Literal["deploy", "rollback"]
Harm = Literal["kill", "cut", "restart head", "restart worker"]
HARMS: tuple[Harm, ...] = ("kill", "cut", "restart head", "restart worker")

#: Every phase of a deploy that has all of them, and so many seconds into it: in the midst of the work, where a phase
#: has a midst.
PHASES = {
    "image": 3.0,
    "evict": 1.5,
    "settle": 1.5,
    "memory": 0.1,
    "worker": 1.6,
    "head": 1.6,
    "ready": 4.0,
    "effective": 0.1,
    "gate": 1.0,
}


@dataclass(frozen=True)
class Point:
    """Harm, so many seconds after a phase began; then the verb that has to put everything in order."""

    harm: Harm
    phase: str
    delay_s: float
    next_verb: Verb

    def __str__(self) -> str:
        return f"{self.harm} at {self.phase}, then {self.next_verb}".replace(" ", "-")


def points() -> Iterator[Point]:
    """Each harm in each phase, the verbs by turns. Without an image nothing served before: nothing to return to."""
    yield Point("kill", "observe", 0.2, "deploy")
    yield Point("kill", "evict", 3.0, "rollback")
    for row, (phase, delay_s) in enumerate(PHASES.items()):
        for column, harm in enumerate(HARMS):
            verb: Verb = "deploy" if phase == "image" or (row + column) % 2 else "rollback"
            yield Point(harm, phase, delay_s, verb)


def tenant_of(operator: Operator) -> dict[str, object]:
    """The tenant as Docker on the head has it: its id, whether it runs, its policy."""
    (row,) = json.loads(operator.on("head", "docker", "container", "inspect", TENANT))
    return {"id": row["Id"], "running": row["State"]["Running"], "policy": row["HostConfig"]["RestartPolicy"]}


def both_or_neither(operator: Operator) -> None:
    running = {role: bool(rank and rank["State"] == "running") for role, rank in operator.ranks().items()}
    assert len(set(running.values())) == 1, running


def serves(operator: Operator) -> str:
    """Both ranks run under one epoch and answer correctly; the release."""
    status = operator.run("status", "--json")
    document = status.document()
    assert document["state"] == "ready", status
    assert document["completion"].strip() == TEXT
    assert len({rank["epoch"] for rank in document["ranks"]}) == 1
    assert len({rank["release"] for rank in document["ranks"]}) == 1
    return str(document["ranks"][0]["release"])


def do_harm(operator: Operator, point: Point, process: subprocess.Popen[str]) -> None:
    if point.harm == "kill":
        process.send_signal(signal.SIGKILL)
    elif point.harm == "cut":
        for host in HOSTS.values():
            # The sessions, not the daemon: as a switch that restarts. Our own session goes with them.
            script = "sudo pkill -9 -f '^sshd: .*@'"
            subprocess.run(["ssh", "-F", str(operator.ssh_config), host, script], capture_output=True, check=False)
    else:
        power_cycle(point.harm.removeprefix("restart "))


def begins_serving(operator: Operator, point: Point) -> str | None:
    """The pair as the trial wants it: a release serves; for `image` none does, and the worker lacks the image."""
    if operator.run("tenants restore", "--yes").rc != 0:
        # A trial that failed has taken its tenant with it; what it was owed is not this trial's.
        operator.on("head", "rm", "-rf", FOLDER)
    if point.phase == "image":
        assert operator.run("stop", "--yes").rc == 0
        operator.on("worker", "docker", "image", "rm", "--force", load_site(operator.site).site.image.id)
        return None
    if operator.run("status").rc != 0:
        assert operator.run("deploy", "--yes", *FIRST).rc == 0
    return serves(operator)


@pytest.mark.parametrize("point", list(points()), ids=str)
def test_the_next_run_ends_clean_and_the_tenant_comes_back(
    operator: Operator, pair: RehearsalPair, point: Point
) -> None:
    before = begins_serving(operator, point)
    other = SECOND if before and "--max-num-seqs=6" in operator.on("head", "docker", "inspect", RANK) else FIRST
    words = (*other, *EVICTING, *(GATE if point.phase in ("effective", "gate") else ()))
    nodes = Nodes(pair.ssh_config)
    with container(nodes, "head", name=TENANT, mib=300) as tenant:
        as_it_was = tenant_of(operator)
        process = operator.begin("deploy", "--yes", *words)
        assert wait_for_line(process, f"{point.phase} ...", 300), f"the deploy ended before {point.phase!r}"
        time.sleep(point.delay_s)
        do_harm(operator, point, process)
        ended = process.wait(timeout=400)
        sys.stderr.write(f"\n{point}: that deploy ended with {ended}, ")
        if point.harm != "kill":
            assert ended in (0, 3, 5, 6), ended
        if ended in (0, 5):
            both_or_neither(operator)
        if ended == 5 and before:
            assert serves(operator) == before

        began = time.monotonic()
        following = operator.run(point.next_verb, "--yes", *(words if point.next_verb == "deploy" else ()))
        sys.stderr.write(f"the {point.next_verb} with {following.rc} in {time.monotonic() - began:.0f} s ")
        assert following.rc == 0, following
        after = serves(operator)
        if point.next_verb == "rollback" and ended not in (0, 5):
            assert after == before

        restored = operator.run("tenants restore", "--yes")
        assert restored.rc == 0, restored
        nodes.wait_answer("head", tenant.port, tenant.word)
        assert tenant_of(operator) == as_it_was
