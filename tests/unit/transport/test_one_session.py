"""One SSH session a node and one program in it, however much is asked, and however many nodes there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.config.models import ROLES, Role
from dspark_ops.facts.snapshot import gather_pair, probes_for
from dspark_ops.transport.base import Probe
from dspark_ops.transport.ssh import SshRunner, read_nodes, resolve_target
from tests.ssh_nodes import SimulatedNodes
from tests.unit.doctor.pair_fixture import CHECKS

RECORDED = CHECKS.parent / "fixtures/rehearsal"
COUNT = 16


@pytest.fixture
def nodes() -> Iterator[SimulatedNodes]:
    readings = [json.loads((RECORDED / f"{role}.json").read_text(encoding="utf-8")) for role in ROLES]
    simulated = SimulatedNodes(COUNT, readings, delay_s=0.2)
    yield simulated
    simulated.close()


def site_of(config: Path) -> LoadedSite:
    overrides = ("nodes.head.host=node-0", "nodes.worker.host=node-1", f"ssh.config={config}")
    return load_site(CHECKS / "site.yml", overrides=overrides, environ={})


def test_the_doctor_reads_each_node_in_one_session(nodes: SimulatedNodes, tmp_path: Path) -> None:
    loaded = site_of(nodes.write_access(tmp_path))
    facts = gather_pair(loaded.site, active_profile=loaded.profile)
    assert [node.reachable for node in facts.nodes] == [True, True]
    assert facts.head.gpu is not None
    roles: dict[str, Role] = {"head": "head", "worker": "worker"}
    for number, role in enumerate(roles.values()):
        wanted = probes_for(loaded.site, role, active_profile=loaded.profile)
        count = nodes.counts[number]
        assert (count.sessions, count.programs) == (1, 1)
        assert count.asked == [[probe.id for probe in wanted]]
    assert [count.sessions for count in nodes.counts[2:]] == [0] * (COUNT - 2)


def test_sixteen_nodes_are_read_at_the_same_time(nodes: SimulatedNodes, tmp_path: Path) -> None:
    config = nodes.write_access(tmp_path)
    names = [f"node-{i}" for i in range(COUNT)]
    runners = {name: SshRunner(name, resolve_target(name, config, 20)) for name in names}
    probes: tuple[Probe, ...] = probes_for(site_of(config).site, "worker")
    readings = read_nodes(runners, dict.fromkeys(names, probes))
    for runner in runners.values():
        runner.close()
    assert [readings[name].reachable for name in names] == [True] * COUNT
    assert [(count.sessions, count.programs) for count in nodes.counts] == [(1, 1)] * COUNT
    # One after the other they would take 16 x 0.2 s beside their log-ins.
    assert max(reading.elapsed_s for reading in readings.values()) < COUNT * nodes.delay_s
