"""Nothing that happens to a deploy loses anything: the CLI killed, SSH cut, a node restarted, in each phase.

Each trial begins with a release that serves and a tenant on the head that has to leave for another release. After the
harm, the next `deploy` or `rollback` ends clean, and the tenant comes back as the container it was.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Literal

import pytest

from tests.lab.conftest import RehearsalPair
from tests.lab.node_power import power_cycle
from tests.lab.operator_cli import HOSTS, Operator, wait_for_line
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
Harm = Literal["kill", "cut", "restart head", "restart worker"]


@dataclass(frozen=True)
class Point:
    """Harm, so many seconds after a line of the progress; then the verb that has to put everything in order."""

    harm: Harm
    marker: str
    delay_s: float
    next_verb: Literal["deploy", "rollback"]

    def __str__(self) -> str:
        return f"{self.harm} at {self.marker.removesuffix(' ...')}, then {self.next_verb}".replace(" ", "-")


POINTS = (
    Point("kill", "observe ...", 0.2, "deploy"),
    Point("kill", "evict ...", 1.5, "deploy"),
    Point("kill", "evict ...", 3.0, "rollback"),
    Point("kill", "settle ...", 1.5, "rollback"),
    Point("kill", "memory ...", 0.1, "deploy"),
    Point("kill", "worker ...", 1.8, "rollback"),
    Point("kill", "head ...", 1.8, "deploy"),
    Point("kill", "ready ...", 4.0, "rollback"),
    Point("kill", "effective ...", 0.1, "deploy"),
    Point("cut", "evict ...", 1.5, "deploy"),
    Point("cut", "settle ...", 1.5, "rollback"),
    Point("cut", "worker ...", 1.5, "deploy"),
    Point("cut", "ready ...", 3.0, "deploy"),
    Point("restart head", "evict ...", 1.5, "deploy"),
    Point("restart worker", "settle ...", 1.0, "deploy"),
    Point("restart head", "worker ...", 1.5, "rollback"),
    Point("restart worker", "head ...", 1.5, "deploy"),
    Point("restart worker", "ready ...", 4.0, "rollback"),
    Point("restart head", "ready ...", 8.0, "deploy"),
)


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


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_the_next_run_ends_clean_and_the_tenant_comes_back(
    operator: Operator, pair: RehearsalPair, point: Point
) -> None:
    operator.run("tenants restore", "--yes")
    if operator.run("status").rc != 0:
        assert operator.run("deploy", "--yes", *FIRST).rc == 0
    before = serves(operator)
    other = SECOND if "--max-num-seqs=6" in operator.on("head", "docker", "inspect", "dspark-rank") else FIRST
    nodes = Nodes(pair.ssh_config)
    with container(nodes, "head", name=TENANT, mib=300) as tenant:
        as_it_was = tenant_of(operator)
        process = operator.begin("deploy", "--yes", *other, *EVICTING)
        assert wait_for_line(process, point.marker, 300), f"the deploy ended before {point.marker!r}"
        time.sleep(point.delay_s)
        do_harm(operator, point, process)
        ended = process.wait(timeout=400)
        if point.harm != "kill":
            assert ended in (0, 3, 5, 6), ended
        if ended in (0, 5):
            both_or_neither(operator)
        if ended == 5:
            assert serves(operator) == before

        words = (*other, *EVICTING) if point.next_verb == "deploy" else ()
        following = operator.run(point.next_verb, "--yes", *words)
        assert following.rc == 0, following
        after = serves(operator)
        if point.next_verb == "rollback" and ended not in (0, 5):
            assert after == before

        restored = operator.run("tenants restore", "--yes")
        assert restored.rc == 0, restored
        nodes.wait_answer("head", tenant.port, tenant.word)
        assert tenant_of(operator) == as_it_was
