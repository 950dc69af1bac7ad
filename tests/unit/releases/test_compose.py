"""A start as a record: what was asked, seen and measured; another start of a kept release; the gate on top of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.config.models import ROLES
from dspark_ops.deploy.apply import Documents
from dspark_ops.deploy.spec import CACHE_ROOT, cache_volume, render_pair
from dspark_ops.releases.compose import again, compose
from dspark_ops.releases.effective import ReadBack, effective, host_of
from dspark_ops.releases.gate import run_gate
from dspark_ops.releases.model import Release, site_digest, with_epoch
from dspark_ops.report.models import Phase
from dspark_ops.transport.base import NodeReading
from dspark_ops.transport.ssh import SshRunner, SshTarget
from tests.unit.deploy.conftest import IMAGE_ID, SITE
from tests.unit.releases.releases import at, whole_reading


@pytest.fixture
def load(tmp_path: Path) -> object:
    path = tmp_path / "site.yml"
    path.write_text(SITE)
    (tmp_path / "image.tar").write_bytes(b"")
    return lambda *overrides: load_site(path, overrides=overrides, environ={})


@pytest.fixture
def loaded(load: object) -> LoadedSite:
    assert callable(load)
    one = load()
    assert isinstance(one, LoadedSite)
    return one


def documents(loaded: LoadedSite, epoch: str) -> Documents:
    return Documents.of(render_pair(loaded.site, loaded.profile), epoch)


def seen_as_asked(asked: Documents) -> ReadBack:
    readings: dict[str, NodeReading] = {}
    for role in ROLES:
        document = asked.per_role[role]
        argv = ["/usr/bin/python3", "/usr/local/bin/vllm", *document["command"][1:]]
        readings[role] = whole_reading(role, argv, {"PATH": "/opt/bin:/bin", **document["env"]})
    return ReadBack(
        effective=effective(readings),  # type: ignore[arg-type]
        hosts={role: host_of(readings[role], f"spark-{role}") for role in ROLES},
        images=dict.fromkeys(ROLES, IMAGE_ID),
        why={},
    )


def test_a_start_that_served_has_all_of_it(loaded: LoadedSite) -> None:
    asked = documents(loaded, "e1")
    phases = [
        Phase(name="head", status="done", elapsed_s=1.5),
        Phase(name="gate", status="failed", elapsed_s=9.0),
    ]
    one = compose(
        loaded, asked.per_role, seen_as_asked(asked), status="served", started_at=at(0), ready_at=at(1), phases=phases
    )
    assert one.id == asked.release
    assert (one.site, one.profile) == ("desk", "rehearsal")
    assert one.differences == ()
    assert one.image.per_rank == dict.fromkeys(ROLES, IMAGE_ID)
    assert (one.cache.volume, one.cache.root) == (cache_volume(IMAGE_ID), CACHE_ROOT)
    assert one.start.phases_s == {"head": 1.5}
    assert one.start.epoch == "e1"
    assert one.hosts["head"].hostname == "host-head"
    assert all("io.dspark-ops.epoch" not in one.documents[role]["labels"] for role in ROLES)
    assert {role: with_epoch(one.documents[role], "e1") for role in ROLES} == asked.per_role
    assert Release.model_validate_json(one.to_json()).documents == one.documents


def test_a_start_of_which_nothing_was_read_back_was_not_compared(loaded: LoadedSite) -> None:
    one = compose(loaded, documents(loaded, "e1").per_role, None, status="failed", started_at=at(0), reason="no memory")
    assert (one.differences, one.effective, one.hosts, one.image.per_rank) == (None, {}, {}, {})
    assert (one.start.status, one.start.reason, one.served_at) == ("failed", "no memory", None)


def test_another_start_keeps_what_the_release_is_and_says_what_was_seen_now(loaded: LoadedSite) -> None:
    first = documents(loaded, "e1")
    one = compose(loaded, first.per_role, None, status="served", started_at=at(0), ready_at=at(1))
    second = again(one, "e2", seen_as_asked(first), status="served", started_at=at(10), ready_at=at(11))
    assert (second.id, second.documents, second.site_digest) == (one.id, one.documents, one.site_digest)
    assert second.differences == ()
    assert [start.epoch for start in second.starts] == ["e2", "e1"]


def test_another_start_that_was_not_read_back_does_not_borrow_what_an_earlier_one_ran(loaded: LoadedSite) -> None:
    asked = documents(loaded, "e1")
    one = compose(loaded, asked.per_role, seen_as_asked(asked), status="served", started_at=at(0), ready_at=at(1))
    second = again(one, "e2", None, status="served", started_at=at(10), ready_at=at(11))
    assert (second.effective, second.differences, second.hosts, second.image.per_rank) == ({}, None, {}, {})


def test_the_digest_of_a_site_follows_every_key(load: object) -> None:
    assert callable(load)
    assert site_digest(load().site) == site_digest(load().site)
    assert site_digest(load("guards.ready_timeout_s=99").site) != site_digest(load().site)


def test_without_a_gate_there_is_no_result_and_nobody_is_asked(loaded: LoadedSite) -> None:
    runner = SshRunner("head", SshTarget("spark-head", "127.0.0.1", 1, None, (), (), None, 1.0))
    assert run_gate(loaded, runner, "r-1", print) is None


def test_a_gate_without_a_way_to_the_api_is_not_started(load: object, tmp_path: Path) -> None:
    assert callable(load)
    runner = SshRunner("head", SshTarget("spark-head", "127.0.0.1", 1, None, (), (), None, 1.0))
    result = run_gate(load(f"gate.command=[touch, {tmp_path}/started]"), runner, "r-1", print)
    assert result is not None
    assert (result.outcome, result.passed, result.rc) == ("not-startable", False, None)
    assert result.message.startswith("the gate was not started: spark-head")
    assert not (tmp_path / "started").exists()
