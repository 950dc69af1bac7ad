"""The kept releases: what is written comes back, a bad file harms no other, "previous" is what one means by it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.releases import store
from dspark_ops.releases.model import EffectiveRank, Release, with_epoch, without_epoch
from tests.unit.releases.releases import CONTAINER, document, release, releases, start

A, B, C = "r-aaaaaaaaaaaa", "r-bbbbbbbbbbbb", "r-cccccccccccc"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "dspark-ops" / "releases" / "desk"


@settings(deadline=None, max_examples=100)
@given(releases())
def test_a_release_survives_its_file(one: Release) -> None:
    assert Release.model_validate_json(one.to_json()) == one


def test_it_is_kept_for_its_owner_alone_and_comes_back(state: Path) -> None:
    secret = release(A, documents={r: document(r, env={"HF_TOKEN": "hf_x"}) for r in ("head", "worker")})
    path = store.save(secret)
    assert path == state / f"{A}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert store.load("desk", A) == secret
    assert [p.name for p in state.iterdir()] == [path.name]
    assert "hf_x" not in secret.shown().to_json()
    assert "hf_x" in path.read_text()


def test_digests_of_hidden_values_are_never_written() -> None:
    rank = EffectiveRank(container=CONTAINER, argv=("vllm",), env={}, digests={"env HF_TOKEN": "f" * 64})
    one = release(A, effective={"head": rank})
    assert "f" * 64 not in one.to_json()
    assert "f" * 64 not in repr(one)


def test_starts_of_one_id_are_remembered_newest_first_and_each_once() -> None:
    for minutes in (0, 10, 20):
        store.save(release(A, minutes))
    store.mark("desk", A, "rolled-back", "for another")
    kept = store.load("desk", A)
    assert kept is not None
    assert [s.epoch for s in kept.starts] == [f"{A}-20", f"{A}-10", f"{A}-0"]
    assert (kept.start.status, kept.start.reason) == ("rolled-back", "for another")
    assert kept.start.ended_at is not None
    assert store.mark("desk", B, "failed") is None


def test_a_release_that_was_stopped_still_is_the_one_that_served() -> None:
    store.save(release(A))
    stopped = store.ended("desk", A)
    assert stopped is not None
    assert stopped.start.ended_at is not None
    assert store.current("desk") == stopped
    assert store.ended("desk", B) is None


def test_an_older_start_that_is_saved_again_does_not_lose_the_newer_one() -> None:
    store.save(release(A, 10))
    store.save(release(A, 0))
    kept = store.load("desk", A)
    assert kept is not None
    assert {s.epoch for s in kept.starts} == {f"{A}-0", f"{A}-10"}


def test_nothing_kept_is_nothing_and_no_error() -> None:
    assert store.all_of("desk") == store.Kept(())
    assert store.current("desk") is None
    assert store.previous("desk") is None
    assert store.previous("desk", A) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 1}', "\udcff", None])
def test_a_file_that_is_no_release_is_named_and_harms_no_other(state: Path, text: str | None) -> None:
    store.save(release(A))
    bad = state / f"{B}.json"
    if text is None:
        bad.write_text(release(C).to_json())
    else:
        bad.write_text(text, errors="surrogateescape")
    kept = store.all_of("desk")
    assert [r.id for r in kept.releases] == [A]
    assert [item.path for item in kept.unreadable] == [bad]
    assert kept.unreadable[0].why
    assert store.load("desk", B) is None
    with pytest.raises(ConfigError, match=B):
        store.match("desk", B)


def test_a_release_of_a_newer_tool_is_named_not_guessed_at(state: Path) -> None:
    store.save(release(A))
    path = state / f"{A}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "dspark-ops/release/v2"}))
    assert "schema" in store.all_of("desk").unreadable[0].why


def test_saving_replaces_a_file_that_cannot_be_read(state: Path) -> None:
    state.mkdir(parents=True)
    (state / f"{A}.json").write_text("{")
    store.save(release(A))
    assert store.load("desk", A) == release(A)


def test_a_state_directory_that_cannot_be_written_is_one_clear_error(state: Path) -> None:
    state.parent.mkdir(parents=True)
    state.write_text("a file in the way")
    with pytest.raises(NoVerdictError, match="cannot be kept"):
        store.save(release(A))


def test_current_is_the_last_that_served_and_previous_the_one_before() -> None:
    for identity, minutes in ((A, 0), (B, 10), (C, 20)):
        store.save(release(identity, minutes))
    assert [r.id for r in store.all_of("desk").releases] == [C, B, A]
    assert store.current("desk") == store.load("desk", C)
    for before, expected in ((None, B), (C, B), (B, A), (A, None)):
        found = store.previous("desk", before)
        assert (found.id if found else None) == expected


def test_a_start_that_failed_does_not_count_but_an_earlier_one_of_it_does() -> None:
    store.save(release(A, 0))
    store.save(release(B, 10))
    store.save(release(A, 20, start=start("e-failed", 20, "failed")))
    current, previous = store.current("desk"), store.previous("desk")
    assert current is not None
    assert previous is not None
    assert (current.id, previous.id) == (B, A)


def test_after_a_rollback_the_undone_release_is_neither() -> None:
    store.save(release(A, 0))
    store.save(release(B, 10))
    store.mark("desk", B, "rolled-back")
    store.save(release(A, 20))
    current = store.current("desk")
    assert current is not None
    assert current.id == A
    assert store.previous("desk") is None
    assert store.previous("desk", A) is None


def test_a_release_that_served_twice_and_was_then_undone_is_not_current_for_its_first_time() -> None:
    for identity, minutes in ((A, 0), (B, 10), (B, 20)):
        store.save(release(identity, minutes))
    undone = store.mark("desk", B, "rolled-back")
    assert undone is not None
    assert undone.served_at is None
    current = store.current("desk")
    assert current is not None
    assert current.id == A


def test_back_and_forth_by_deploys_leads_to_the_other_one() -> None:
    for identity, minutes in ((A, 0), (B, 10), (A, 20)):
        store.save(release(identity, minutes))
    previous = store.previous("desk", A)
    assert previous is not None
    assert previous.id == B


def test_an_id_that_never_served_goes_back_to_the_last_that_did() -> None:
    store.save(release(A, 0))
    store.save(release(B, 10))
    store.save(release(C, 20, start=start("e", 20, "failed")))
    for before in (C, "r-dddddddddddd"):
        previous = store.previous("desk", before)
        assert previous is not None
        assert previous.id == B


def test_ids_match_by_a_prefix_that_is_unique() -> None:
    store.save(release("r-aaaaaaaaaaaa"))
    store.save(release("r-aabbbbbbbbbb", 1))
    assert store.match("desk", "r-aab").id == "r-aabbbbbbbbbb"
    assert store.match("desk", "aaa").id == "r-aaaaaaaaaaaa"
    with pytest.raises(ConfigError, match=r"r-aaaaaaaaaaaa, r-aabbbbbbbbbb"):
        store.match("desk", "r-aa")
    with pytest.raises(ConfigError, match=r"none that begins so; known: r-aabbbbbbbbbb, r-aaaaaaaaaaaa"):
        store.match("desk", "r-c")
    for nothing in ("", "r-"):
        with pytest.raises(ConfigError):
            store.match("desk", nothing)


def test_a_whole_id_matches_even_when_another_begins_with_it() -> None:
    store.save(release("r-aaaaaa"))
    store.save(release("r-aaaaaabb", 1))
    assert store.match("desk", "r-aaaaaa").id == "r-aaaaaa"


def test_a_document_gets_the_epoch_of_each_start() -> None:
    asked = document("head")
    once = with_epoch(asked, "e1")
    assert once["labels"]["io.dspark-ops.epoch"] == "e1"
    assert without_epoch(once) == asked
