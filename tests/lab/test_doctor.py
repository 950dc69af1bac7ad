"""`dspark-ops doctor` on the rehearsal pair: names a planted fault with its remedy, and reads each node once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.load import load_site
from dspark_ops.config.models import ROLES
from dspark_ops.facts.snapshot import probes_for
from dspark_ops.transport.ssh import open_runner
from tests.lab.operator_cli import RANK, Done, Operator

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SKIPPED = {
    "fabric.gid_index_valid",
    "fabric.gid_drift",
    "fabric.networkmanager_settled",
    "fabric.peer_mac",
    "fabric.rail_share",
    "fabric.round_trip",
}


@pytest.fixture(scope="module")
def configured(operator: Operator) -> Operator:
    """The pair as bootstrap left it, and no rank in the way."""
    stopped = operator.run("stop", "--yes")
    assert stopped.rc == 0, stopped
    return operator


def first_rail(operator: Operator) -> tuple[str, str, str]:
    """(rail, the worker's device, the head's device) of the site's first rail."""
    rail = load_site(operator.site).site.fabric.rails[0]
    return rail.name, rail.worker.netdev, rail.head.netdev


def finding(done: Done, check: str, node: str) -> dict[str, Any]:
    """The one result of a check on a node."""
    (found,) = [f for f in done.document()["findings"] if (f["id"], f["node"]) == (check, node)]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def worker_at_1500(configured: Operator) -> Iterator[Operator]:
    """The first rail's MTU set to 1500 at the worker's end; put back afterwards."""
    _, netdev, _ = first_rail(configured)
    configured.on("worker", "ip", "link", "set", netdev, "mtu", "1500")
    yield configured
    configured.on("worker", "ip", "link", "set", netdev, "mtu", "9000")


@pytest.fixture
def worker_without_docker(configured: Operator) -> Iterator[Operator]:
    """The worker's Docker Engine stopped; started again afterwards."""
    configured.on("worker", "systemctl", "stop", "docker.socket", "docker.service", check=False)
    yield configured
    configured.on("worker", "systemctl", "start", "docker.service")


def test_a_configured_fabric_is_good_and_full_packets_cross_it(configured: Operator) -> None:
    done = configured.run("doctor", "--json", "--active", "--only", "reach.*", "--only", "fabric.*")
    assert done.rc == 0, done
    document = done.document()
    assert document["verdict"] == "ready"
    assert {f["status"] for f in document["findings"]} <= {"ok", "skip"}, done
    # No index is pinned, so there is no pin to judge; the others need a rank that runs, real ports or NetworkManager.
    skipped = {f["id"] for f in document["findings"] if f["status"] == "skip"}
    assert skipped <= SKIPPED, done
    assert finding(done, "fabric.jumbo_ping", "pair")["status"] == "ok"
    assert finding(done, "fabric.rocev2_gid", "head")["look_alike"] is True
    assert finding(done, "fabric.mtu", "head")["look_alike"] is False


def test_an_mtu_of_1500_at_one_end_is_named_with_its_remedy(worker_at_1500: Operator) -> None:
    rail, netdev, far = first_rail(worker_at_1500)
    done = worker_at_1500.run("doctor", "--json", "--active", "--only", "fabric.*")
    assert done.rc == 1, done
    named = finding(done, "fabric.mtu", "worker")
    assert named["status"] == "fail"
    assert named["observed"] == f"{netdev} (rail {rail}) has MTU 1500, not 9000; the head's end {far} has 9000"
    assert named["remedy"]["command"] == ["dspark-ops", "bootstrap", "--site", str(worker_at_1500.site)]
    assert finding(done, "fabric.mtu", "head")["status"] == "ok"
    ping = finding(done, "fabric.jumbo_ping", "pair")
    assert (ping["status"], ping["caused_by"]) == ("fail", "fabric.mtu")
    assert f"head {far} (rail {rail})" in ping["observed"], "the good end sends and nothing comes back"


@pytest.mark.soak
def test_the_remedy_that_doctor_names_is_one_that_helps(worker_at_1500: Operator) -> None:
    """The test above reads which verb is named, and test_bootstrap has this very fault mended by it."""
    named = finding(worker_at_1500.run("doctor", "--json", "--only", "fabric.mtu"), "fabric.mtu", "worker")
    verb, *words = named["remedy"]["command"][1:]
    assert words == ["--site", str(worker_at_1500.site)]
    done = worker_at_1500.run(verb, "--yes")
    assert done.rc == 0, done
    after = worker_at_1500.run("doctor", "--json", "--active", "--only", "fabric.*")
    assert after.rc == 0, after


