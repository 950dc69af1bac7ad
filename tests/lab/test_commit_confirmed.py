"""No change of ours strands a node: whatever goes wrong, within a minute it is as before, byte for byte."""

from __future__ import annotations

import pytest

from dspark_ops.config.models import Role
from tests.lab.operator_cli import Operator
from tests.lab.stranding import LIMIT_S, Stranding, Trial

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture
def stranding(operator: Operator) -> Stranding:
    """The bootstrapped pair, without a rank that a change would disturb."""
    operator.run("stop", "--yes", "--remove")
    return Stranding(operator.site, operator.ssh_config)


@pytest.mark.parametrize(
    ("kind", "role", "moment_s"),
    [
        ("control-killed", "head", 1.5),
        ("wrong-interface", "worker", 4.0),
        ("wrong-address", "head", 4.0),
        ("reboot", "worker", 2.0),
    ],
)
def test_a_node_comes_back_by_itself(stranding: Stranding, kind: str, role: Role, moment_s: float) -> None:
    outcome = stranding.run(Trial(kind, role, moment_s))
    print(outcome)  # noqa: T201 (dated evidence)
    assert outcome.returned_s < LIMIT_S
    assert outcome.why == ("boot" if kind == "reboot" else "timer")
    # A bad change that did not harm would prove nothing.
    assert outcome.lost or not kind.startswith("wrong")


def test_after_all_of_it_the_pair_is_as_wanted(operator: Operator) -> None:
    done = operator.run("bootstrap", "--yes", "--json")
    assert (done.rc, done.document()["changes"]) == (0, []), done
