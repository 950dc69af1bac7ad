"""Reclaiming: by consent, told truthfully, and never a reason for a deploy to fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskEvent, TaskFailure
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import RefusedError
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.memory import reclaim as module
from dspark_ops.memory.reclaim import Reclaimed, reclaim, reclaim_plan
from dspark_ops.report.models import Change
from dspark_ops.report.recorder import Recorder
from tests.unit.memory.conftest import kib, pair_with

SAID = {"what": "page cache: dropped", "before": "1.0 GiB free", "after": "9.0 GiB free", "reason": "it holds 8.0 GiB"}


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, make_site: Callable[..., Site], tmp_path: Path) -> Callable[..., Any]:
    """Reclaim with a playbook run that is played: events by node, and failures."""

    def go(
        events: dict[Role, tuple[str, dict[str, Any]]],
        *,
        roles: tuple[Role, ...] = ROLES,
        site_consents: bool = True,
        consented: bool = False,
        failures: tuple[TaskFailure, ...] = (),
    ) -> tuple[dict[Role, Reclaimed], Recorder, dict[str, Any]]:
        asked: dict[str, Any] = {}

        def run(name: str, _: object, **words: Any) -> PlayResult:
            asked.update({"name": name, **words})
            for node, (kind, summary) in events.items():
                words["on_event"](TaskEvent(kind=cast("Any", kind), node=node, summary=summary))
            changed: dict[Role, int] = {role: int(events.get(role, ("", {}))[0] == "changed") for role in ROLES}
            changes = tuple(Change(node=role, what="x", diff="-a+b") for role in ROLES if changed[role])
            return PlayResult(0, changed, changes, failures, (), 1.0, tmp_path / "log")

        monkeypatch.setattr(module, "run_playbook", run)
        loaded = cast("LoadedSite", SimpleNamespace(site=make_site(reclaim=site_consents)))
        recorder = Recorder("deploy", "desk", lambda _: None)
        return reclaim(loaded, recorder, roles, consented=consented), recorder, asked

    return go


def test_without_consent_nothing_is_run(play: Callable[..., Any]) -> None:
    with pytest.raises(RefusedError, match="not consented"):
        play({}, site_consents=False)


def test_consent_is_the_sites_or_given_once(play: Callable[..., Any]) -> None:
    for words in ({"site_consents": True}, {"site_consents": False, "consented": True}):
        done, _, asked = play({"head": ("changed", SAID), "worker": ("changed", SAID)}, **words)
        assert asked["name"] == "memory.yml"
        assert [item.dropped for item in done.values()] == [True, True]


def test_only_the_nodes_that_are_named_are_asked(play: Callable[..., Any]) -> None:
    done, _, asked = play({"worker": ("changed", SAID)}, roles=("worker",))
    assert asked["host_variables"] == {
        "head": {"memory_reclaim_wanted": False},
        "worker": {"memory_reclaim_wanted": True},
    }
    assert list(done) == ["worker"]
    assert done["worker"].text() == "worker: page cache dropped, 1.0 GiB free before, 9.0 GiB free after"


def test_no_node_is_no_run(play: Callable[..., Any]) -> None:
    done, _, asked = play({}, roles=())
    assert (done, asked) == ({}, {})


def test_a_node_with_nothing_to_gain_and_one_that_refuses_are_reported_and_no_failure(play: Callable[..., Any]) -> None:
    left = {**SAID, "reason": "the page cache holds 0.1 GiB: nothing to gain"}
    refused = {**SAID, "refused": ["/proc/sys/vm/compact_memory: Permission denied"]}
    done, recorder, _ = play({"head": ("ok", left), "worker": ("changed", refused)})
    assert done["head"].dropped is False
    assert done["head"].text() == "head: the page cache holds 0.1 GiB: nothing to gain"
    assert "the kernel refused /proc/sys/vm/compact_memory: Permission denied" in done["worker"].text()
    assert [(change.node, change.diff) for change in recorder.changes] == [("worker", None)]


def test_a_node_that_was_lost_is_not_said_to_be_done(play: Callable[..., Any]) -> None:
    failure = TaskFailure(node="worker", task="Drop", message="not reachable")
    done, _, _ = play({"head": ("changed", SAID)}, failures=(failure,))
    assert (done["worker"].dropped, done["worker"].why) == (None, "not reachable")


def test_the_plan_names_the_nodes_whose_cache_is_worth_it_and_not_those_it_cannot_read() -> None:
    large = MemoryFacts(mem_total_kib=kib(121.7), mem_available_kib=kib(100), mem_free_kib=kib(60))
    small = MemoryFacts(mem_total_kib=kib(121.7), mem_available_kib=kib(100), mem_free_kib=kib(99.5))
    pair = pair_with({"head": 1, "worker": 1}, head={"memory": large}, worker={"memory": small})
    assert reclaim_plan(pair) == {"head": "drop the page cache (about 40.0 GiB) and compact memory on head"}
    unread = pair_with({"head": 1, "worker": 1}, worker={"memory": None})
    assert reclaim_plan(unread) == {}
