"""From the callback's lines to the summary of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dspark_ops.ansible_run.events import EventTail, Tally, parse_event


def _line(kind: str, at: float = 0.0, **fields: Any) -> str:
    return json.dumps({"kind": kind, "time": at, **fields})


def _tally(*lines: str) -> Tally:
    total = Tally()
    for line in lines:
        parsed = parse_event(line)
        assert parsed is not None
        total.add(*parsed)
    return total


def test_changes_are_counted_per_node_and_named_by_the_modules_own_words() -> None:
    total = _tally(
        _line("play", 1.0, play="Baseline"),
        _line("changed", 2.0, node="head", task="Make the directories", item="/etc/dspark-ops", diff="+x"),
        _line("changed", 3.0, node="worker", task="T", summary={"what": "rails: file", "before": "a", "after": "b"}),
        _line("ok", 4.0, node="worker", task="T"),
        _line("play", 5.0, play="Fabric"),
        _line("end", 8.0),
    )
    assert total.changed == {"head": 1, "worker": 1}
    assert [(c.node, c.what, c.before, c.after, c.diff) for c in total.changes] == [
        ("head", "Make the directories (/etc/dspark-ops)", None, None, "+x"),
        ("worker", "rails: file", "a", "b", None),
    ]
    assert total.play_seconds() == (("Baseline", 4.0), ("Fabric", 3.0))


def test_failures_keep_their_node_and_play_and_an_ignored_one_is_none() -> None:
    total = _tally(
        _line("play", play="Precheck"),
        _line("failed", node="head", task="A", message="no [x.y]"),
        _line("failed", node="head", task="B", message="never mind", ignored=True),
        _line("unreachable", node="worker", task="C", message="gone"),
    )
    assert [(f.node, f.task, f.message, f.play) for f in total.failures] == [
        ("head", "A", "no [x.y]", "Precheck"),
        ("worker", "C", "gone", "Precheck"),
    ]
    assert total.unreachable == ["worker"]


def test_a_line_that_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    assert list(tail.read()) == []
    whole, half = _line("task", task="one") + "\n", _line("task", task="zwei") + "\n"
    path.write_text(whole + half[:20])
    assert [event.task for event, _ in tail.read()] == ["one"]
    with path.open("a") as out:
        out.write(half[20:])
    assert [event.task for event, _ in tail.read()] == ["zwei"]


def test_what_is_no_event_is_passed_over() -> None:
    for line in ("", "{", "[]", '"x"', _line("strange"), "{}"):
        assert parse_event(line) is None
