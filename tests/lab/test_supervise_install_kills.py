"""`supervise install` killed at each of its phases: the next run finishes it, and a removal still leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import HEAD, WORKER, RehearsalPair
from tests.lab.operator_cli import Operator
from tests.lab.test_supervise_verbs import left_on

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(3600)]
#: The delays spread over the playbook: directories, program, key, door, host keys, configuration, unit.
KILLS = [("observe ...", 0.0), ("plan ...", 2.0), *(("apply ...", float(s)) for s in (2, 5, 8, 11)), ("prove ...", 0.0)]


@pytest.fixture
def unsupervised(serving: Operator) -> Iterator[Operator]:
    """A pair that serves and has no supervisor; none afterwards either."""
    assert serving.run("supervise remove", "--yes").rc == 0
    yield serving
    assert serving.run("supervise remove", "--yes").rc == 0


def ids(operator: Operator) -> list[str]:
    """Of the containers of both ranks: another one is another start."""
    return [rank["ID"] for rank in operator.ranks().values() if rank is not None]


@pytest.mark.parametrize(("phase", "delay_s"), KILLS)
def test_the_next_run_finishes_what_a_killed_one_began(
    unsupervised: Operator, pair: RehearsalPair, phase: str, delay_s: float
) -> None:
    serving = ids(unsupervised)
    # One that has ended before the delay was over is whole already; the next run must then find nothing to do.
    unsupervised.kill_at("supervise install", phase, "--yes", delay_s=delay_s)
    done = unsupervised.run("supervise install", "--yes", "--json")
    assert done.rc == 0, done
    again = unsupervised.run("supervise install", "--yes", "--json")
    assert (again.rc, again.document()["changes"]) == (0, []), again
    assert ids(unsupervised) == serving, "what serves was taken over, not started again"
    assert unsupervised.run("supervise remove", "--yes").rc == 0
    assert {node: left_on(pair, node) for node in (HEAD, WORKER)} == {HEAD: "", WORKER: ""}


def test_a_first_installation_that_was_killed_and_then_fails_is_finished_by_the_next(
    unsupervised: Operator, pair: RehearsalPair
) -> None:
    assert unsupervised.kill_at("supervise install", "apply ...", "--yes", delay_s=5.0)
    pair.run(WORKER, "sudo sh -c 'mkdir -p /run/kept && mv /etc/ssh/ssh_host_*_key.pub /run/kept/'")
    try:
        done = unsupervised.run("supervise install", "--yes", "--json")
    finally:
        pair.run(WORKER, "sudo sh -c 'mv /run/kept/* /etc/ssh/ && rmdir /run/kept'")
    assert done.rc in (3, 5), done
    done = unsupervised.run("supervise install", "--yes", "--json")
    assert (done.rc, done.document()["verdict"]) == (0, "changed"), done
