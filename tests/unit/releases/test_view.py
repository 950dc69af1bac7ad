"""The list and one release as people and programs read them."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings

from dspark_ops.releases.model import Difference, GateResult, Release
from dspark_ops.releases.store import Kept, Unreadable
from dspark_ops.releases.view import duration, list_releases, render_list, render_show, show_document
from tests.unit.releases.releases import BEGAN, at, document, release, releases, start

A, B, C = "r-aaaaaaaaaaaa", "r-bbbbbbbbbbbb", "r-cccccccccccc"
PASSED = GateResult(command=("g",), outcome="passed", rc=0, started_at=BEGAN, elapsed_s=1.0, message="the gate passed")


def kept() -> Kept:
    return Kept(
        (
            release(C, 30, start=start("e3", 30, "failed")),
            release(B, 20, start=start("e2", 20, gate=PASSED)),
            release(A, 0),
        ),
        (Unreadable(Path("/state/r-dd.json"), "schema: wrong"),),
    )


def test_the_list_marks_what_served_last_and_where_a_rollback_leads() -> None:
    found = list_releases("desk", kept(), at(41))
    assert (found.current, found.previous) == (B, A)
    rows = {row.id: row for row in found.releases}
    assert [row.id for row in found.releases] == [C, B, A]
    assert (rows[B].mark, rows[A].mark, rows[C].mark) == ("current", "previous", None)
    assert rows[B].served_s == 20 * 60
    assert rows[A].served_s == 20 * 60
    assert rows[C].served_s is None
    assert (rows[B].gate, rows[A].gate) == ("passed", None)


def test_the_table_names_each_release_once_and_each_bad_file() -> None:
    text = render_list(list_releases("desk", kept(), at(41)))
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == [C, "*", "<"]
    assert "never (2026-11-27 12:30:00Z)" in lines[1]
    assert lines[1].endswith("failed")
    assert "20 min 0 s  passed  served" in lines[2]
    assert "/state/r-dd.json: not a readable release: schema: wrong" in text
    assert "no release is kept" in render_list(list_releases("desk", Kept(()), at(0)))


def test_what_ran_otherwise_than_asked_is_in_the_list() -> None:
    wrong = (Difference(role="head", what="env", name="X", asked="1", effective="2"),)
    one = release(A, differences=wrong)
    assert "served, not as asked" in render_list(list_releases("desk", Kept((one,)), at(41)))
    assert "head: env X: asked '1', runs with '2'" in render_show(one)
    assert "not compared" in render_show(release(A))
    assert "are as asked" in render_show(release(A, differences=()))


def test_one_release_is_shown_whole_and_without_its_secrets() -> None:
    secret = {"HF_TOKEN": "hf_x", "NCCL_DEBUG": "WARN"}
    asked = document("head", env=secret, command=["vllm", "serve", "--api-key", "sk-x"])
    one = release(A, documents={"head": asked, "worker": document("worker")}, start=start("e", 0, gate=PASSED))
    text = render_show(one)
    shown = text + json.dumps(show_document(one))
    assert "hf_x" not in shown
    assert "sk-x" not in shown
    for words in (
        A,
        "profile rehearsal",
        "NCCL_DEBUG=WARN",
        "--api-key\n",
        "<hidden>",
        "gate     passed",
        "MemTotal 128.0 GiB",
    ):
        assert words in text
    assert show_document(one)["schema"] == "dspark-ops/release/v1"


@settings(deadline=None, max_examples=60)
@given(releases(), releases())
def test_whatever_is_kept_can_be_shown(one: Release, other: Release) -> None:
    assert one.id in render_show(one)
    assert one.id in render_list(list_releases("desk", Kept((one, other)), at(0)))


def test_durations_have_two_units_at_most() -> None:
    seconds = (0, 59.9, 60, 3599, 3600, 86399, 86400 * 3 + 3600 * 4)
    told = [duration(s) for s in seconds]
    assert told == ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "23 h 59 min", "3 d 4 h"]
