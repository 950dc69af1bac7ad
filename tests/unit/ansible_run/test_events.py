"""From the callback's lines to the summary of a run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.ansible_run.events import EventKind, EventTail, Tally, TaskEvent, parse_event, tally
from dspark_ops.config.models import ROLES


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


def test_a_line_of_odd_types_is_read_as_far_as_it_goes() -> None:
    line = json.dumps({"kind": "changed", "node": "pair", "time": None, "task": 7, "elapsed_s": "long", "diff": ["x"]})
    assert parse_event(line) == (TaskEvent(kind="changed", task="7", diff='["x"]'), 0.0)
    assert parse_event(_line("play", play="P").replace("0.0", "1e999")) == (TaskEvent(kind="play", play="P"), 0.0)
    assert parse_event("[" * 200_000) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = ("time", "play", "task", "role", "node", "item", "message", "diff", "summary", "ignored", "elapsed_s")
_NEARLY = st.fixed_dictionaries(
    {"kind": st.sampled_from(get_args(EventKind)) | _JSON},
    optional={
        name: _JSON
        | st.sampled_from([*ROLES])
        | st.fixed_dictionaries({"what": _JSON, "before": _JSON, "after": _JSON})
        for name in _FIELDS
    },
)


@given(lines=st.lists(st.text() | _JSON.map(json.dumps) | _NEARLY.map(json.dumps), max_size=8))
def test_no_line_ends_a_run(lines: list[str]) -> None:
    """Whatever stands in the file, the run is summed up: failures of a node are kept, times stay numbers."""
    total = tally(parsed for line in lines if (parsed := parse_event(line)) is not None)
    assert len(total.changes) == sum(total.changed.values())
    assert all(seconds >= 0 for _, seconds in total.play_seconds())
    assert all(failure.message and failure.task for failure in total.failures)


@given(data=st.binary(max_size=400), cut=st.integers(0, 400))
def test_a_file_of_anything_is_read_in_pieces_without_loss(data: bytes, cut: int) -> None:
    whole = _line("task", task="after").encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        tail = EventTail(path)
        path.write_bytes(data[:cut])
        list(tail.read())
        with path.open("ab") as out:
            out.write(data[cut:] + b"\n" + whole + b"\n")
        assert [event.task for event, _ in tail.read()][-1] == "after"
