"""The configuration of the daemon, as the daemon itself reads it; what can be read back of it; and what cannot."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.supervise import SuperviseSite
from dspark_ops.deploy.apply import Documents
from dspark_ops.deploy.spec import render_pair
from dspark_ops.errors import ConfigError
from dspark_ops.facts.rank import LABEL
from dspark_ops.supervise.control.document import NOTHING, Adopted, adopt, kept_stopped, read_told, render
from dspark_ops.supervise.core.settings import Settings
from dspark_ops.supervise.node.config import Config
from tests.unit.deploy.conftest import SiteMaker
from tests.unit.supervise.control.conftest import DOOR, TOTAL


def kept(loaded: LoadedSite, epoch: str = "e1") -> Adopted:
    return adopt(Documents.of(render_pair(loaded.site, loaded.profile), epoch))


def test_the_daemon_starts_what_the_deploy_started(loaded: LoadedSite) -> None:
    specs = render_pair(loaded.site, loaded.profile)
    config = Config.from_document(render(loaded, kept(loaded), DOOR, TOTAL))
    for role in ("head", "worker"):
        assert config.spec(role, "e9") == specs[role].document("e9")
    assert config.wanted == "serving"
    assert config.worker.addresses == (("management", "192.168.7.12"), ("fabric", "10.77.0.2"))
    assert config.api.url == "http://127.0.0.1:8000"
    assert config.api.canary.expect == loaded.profile.canary.expect


def test_the_same_release_is_the_same_file_under_every_epoch(loaded: LoadedSite) -> None:
    """A second installation after restarts of the supervisor's own changes nothing."""
    files = {json.dumps(render(loaded, kept(loaded, epoch), DOOR, TOTAL)) for epoch in ("e1", "e2")}
    assert len(files) == 1
    assert f"{LABEL}epoch" not in files.pop()


def test_thresholds_come_from_the_site(make_site: SiteMaker) -> None:
    site = make_site(
        "supervise.canary_every_s=7",
        "supervise.wedge_after_s=100",
        "supervise.restarts=2",
        "supervise.alert_webhook=https://alerts.lan/dspark",
        "guards.memory_floor_gib=3",
        "guards.ready_timeout_s=77",
    )
    document = render(site, NOTHING, DOOR, TOTAL)
    settings = Settings.from_document(document["settings"])
    assert (settings.canary_s, settings.wedge_s, settings.budget, settings.start_limit_s) == (7.0, 100.0, 2, 77.0)
    assert settings.memory_needed_gib > 3.0
    assert document["webhook"] == "https://alerts.lan/dspark"


def test_what_a_rank_needs_follows_from_its_share_of_the_memory(make_site: SiteMaker) -> None:
    site = make_site("serve.gpu_memory_utilization=0.5", "serve.kv_cache_memory_mib=null")
    document = render(site, NOTHING, DOOR, {"head": 100.0, "worker": 120.0})
    assert document["settings"]["memory_needed_gib"] >= 60.0


@pytest.mark.parametrize("state", ["serving", "stopped", "nothing"])
def test_what_was_told_is_read_back(loaded: LoadedSite, state: str) -> None:
    adopted = {"serving": kept(loaded), "stopped": kept_stopped(kept(loaded)), "nothing": NOTHING}[state]
    told = read_told(json.dumps(render(loaded, adopted, DOOR, TOTAL)))
    assert told is not None
    assert (told.site, told.door, told.adopted.wanted) == ("desk", DOOR, adopted.wanted)
    assert told.adopted.release == adopted.release
    assert render(loaded, told.adopted, told.door, TOTAL) == render(loaded, adopted, DOOR, TOTAL)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"schema": "dspark-ops/supervise-config/v9"}'])
def test_a_file_that_is_not_ours_or_not_whole_is_nothing_known(text: str | None) -> None:
    assert read_told(text) is None


def test_a_wedge_that_a_slow_canary_would_outlast_is_refused(make_site: SiteMaker) -> None:
    with pytest.raises(ConfigError, match="wedge_after_s is 60, expected more than canary_timeout_s"):
        make_site("supervise.wedge_after_s=60")


@pytest.mark.parametrize("url", ["alerts.lan", "ftp://x/", "https://user:secret@alerts.lan/"])
def test_a_webhook_is_a_plain_url_without_a_password(url: str) -> None:
    with pytest.raises(ValidationError):
        SuperviseSite(alert_webhook=url)
