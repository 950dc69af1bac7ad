"""The way to the far end of each rail, as the kernel answers `ip route get`."""

from __future__ import annotations

import pytest

from dspark_ops.facts.routes import PathFacts, parse_path, probes, read_paths
from dspark_ops.transport.base import Command, NodeReading, ProbeResult
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.doctor.pair_fixture import load_case_site

OVER_THE_RAIL = (
    '[{"dst":"192.168.100.11","dev":"enp1s0f0np0","prefsrc":"192.168.100.10","flags":[],"uid":0,"cache":[]}]'
)
OWN = '[{"type":"local","dst":"192.168.100.10","dev":"lo","prefsrc":"192.168.100.10","flags":[],"uid":0}]'


def reading(*results: ProbeResult) -> NodeReading:
    return NodeReading(node="node-a", reachable=True, results={r.id: r for r in results})


@pytest.mark.parametrize(
    ("stdout", "stderr", "wanted"),
    [
        (OVER_THE_RAIL, "", PathFacts(rail="p0a", device="enp1s0f0np0")),
        (OWN, "", PathFacts(rail="p0a", device="lo")),
        ("", "RTNETLINK answers: Network is unreachable\n", PathFacts(rail="p0a")),
        ("", "RTNETLINK answers: No route to host\n", PathFacts(rail="p0a")),
        ("", "RTNETLINK answers: Operation not permitted\n", None),
        ("[]", "", None),
        ("[1]", "", None),
        ('[{"dst":"192.168.100.11"}]', "", None),
        (None, None, None),
    ],
)
def test_one_answer(stdout: str | None, stderr: str | None, wanted: PathFacts | None) -> None:
    assert parse_path("p0a", stdout, stderr) == wanted


def test_every_rail_is_asked_for_its_far_end() -> None:
    asked = probes(load_case_site().site, "worker")
    assert_read_only(asked)
    assert [p.argv[-1] for p in asked if isinstance(p, Command)] == ["192.168.100.10", "192.168.101.10"]


def test_what_was_not_asked_or_not_understood_is_not_known() -> None:
    good = ProbeResult(id="routes.to.p0a", rc=0, stdout=OVER_THE_RAIL)
    assert read_paths(reading(good)) == (PathFacts(rail="p0a", device="enp1s0f0np0"),)
    assert read_paths(reading()) is None
    assert read_paths(reading(good, ProbeResult(id="routes.to.p0b", rc=1, stdout="", stderr="?"))) is None
    gone = ProbeResult(id="routes.to.p0b", rc=2, stdout="", stderr="RTNETLINK answers: Network is unreachable")
    assert read_paths(reading(good, gone)) == (PathFacts(rail="p0a", device="enp1s0f0np0"), PathFacts(rail="p0b"))
