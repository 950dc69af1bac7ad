"""The text of a report as a person sees it: golden files, and what a host cannot do to a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspark_ops.report.models import Finding, NodeReport, Remedy, Report
from dspark_ops.report.roots import group_roots
from dspark_ops.report.text import render
from tests.unit.report.test_report import NODES, found, report

GOLDEN = Path(__file__).parent / "golden"
TITLES = {
    "reach.ssh": "The node answers over SSH, with its known host key",
    "host.clock": "The clock agrees with the control host",
    "fabric.ports_up": "Every rail's port exists, is up and has a carrier",
    "fabric.mtu": "The MTU is the site's on every rail, at both ends",
    "fabric.link_speed": "Every cabled port runs at 200 Gb/s",
    "service.health": "The API's health page answers 200",
}
ASK = Remedy(text="Is it powered on?", command=("ssh", "node-b", "true"), remedy_class="M")
CABLE = Remedy(text="Check the cable, at both ends.", remedy_class="M")
MTU = Remedy(text="Bring the rails to the site's MTU.", command=("dspark-ops", "bootstrap"), remedy_class="C")


def on_both(identity: str, status: Any = "ok", **more: Any) -> tuple[Finding, Finding]:
    return one(identity, "head", status, **more), one(identity, "worker", status, **more)


def one(identity: str, node: str, status: Any = "ok", **more: Any) -> Finding:
    return found(status, id=identity, node=node, title=TITLES[identity], **more)


DARK = (
    *on_both("reach.ssh"),
    one("host.clock", "head", "warn", severity="advised", effect="risks", observed="2.4 s off", expected="at most 2 s"),
    one("host.clock", "worker", "unknown", severity="advised", observed="the time could not be read"),
    one("fabric.ports_up", "head", "fail", observed="p0 has no carrier", expected="a carrier", remedy=CABLE),
    one("fabric.ports_up", "worker", "fail", observed="p0 has no carrier", expected="a carrier", remedy=CABLE),
    *on_both("fabric.mtu", "fail", observed="1500", expected="9000", remedy=MTU, ignored=True),
    one("service.health", "pair", "fail", caused_by="fabric.ports_up", observed="connection refused"),
    # A cause may come after what follows from it; those of a domain are shown together all the same.
    *on_both("fabric.link_speed", "unknown", caused_by="fabric.ports_up", observed="no carrier", look_alike=True),
)
LOST = (
    one("reach.ssh", "head"),
    one("reach.ssh", "worker", "fail", observed="no answer within 10 s", expected="a session", remedy=ASK),
    one("fabric.mtu", "head"),
    one("fabric.mtu", "worker", "unknown", caused_by="reach.ssh", observed="the node was not reached"),
    one("service.health", "pair", "skip", observed="nothing is deployed"),
)
LOST_NODES = (NODES[0], NodeReport(role="worker", host="node-b", reachable=False, error="no \x1b[2Janswer"))
GOOD = tuple(f for identity in list(TITLES)[:-1] for f in on_both(identity))

REPORTS: dict[str, Report] = {
    "good": report(nodes=NODES, findings=GOOD, message="all 10 results are good"),
    "dark_port": report(
        nodes=NODES, findings=DARK, verdict="blocked", exit_code=1, message="3 of 5 results failed", next_step="look"
    ),
    "lost_node": report(
        nodes=LOST_NODES, findings=LOST, verdict="indeterminate", exit_code=3, message="no verdict: worker not reached"
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_text_is_as_agreed(name: str) -> None:
    assert render(REPORTS[name]) + "\n" == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_verbose_has_one_line_for_both_only_where_both_say_the_same() -> None:
    findings = (*on_both("fabric.mtu", observed="9000"), one("host.clock", "head"), one("host.clock", "worker"))
    other = findings[3].model_copy(update={"observed": "0.1 s off"})
    lines = render(report(findings=(*findings[:3], other)), verbose=True).splitlines()
    assert lines[:3] == [
        f"[ok]   both   fabric.mtu  {TITLES['fabric.mtu']}: 9000",
        f"[ok]   head   host.clock  {TITLES['host.clock']}: seen",
        f"[ok]   worker host.clock  {TITLES['host.clock']}: 0.1 s off",
    ]


def test_only_the_tool_colours_a_terminal() -> None:
    text = render(report(findings=(found("fail", observed="\x1b]0;title\x07\x9b31m", expected="x\ry"),)), colour=True)
    assert text.count("\x1b") == 2 * 2
    assert not set("\x07\x9b\r") & set(text)


def test_thirty_that_follow_are_names_and_not_blocks() -> None:
    followers = tuple(found("unknown", id=f"nic.check_{n:02}", caused_by="reach.ssh") for n in range(30))
    text = render(report(findings=(found("fail", id="reach.ssh"), *followers)))
    told = text.split("30 more follow from reach.ssh: ")[1].split("\n\n")[0]
    assert told.replace(",", " ").split() == [f"nic.check_{n:02}" for n in range(30)]
    assert max(map(len, text.splitlines())) <= 116


def test_more_than_thirty_are_counted_by_domain_and_named_with_verbose() -> None:
    names = [f"nic.check_{n:02}" for n in range(30)] + ["host.one"]
    followers = tuple(found("unknown", id=name, caused_by="reach.ssh") for name in names)
    made = report(findings=(found("fail", id="reach.ssh"), *followers))
    assert "       31 more follow from reach.ssh: 30 nic, 1 host" in render(made).splitlines()
    assert "31 more follow from reach.ssh: nic.check_00, nic.check_01," in render(made, verbose=True)


def test_roots_are_by_urgency_and_what_only_slows_comes_after_what_blocks() -> None:
    findings = (
        found("warn", id="a.risk"),
        found("unknown", id="b.unknown"),
        found("fail", id="c.slow", effect="slows"),
        found("fail", id="d.block", effect="blocks"),
        found("warn", id="e.cause"),
        found("fail", id="f.follower", caused_by="e.cause"),
        found("fail", id="g.ignored", ignored=True),
        found("unknown", id="h.follower", caused_by="x.absent"),
    )
    roots = group_roots(findings)
    assert [root.id for root in roots] == ["d.block", "e.cause", "c.slow", "b.unknown", "x.absent", "a.risk"]
    assert [root.id for root in roots if root.followers] == ["e.cause", "x.absent"]
    assert roots[4].findings == ()
    assert group_roots(()) == ()


def test_a_root_has_the_status_of_its_worst_node() -> None:
    (root,) = group_roots((found("warn"), found("fail", node="worker")))
    assert (root.status, len(root.findings)) == ("fail", 2)
