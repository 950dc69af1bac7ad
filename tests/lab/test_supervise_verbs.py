"""The supervisor as an operator has it: installed once, held and told by verbs, heard when it cannot be asked, gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.conftest import HEAD, WORKER, RehearsalPair
from tests.lab.operator_cli import Operator

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(1800)]

_LEFT = r"""
sudo ls -d /etc/dspark/supervise* /usr/local/lib/dspark/supervise.pyz /var/lib/dspark/supervise 2>/dev/null
sudo find /etc/systemd/system -name "dspark-supervisor*"
sudo ls /run/dspark 2>/dev/null | grep -E "^(supervise|ssh-)"
sudo grep -h dspark-supervisor /root/.ssh/authorized_keys 2>/dev/null
true
"""


@pytest.fixture(scope="module")
def supervised(operator: Operator) -> Iterator[Operator]:
    """The pair with a supervisor that keeps what serves."""
    done = operator.run("deploy", "--yes")
    assert done.rc == 0, done
    done = operator.run("supervise install", "--yes", "--json")
    assert (done.rc, done.document()["verdict"]) == (0, "changed"), done
    yield operator
    operator.run("supervise remove", "--yes")


def left_on(pair: RehearsalPair, node: str) -> str:
    """What a node has of a supervisor; empty when nothing."""
    return pair.run(node, _LEFT)


def told(operator: Operator) -> dict[str, Any]:
    found: dict[str, Any] = operator.run("supervise status", "--json").document()
    return found


def test_a_second_installation_changes_nothing(supervised: Operator) -> None:
    done = supervised.run("supervise install", "--yes", "--json")
    assert (done.rc, done.document()["verdict"], done.document()["changes"]) == (0, "unchanged", []), done


def test_it_keeps_what_a_deploy_brings_and_holds_meanwhile(supervised: Operator) -> None:
    done = supervised.run("deploy", "--yes", "--json", "--set", "serve.max_num_seqs=2")
    assert done.rc == 0, done
    phases = [phase["name"] for phase in done.document()["phases"]]
    assert phases.index("hold") < phases.index("settle") < phases.index("hand over")
    after = told(supervised)["supervisor"]
    assert after["hold"] is None
    assert after["release"] in str(done.document()["message"])


def test_the_hold_of_a_killed_deploy_is_taken_over_by_the_next(supervised: Operator) -> None:
    assert supervised.kill_at("deploy", "settle: done", "--yes")
    held = told(supervised)["supervisor"]["hold"]
    assert held is not None
    assert held["left_s"] > 0
    done = supervised.run("deploy", "--yes")
    assert done.rc == 0, done
    assert told(supervised)["supervisor"]["hold"] is None


def test_a_stopped_pair_stays_down(supervised: Operator, pair: RehearsalPair) -> None:
    assert supervised.run("stop", "--yes").rc == 0
    pair.run(HEAD, "sleep 12")  # two of its looks and more
    status = supervised.run("status", "--json").document()
    assert status["state"] == "stopped"
    assert told(supervised)["exit_code"] == 0
    assert supervised.run("start", "--yes").rc == 0


def test_one_that_cannot_be_asked_is_no_absent_one(supervised: Operator, pair: RehearsalPair) -> None:
    pair.run(HEAD, "sudo systemctl stop dspark-supervisor")
    for verb in ("deploy", "stop"):
        done = supervised.run(verb, "--yes", "--set", "serve.max_num_seqs=2")
        assert done.rc == 4, done
        assert "cannot be asked" in done.err
    done = supervised.run("deploy", "--yes", "--force-hold")
    assert done.rc == 0, done
    assert pair.run(HEAD, "systemctl is-active dspark-supervisor") == "active"


def test_removing_leaves_nothing_and_the_pair_serves_on(supervised: Operator, pair: RehearsalPair) -> None:
    done = supervised.run("supervise remove", "--yes")
    assert done.rc == 0, done
    assert {node: left_on(pair, node) for node in (HEAD, WORKER)} == {HEAD: "", WORKER: ""}
    assert supervised.run("status").rc == 0
    done = supervised.run("supervise remove", "--yes", "--json")
    assert (done.rc, done.document()["verdict"]) == (0, "unchanged"), done
