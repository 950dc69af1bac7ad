"""The arithmetic of the fault matrix: what a trial's moments and events say, and what must never pass as well."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.lab.serving_timeline import (
    Alert,
    Ask,
    Change,
    ContainerEvent,
    Expect,
    Seen,
    document,
    measure,
    outage_s,
    read_events,
    read_journal,
    wrongly_run,
)

DIED = Expect("restart", frozenset({"process"}), detect_goal_s=10.0)


def change(at: float, source: str, target: str, *by: str) -> Change:
    return Change(at, source, target, "because", by)


def event(at: float, node: str, action: str, epoch: str) -> ContainerEvent:
    return ContainerEvent(at, node, "start" if action == "start" else "die", epoch)


def ask(ended: float, verdict: str) -> Ask:
    known = {"right": "right", "wrong": "wrong", "lost": "lost", "cloud": "cloud"}
    return Ask(ended - 0.5, ended, known[verdict])  # type: ignore[arg-type]


#: A worker died at 100, was noticed at 103, both were down at 110, the pair served again at 150.
RESTART = Seen(
    injected=100.0,
    ended=160.0,
    reverted=151.0,
    epoch_before="s1",
    epoch_after="s2",
    final_state="serving",
    changes=(
        change(103, "serving", "stopping", "process"),
        change(110, "stopping", "cooling"),
        change(111, "cooling", "starting"),
        change(140, "starting", "gate"),
        change(150, "gate", "serving"),
    ),
    events=(
        event(100.1, "worker", "die", "s1"),
        event(105, "head", "die", "s1"),
        event(112, "worker", "start", "s2"),
        event(113, "head", "start", "s2"),
    ),
    asks=(ask(99.5, "right"), ask(101, "lost"), ask(104, "lost"), ask(151, "right"), ask(152, "right")),
)


def test_a_restart_is_measured_from_the_fault() -> None:
    found = measure(DIED, RESTART)
    assert (found.detected_by, found.detect_s, found.serve_s, found.outage_s) == ("process", 3.0, 50.0, 51.5)
    assert found.beyond_load_s == 50.0 - (140 - 113)
    assert (found.right, found.lost, found.wrong, found.cloud, found.false_actions) == (2, 2, 0, 0, 0)
    assert found.problems == ()


def test_a_load_that_was_not_seen_is_not_known() -> None:
    assert measure(DIED, replace(RESTART, events=())).beyond_load_s is None
    before = tuple(change for change in RESTART.changes if change.target != "gate")
    assert measure(DIED, replace(RESTART, changes=before)).beyond_load_s is None


def test_a_second_restart_is_a_false_action() -> None:
    again = (*RESTART.changes, change(152, "serving", "draining", "canary", "counters"))
    found = measure(DIED, replace(RESTART, changes=(*again, change(153, "draining", "stopping"))))
    assert found.false_actions == 1
    assert any("false action" in text for text in found.problems)


def test_any_verdict_is_a_false_action_where_nothing_must_come() -> None:
    found = measure(Expect("nothing"), RESTART)
    assert found.false_actions == 1
    assert "epoch s2 runs instead of s1" in found.problems


def test_suspicion_that_passes_is_no_action() -> None:
    calm = replace(
        RESTART,
        changes=(change(120, "serving", "suspect", "canary"), change(130, "suspect", "serving")),
        events=(),
        epoch_after="s1",
    )
    found = measure(Expect("nothing"), calm)
    assert (found.false_actions, found.detect_s, found.problems) == (0, None, ())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"final_state": "failed"}, "in the end it was failed, expected serving"),
        ({"final_state": None}, "not to be asked"),
        ({"epoch_after": "s1"}, "epoch s1 still runs"),
        ({"changes": ()}, "it was not detected"),
        ({"asks": (*RESTART.asks, ask(155, "wrong"))}, "1 wrong answers"),
        ({"problems": ("left on the head: process 7",)}, "left on the head: process 7"),
    ],
)
def test_what_is_not_as_it_should_be_is_a_problem(changed: dict[str, object], says: str) -> None:
    found = measure(DIED, replace(RESTART, **changed))  # type: ignore[arg-type]
    assert any(says in text for text in found.problems), found.problems


def test_a_fault_that_is_told_by_another_sign_than_it_should_be_is_a_problem() -> None:
    found = measure(replace(DIED, by=frozenset({"canary", "counters"})), RESTART)
    assert found.problems == ("told by process, expected one of canary, counters",)


def test_an_alert_that_must_come_is_the_detection_of_what_needs_no_action() -> None:
    expect = Expect("nothing", alerts=frozenset({"management-lost"}))
    calm = replace(RESTART, changes=(), events=(), epoch_after="s1", alerts=(Alert(112.0, "management-lost", False),))
    found = measure(expect, calm)
    assert (found.detected_by, found.detect_s, found.problems) == ("alert management-lost", 12.0, ())
    early = measure(expect, replace(calm, alerts=(Alert(90.0, "management-lost", False),)))
    assert (early.detect_s, early.problems) == (None, ("no alert management-lost",))


def test_what_waits_is_measured_from_the_end_of_the_fault() -> None:
    held = replace(
        RESTART,
        reverted=130.0,
        changes=(change(104, "serving", "cooling", "process"), *RESTART.changes[2:]),
    )
    found = measure(Expect("waits", frozenset({"process"})), held)
    assert (found.detected_by, found.detect_s, found.serve_s, found.problems) == ("process", 4.0, 20.0, ())


def test_a_latch_needs_its_page_and_keeps_to_its_starts() -> None:
    expect = Expect("latches", frozenset({"process"}), restarts=1, starts=1)
    paged = replace(RESTART, alerts=(Alert(120.0, "latched", True),))
    assert measure(expect, paged).problems == ()
    assert "it did not page that it latched" in measure(expect, RESTART).problems
    more = (*paged.events, event(114, "head", "die", "s2"), event(115, "worker", "die", "s2"))
    more = (*more, event(116, "worker", "start", "s3"), event(117, "head", "start", "s3"))
    assert "2 starts, expected at most 1" in measure(expect, replace(paged, events=more)).problems


def test_nothing_is_measured_of_what_was_before_the_fault() -> None:
    early = (change(50, "serving", "stopping", "process"), change(90, "gate", "serving"), *RESTART.changes)
    assert measure(DIED, replace(RESTART, changes=early)) == measure(DIED, RESTART)


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([(1, "worker", "start", "b")], "two epochs ran at once: a on the head, b on the worker"),
        ([(1, "head", "start", "b")], "the head of b was started before its worker"),
        ([(1, "worker", "start", "a")], "a was started twice on the worker"),
        (
            [(1, "worker", "start", "b"), (2, "worker", "die", "b"), (3, "worker", "start", "b")],
            "b was started twice on the worker",
        ),
    ],
)
def test_ranks_that_must_not_run_are_found(events: list[tuple[float, str, str, str]], says: str) -> None:
    found = wrongly_run([event(*words) for words in events], before="a", nodes=("head", "worker"))
    assert says in found, found


def test_one_epoch_after_the_other_is_right_in_whatever_order_the_nodes_tell_it() -> None:
    assert wrongly_run(reversed(RESTART.events), before="s1", nodes=("head", "worker")) == []
    assert wrongly_run(RESTART.events[2:], before=None, nodes=("head", "worker")) == []


def test_events_that_a_node_forgot_are_not_judged() -> None:
    lost = replace(RESTART, events=RESTART.events[2:])
    assert measure(DIED, lost).problems != ()
    assert measure(replace(DIED, events_whole=False), lost).problems == ()


def test_an_outage_is_between_right_answers_and_unknown_until_the_next() -> None:
    assert outage_s([ask(1, "right"), ask(2, "right")], 0.0) is None
    assert outage_s([ask(1, "right"), ask(3, "lost")], 0.0) is None
    assert outage_s([ask(1, "right"), ask(3, "lost"), ask(4, "cloud")], 0.0) == 3.0
    assert outage_s([ask(3, "lost"), ask(9, "right")], 0.0) == 6.5
    assert outage_s([ask(3, "lost"), ask(9, "right")], 5.0) is None


def test_the_supervisors_own_lines_are_read() -> None:
    lines = [
        {"kind": "action", "at": 1.0, "action": "stop_head"},
        {"kind": "alert", "at": 9.0, "alert": "latched", "text": "it gave up", "page": True},
        {"kind": "transition", "at": 3.0, "source": "serving", "target": "draining", "reason": "r", "epoch": "s1",
         "witnesses": ["counters: requests wait: 2", "canary: 1 in a row", "canary: again"]},
    ]  # fmt: skip
    changes, alerts = read_journal(lines)
    assert changes == (Change(3.0, "serving", "draining", "r", ("counters", "canary")),)
    assert alerts == (Alert(9.0, "latched", True),)


def test_the_journals_own_writer_is_understood(tmp_path: object) -> None:
    """The words of the daemon, written by it: a renamed field would blind the matrix."""
    from pathlib import Path

    from dspark_ops.supervise.node.journal import Journal

    path = Path(str(tmp_path)) / "journal.jsonl"
    Journal(path).write("alert", 5.0, alert="latched", text="t", page=True)
    _, alerts = read_journal([json.loads(path.read_text())])
    assert alerts == (Alert(5.0, "latched", True),)


def test_docker_events_of_others_are_left_out() -> None:
    mine = {"Action": "die", "Actor": {"Attributes": {"io.dspark-ops.epoch": "s1"}}, "timeNano": 5_500_000_000}
    kill = {**mine, "Action": "kill"}
    foreign = {**mine, "Actor": {"Attributes": {}}}
    found = read_events("head", [mine, kill, foreign], "io.dspark-ops.epoch")
    assert found == (ContainerEvent(5.5, "head", "die", "s1"),)


def test_a_line_of_evidence_is_json_with_all_that_was_seen() -> None:
    line = json.loads(json.dumps(document("kill", 3, DIED, RESTART, measure(DIED, RESTART))))
    assert (line["schema"], line["row"], line["trial"]) == ("dspark-ops/serving-matrix/v1", "kill", 3)
    assert line["goals"] == {"detect_s": 10.0, "serve_s": None, "beyond_load_s": None}
    assert line["measured"]["detect_s"] == 3.0
    assert len(line["seen"]["asks"]) == 5
