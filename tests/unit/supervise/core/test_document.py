"""Documents are read strictly: what is wrong is named with its place, and what is written is read back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dspark_ops.supervise.core.model import (
    CanarySight,
    DocumentError,
    EngineSight,
    Event,
    FatalLine,
    Memory,
    NodeSight,
    Observation,
    RankSight,
    Settings,
    Wanted,
    from_document,
    needs_saving,
    to_document,
)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "settings: expected an object, found []"),
        ({}, "settings: memory_needed_gib is missing"),
        ({"memory_needed_gib": "97"}, "settings.memory_needed_gib: expected a number, found '97'"),
        ({"memory_needed_gib": True}, "expected a number, found True"),
        ({"memory_needed_gib": float("nan")}, "expected a finite number"),
        ({"memory_needed_gib": 97, "probes": 5}, "settings: unknown probes; known: memory_needed_gib"),
        ({"memory_needed_gib": 97, "budget": 4.5}, "settings.budget: expected a whole number, found 4.5"),
        ({"memory_needed_gib": 97, "budget": 0}, "budget is 0; expected 1 or more"),
        ({"memory_needed_gib": -1}, "memory_needed_gib is -1.0; expected 0 or more"),
        ({"memory_needed_gib": 97, "backoff_s": [60, 0]}, "expected seconds that do not decrease"),
        ({"memory_needed_gib": 97, "backoff_s": 60}, "settings.backoff_s: expected a list, found 60"),
        ({"memory_needed_gib": 97, "backoff_s": [0, "60"]}, "settings.backoff_s[1]: expected a number, found '60'"),
        ({"memory_needed_gib": 97, "jitter": 2}, "jitter is 2.0; expected a share between 0 and 1"),
        ({"memory_needed_gib": 97, "gap_s": 5}, "gap_s is 5; expected at least two probes (10 s)"),
        ({"memory_needed_gib": 97, "wedge_window_s": 1, "wedge_confirm_s": 1}, "must be longer than canary_timeout_s"),
    ],
)
def test_settings_that_are_wrong_are_named(document: object, words: str) -> None:
    with pytest.raises(DocumentError) as error:
        Settings.from_document(document)
    assert words in str(error.value)


def test_settings_hold_the_numbers_that_the_documentation_states() -> None:
    settings = Settings.from_document({"memory_needed_gib": 97})
    assert (settings.probe_s, settings.canary_s, settings.wedge_s, settings.drain_s) == (5, 15, 240, 30)
    assert settings.backoff_s == (0, 60, 300, 900, 1800)
    assert (settings.budget, settings.budget_window_s, settings.reset_s) == (4, 21600, 7200)


def test_an_observation_goes_through_json_and_back() -> None:
    seen = Observation(
        wall_s=1.7e9,
        monotonic_s=12.5,
        boot_id="b",
        head=NodeSight(by_management=True, rank=RankSight(state="exited", exit_code=0, epoch="e")),
        worker=NodeSight(by_fabric=False, fatal=(FatalLine(key="k", kind="xid", code=79, text="gone"),)),
        wanted=Wanted(release="r-1"),
        engine=EngineSight(health="ok", running=1, generation=7.0, kv_usage=0.5),
        canary=CanarySight(verdict="timeout", sent_s=1.0, ended_s=2.0),
        events=(Event(kind="died", role="head", epoch="e", exit_code=0),),
    )
    assert Observation.from_document(json.loads(json.dumps(to_document(seen)))) == seen


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": "running"}, "memory.state: expected one of starting, gate"),
        ({"boot_id": 7}, "memory.boot_id: expected text, found 7"),
        ({"attempts": [{"epoch": "e"}]}, "memory.attempts[0]: at is missing"),
        ({"since": {"monotonic_s": 1, "wall_s": None}}, "memory.since.wall_s: expected a number, found None"),
        ({"watch": {"prefilling": 1}}, "memory.watch.prefilling: expected true or false, found 1"),
    ],
)
def test_a_damaged_memory_is_named_and_never_guessed(change: dict[str, object], words: str) -> None:
    with pytest.raises(DocumentError) as error:
        Memory.from_document(Memory(seed="s").document() | change)
    assert words in str(error.value)


def test_a_rank_without_words_is_unknown_and_not_down() -> None:
    assert not from_document(RankSight, {}).down
    assert from_document(RankSight, {"state": "absent"}).down


@pytest.mark.parametrize(
    ("management", "fabric", "reachable"),
    [(None, None, None), (True, None, True), (False, True, True), (False, False, False), (False, None, False)],
)
def test_a_node_is_reached_by_any_path_and_unknown_when_none_was_tried(
    management: bool | None, fabric: bool | None, reachable: bool | None
) -> None:
    assert NodeSight(by_management=management, by_fabric=fabric).reachable is reachable


def test_only_what_matters_after_a_crash_is_saved_at_once() -> None:
    memory = Memory(seed="s", seen=replace(Memory(seed="s").since, monotonic_s=100.0))
    sampled = replace(memory, watch=replace(memory.watch, sample_s=105.0, generation=3.0))
    assert not needs_saving(memory, sampled)
    assert needs_saving(memory, replace(memory, watch=replace(memory.watch, prefilling=True)))
    assert needs_saving(memory, replace(memory, state="serving"))
    assert needs_saving(memory, replace(memory, seen=replace(memory.since, monotonic_s=161.0)))
