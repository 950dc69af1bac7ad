"""`tenants list` as a verb: two round trips, the exit code, one JSON document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dspark_ops.cli.tenants import app
from dspark_ops.config.models import Role, Site
from dspark_ops.transport import ssh
from dspark_ops.transport.base import NodeReading, Probe
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.deploy.conftest import SITE
from tests.unit.tenants.played_node import SESSION, PlayedNode


class PlayedRunner:
    """Answers the first reading, then the second; keeps what it was asked."""

    def __init__(self, node: PlayedNode | None) -> None:
        self.node, self.asked, self.closed = node, list[tuple[str, ...]](), False

    def read(self, probes: Sequence[Probe], *, timeout_s: float = 60.0) -> NodeReading:  # noqa: ARG002
        assert_read_only(probes)
        self.asked.append(tuple(probe.id for probe in probes))
        if self.node is None:
            return NodeReading(node="worker", reachable=False, error="connection refused")
        return self.node.first() if len(self.asked) == 1 else self.node.second()

    def close(self) -> None:
        self.closed = True


def listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runners: dict[Role, PlayedRunner], *words: str
) -> tuple[int, str]:
    (tmp_path / "site.yml").write_text(SITE)
    (tmp_path / "image.tar").write_bytes(b"x")

    def opened(site: Site, role: Role) -> PlayedRunner:
        return runners[role]

    monkeypatch.setattr(ssh, "open_runner", opened)
    done = CliRunner().invoke(app, ["list", "--site", str(tmp_path / "site.yml"), *words])
    assert all(runner.closed for runner in runners.values())
    return done.exit_code, done.stdout


def test_two_round_trips_where_there_is_somebody_and_one_where_there_is_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = PlayedNode().container("a", "big").process(4000, 3990, "serve", cgroup="/docker/" + "a" * 64, mib=9000)
    runners: dict[Role, PlayedRunner] = {"head": PlayedRunner(busy), "worker": PlayedRunner(PlayedNode())}
    code, out = listed(tmp_path, monkeypatch, runners, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["schema"] == "dspark-ops/tenants/v1"
    assert [[tenant["key"] for tenant in node["tenants"]] for node in document["nodes"]] == [["container:big"], []]
    assert [len(runners[role].asked) for role in ("head", "worker")] == [2, 1]
    assert runners["head"].asked[1] == ("proc.rollup", "a" * 64)


def test_a_silent_node_is_exit_3_and_the_other_is_still_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = PlayedNode().process(4000, 1, "serve", cgroup=SESSION, mib=9000)
    code, out = listed(tmp_path, monkeypatch, {"head": PlayedRunner(busy), "worker": PlayedRunner(None)})
    assert code == 3
    assert "process:serve/4000" in out
    assert "could not tell: worker: not reached: connection refused" in out
