"""No change of ours strands a node: whatever goes wrong, within a minute it is as before, byte for byte."""

from __future__ import annotations

import pytest

from tests.lab.operator_cli import Operator
from tests.lab.stranding import Stranding, Trial

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture
def stranding(operator: Operator) -> Stranding:
    """The bootstrapped pair, without a rank that a change would disturb."""
    operator.run("stop", "--yes", "--remove")
    return Stranding(operator.site, operator.ssh_config)


@pytest.mark.parametrize(
    "trial",
    [
        # A short window, as the waiting is not the point; the default one and all of it at random in the soak.
        Trial("wrong-interface", "worker", 4.0, revert_after_s=20),
        pytest.param(Trial("wrong-interface", "worker", 4.0), marks=pytest.mark.soak),
        Trial("control-killed", "head", 1.5, revert_after_s=20),
        # Another way to lose the node, which the same timer takes back.
        pytest.param(Trial("wrong-address", "head", 4.0, revert_after_s=20), marks=pytest.mark.soak),
        # The VM lane restarts both nodes on every run, with kernels of their own.
        pytest.param(Trial("reboot", "worker", 2.0), marks=pytest.mark.soak),
    ],
    ids=lambda trial: trial.kind,
)
def test_a_node_comes_back_by_itself(stranding: Stranding, trial: Trial) -> None:
    outcome = stranding.run(trial)
    kind = trial.kind
    print(outcome)  # noqa: T201 (dated evidence)
    assert outcome.returned_s < trial.limit_s
    assert outcome.why == ("boot" if kind == "reboot" else "timer")
    # A bad change that did not harm would prove nothing.
    assert outcome.lost or not kind.startswith("wrong")


def test_after_all_of_it_the_pair_is_as_wanted(operator: Operator) -> None:
    """A node's restart lays the lab's cables anew, and no udev there gives new ports their ARP settings again."""
    done = operator.run("bootstrap", "--yes", "--json")
    assert done.rc == 0, done
    assert all("live values" in change["what"] for change in done.document()["changes"]), done
    if not done.document()["changes"]:
        return
    again = operator.run("bootstrap", "--yes", "--json")
    assert (again.rc, again.document()["changes"]) == (0, []), again
