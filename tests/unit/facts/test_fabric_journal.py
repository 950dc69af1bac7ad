"""The node's journal as the control host reads it: its state, who reverted, and what could not be put back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.facts.fabric_journal import parse_journal

OPEN = {
    "schema": "dspark-ops/journal/v2",
    "id": "20261125T020633.120001",
    "kind": "apply",
    "state": "open",
    "files": [],
}
REVERTED = OPEN | {
    "state": "reverted",
    "reverted": {"why": "boot", "at": "2026-11-25T02:07:01+00:00", "took_s": 0.18, "differences": []},
}
INCOMPLETE = OPEN | {
    "state": "revert-incomplete",
    "reverted": {"why": "timer", "at": "2026-11-25T02:07:01+00:00", "differences": ["enP7s7 lacks 10.77.77.11/24"]},
}


def test_an_open_entry_has_no_revert() -> None:
    entry = parse_journal(json.dumps(OPEN))
    assert entry is not None
    assert (entry.state, entry.why, entry.differences) == ("open", None, ())


def test_a_revert_says_who_did_it_and_what_is_left() -> None:
    done, half = parse_journal(json.dumps(REVERTED)), parse_journal(json.dumps(INCOMPLETE))
    assert done is not None
    assert (done.state, done.why, done.differences) == ("reverted", "boot", ())
    assert half is not None
    assert (half.state, half.why, half.differences) == ("revert-incomplete", "timer", ("enP7s7 lacks 10.77.77.11/24",))


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"state": "open"}', '{"id": 7, "state": "open"}'])
def test_what_is_not_a_whole_entry_is_none(text: str | None) -> None:
    assert parse_journal(text) is None


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    parse_journal(text)


@given(st.integers(min_value=0, max_value=len(json.dumps(REVERTED)) - 1))
def test_half_a_file_is_none(length: int) -> None:
    """What a power cut leaves of a file that is not replaced as a whole."""
    assert parse_journal(json.dumps(REVERTED)[:length]) is None
