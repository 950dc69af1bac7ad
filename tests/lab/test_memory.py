"""Memory on the pair: a real holder on one node, refused before and caught while a release starts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from dspark_ops.config.load import load_site
from dspark_ops.config.models import ROLES
from dspark_ops.memory.reclaim import reclaim
from dspark_ops.report.recorder import Recorder
from dspark_ops.report.store import recent
from tests.lab.operator_cli import HOSTS, Operator, wait_for_line

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

UNIT = "lab-memory-holder"
GIB_KIB = 1 << 20
#: Takes all but so many KiB of what is available now, in pieces, touches it and keeps it.
HOLD = """
import sys, time
left = int(sys.argv[1])
free = next(int(l.split()[1]) for l in open("/proc/meminfo") if l.startswith("MemAvailable"))
held = [b"x" * (1 << 26) for _ in range((free - left) >> 16)]
time.sleep(600)
"""
Holder = Callable[[str, float], AbstractContextManager[None]]


def available_kib(operator: Operator, role: str) -> int:
    words = operator.on(role, "grep", "MemAvailable", "/proc/meminfo").split()
    return int(words[1])


def tight_floor_gib(operator: Operator) -> int:
    """A floor that leaves a start about 2.5 GiB, so that little has to be held: a rank takes 1.5."""
    return int(min(available_kib(operator, role) for role in HOSTS) / GIB_KIB - 2)


@pytest.fixture
def holding(operator: Operator) -> Holder:
    """A process on one node that really holds all of its memory but so many GiB."""

    @contextmanager
    def hold(role: str, leave_gib: float) -> Iterator[None]:
        operator.on(role, "tee", f"/run/{UNIT}.py", "<<'X'\n" + HOLD + "\nX\n")
        leave_kib = int(leave_gib * GIB_KIB)
        operator.on(role, "systemd-run", f"--unit={UNIT}", "python3", f"/run/{UNIT}.py", str(leave_kib))
        try:
            limit = time.monotonic() + 30
            while available_kib(operator, role) > leave_kib + GIB_KIB // 4:
                assert time.monotonic() < limit, "the memory was not taken within 30 s"
                time.sleep(0.3)
            yield
        finally:
            operator.on(role, "systemctl", "stop", f"{UNIT}.service", check=False)
            operator.on(role, "rm", "-f", f"/run/{UNIT}.py", check=False)

    return hold


def test_a_start_without_room_is_refused_with_what_is_missing_and_who_holds_it(
    operator: Operator, holding: Holder
) -> None:
    operator.run("stop", "--yes", "--remove")
    floor_gib = tight_floor_gib(operator)
    with holding("head", floor_gib + 1):
        # The nodes are two machines: what is taken on one is free on the other.
        assert available_kib(operator, "worker") > (floor_gib + 2) * GIB_KIB
        words = ("--set", f"guards.memory_floor_gib={floor_gib}", "--set", "tenants.large_memory_gib=0.5")
        done = operator.run("deploy", "--yes", *words)
        assert done.rc == 4, done
        assert "[host.memory_floor]" in done.err
        assert re.search(r"head: \d\.\d GiB available; a start needs 1\.\d GiB .* 0\.\d GiB are missing", done.err), (
            done
        )
        assert UNIT in done.err, "the holder is named"
        assert "worker: " not in done.err
        assert operator.ranks() == {"head": None, "worker": None}
        assert operator.on("head", "systemctl", "is-active", f"{UNIT}.service").strip() == "active"


def test_a_floor_crossed_while_starting_takes_both_ranks_down(operator: Operator, holding: Holder) -> None:
    """The floor is far above where the kernel would end a process, so that it is the watch that acts."""
    operator.run("stop", "--yes", "--remove")
    floor_gib = tight_floor_gib(operator)
    process = operator.begin("deploy", "--yes", "--set", f"guards.memory_floor_gib={floor_gib}")
    assert wait_for_line(process, "ready ...", 300)
    with holding("worker", floor_gib - 0.5):
        assert process.wait(timeout=120) == 5
    assert operator.ranks() == {"head": None, "worker": None}
    last = next(recent("deploy"))
    assert "memory floor crossed while starting: worker: " in last.message
    assert f"the floor is {floor_gib} GiB" in last.message


def test_reclaiming_on_a_rehearsal_node_drops_nothing_and_says_so(operator: Operator) -> None:
    recorder = Recorder("deploy", "lab", lambda _: None)
    done = reclaim(load_site(operator.site), recorder, ROLES, consented=True)
    assert [item.dropped for item in done.values()] == [False, False]
    assert all("rehearsal" in item.why for item in done.values())
    assert recorder.changes == []