def test_a_stopped_docker_is_named_and_what_follows_from_it_is_not_blamed(worker_without_docker: Operator) -> None:
    done = worker_without_docker.run("doctor", "--json")
    assert done.rc == 1, done
    named = finding(done, "host.docker_engine", "worker")
    assert named["status"] == "fail"
    assert named["remedy"]["command"][-4:] == ["sudo", "systemctl", "start", "docker"]
    assert finding(done, "host.docker_engine", "head")["status"] == "ok"
    follows = finding(done, "image.present", "worker")
    assert (follows["status"], follows["caused_by"]) == ("unknown", "host.docker_engine")


def test_an_unreachable_node_is_no_verdict_and_the_other_is_still_judged(configured: Operator, tmp_path: Path) -> None:
    text = configured.ssh_config.read_text()
    dark = tmp_path / "ssh_config"
    head, worker = (configured.on(r, "hostname", "-I").split() for r in ROLES)
    mine = next(a for a in worker if a in text)
    dark.write_text(text.replace(mine, mine.rsplit(".", 1)[0] + ".253"))
    done = configured.run(
        "doctor", "--json", "--set", f"ssh.config={dark}", "--set", "ssh.connect_timeout_s=3", timeout_s=60
    )
    assert done.rc == 3, done
    assert finding(done, "reach.ssh", "worker")["status"] == "fail"
    assert finding(done, "fabric.mtu", "worker")["caused_by"] == "reach.ssh"
    assert finding(done, "fabric.mtu", "head")["status"] == "ok"
    assert head


def logins(operator: Operator, role: str) -> int:
    """How many logins the node's own sshd has written down, this one included."""
    return operator.on(role, "journalctl", "-q", "-t", "sshd", "-g", "Accepted.publickey", "--no-pager").count(
        "Accepted"
    )


def test_each_node_is_logged_into_once_by_its_own_account(configured: Operator) -> None:
    counts = []
    for _ in range(4):
        before = {role: logins(configured, role) for role in ROLES}
        done = configured.run("doctor", "--json")
        assert done.rc in (0, 1), done
        counts.append(max(logins(configured, role) - before[role] for role in ROLES))
        if counts[-1] == 2:
            break
    # One for the doctor, one for the look at the journal. Somebody else's login can only add to that, so once is proof.
    assert min(counts) == 2


def test_each_node_runs_one_program_for_all_probes(configured: Operator) -> None:
    site = load_site(configured.site).site
    for role in ROLES:
        runner = open_runner(site, role)
        try:
            reading = runner.read(probes_for(site, role))
        finally:
            runner.close()
        assert reading.reachable
        assert runner.round_trips == 1
        unread = {result.id: result.error for result in reading.results.values() if result.error is not None}
        # No rank runs, so the API does not answer; a rehearsal node has not every tool that a Spark has.
        broken = {identity for identity, error in unread.items() if not error.startswith("no such program")}
        assert {identity.split(".")[0] for identity in broken} <= {"service", "metrics"}, unread


def test_an_engine_that_died_with_exit_code_0_is_named(serving: Operator) -> None:
    good = serving.run("doctor", "--json", "--active")
    assert good.rc == 0, good
    assert finding(good, "service.canary", "pair")["status"] == "ok"
    names = serving.on("head", "docker", "container", "top", RANK, "-eo", "pid,args").splitlines()
    (engine,) = [line.split()[0] for line in names if "VLLM::EngineCore" in line]
    serving.on("head", "kill", "-9", engine)
    wait_until(lambda: (serving.ranks()["head"] or {}).get("State") == "exited", 60)
    done = serving.run("doctor", "--json", "--only", "service.*")
    assert done.rc == 1, done
    named = finding(done, "service.exit_code_zero_is_death", "head")
    assert (named["status"], named["observed"]) == (
        "fail",
        "the engine died: it exited with 0 and was not asked to stop",
    )
    assert finding(done, "service.exit_code_zero_is_death", "worker")["status"] == "ok"
    alone = finding(done, "service.ranks_paired", "pair")
    assert alone["observed"] == "the worker runs alone: the head is exited"
    assert alone["remedy"]["command"][:2] == ["dspark-ops", "start"]


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait for something on a node to become so."""
    limit = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < limit, f"did not become true within {timeout_s:g} s"
        time.sleep(0.5)
