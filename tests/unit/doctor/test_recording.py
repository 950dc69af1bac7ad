"""A recording: the same findings from it as live, nothing secret in it, whole or refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.doctor import run
from dspark_ops.doctor.elsewhere import Elsewhere
from dspark_ops.doctor.engine import run_checks
from dspark_ops.doctor.recording import session, writing
from dspark_ops.doctor.recording.model import MANIFEST, SCHEMA_ID, Manifest
from dspark_ops.doctor.recording.reading import load
from dspark_ops.doctor.recording.writing import Recorded, files_of, names_of, write
from dspark_ops.doctor.run import Request
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.evidence.documents import redact_document
from dspark_ops.evidence.redaction import Redactor
from dspark_ops.facts.snapshot import pair_from, probes_for
from dspark_ops.report.models import Report
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.doctor.test_recorded_pair import SITE
from tests.unit.facts.captures import FIXTURES

KEY = b"k" * 32
MOMENT = datetime(2026, 11, 27, 17, 0, tzinfo=UTC)
WISHES = Request(site=Path("site.yml"), active=True)
PLANTED = "hf_Zq8Planted0Token1Of2The3Test4"
API_KEY = "planted-key-77af31"
PUBLIC = "81.2.69.142"
MAC = "4c:bb:47:01:1a:16"


@pytest.fixture(scope="module")
def readings() -> dict[Role, NodeReading]:
    return {
        role: NodeReading.model_validate_json((FIXTURES / f"rehearsal/{role}.json").read_text(encoding="utf-8"))
        for role in ROLES
    }


@pytest.fixture(scope="module")
def loaded(readings: dict[Role, NodeReading], tmp_path_factory: pytest.TempPathFactory) -> LoadedSite:
    image = (readings["head"].get("rank.inspect").stdout or "").split('"Image": "')[1].split('"')[0]
    path: Path = tmp_path_factory.mktemp("site") / "site.yml"
    path.write_text(SITE.format(image=image))
    return load_site(path, overrides=[f"serve.environment={{HF_TOKEN: {PLANTED}}}"], environ={})


def recorded_of(loaded: LoadedSite, readings: dict[Role, NodeReading]) -> Recorded:
    facts = pair_from(loaded.site, readings)
    report = run_checks(facts, loaded, active=True, started_at=MOMENT)
    probes = {role: probes_for(loaded.site, role, active_profile=loaded.profile) for role in ROLES}
    return Recorded(loaded, probes, readings, facts, MOMENT, report, True)


def said(report: Report, redactor: Redactor | None = None) -> list[Any]:
    """What a report says of the pair, without its times."""
    document = report.model_dump(mode="json", include={"findings", "verdict", "exit_code", "nodes", "next_step"})
    return [document if redactor is None else redact_document(redactor, document)]


def planted(readings: dict[Role, NodeReading], where: str, text: str) -> dict[Role, NodeReading]:
    """The readings with a text in one probe's answer."""
    found = dict(readings)
    head = found["head"]
    old = head.results.get(where, ProbeResult(id=where, rc=0, stdout=""))
    results = {**head.results, where: old.model_copy(update={"stdout": (old.stdout or "").rstrip("\n") + "\n" + text})}
    found["head"] = head.model_copy(update={"results": results})
    return found


def test_the_findings_are_the_same_live_and_from_the_recording(
    loaded: LoadedSite, readings: dict[Role, NodeReading], tmp_path: Path
) -> None:
    found = recorded_of(loaded, readings)
    assert found.report is not None
    redactor = Redactor(key=KEY)
    write(found, tmp_path / "rec", redactor=redactor)
    recording = load(tmp_path / "rec")
    again = session.replay(recording, WISHES)
    assert recording.report is not None
    assert said(again) == said(recording.report)
    assert said(again) == said(found.report, redactor)
    assert [(f.id, f.node, f.status) for f in again.findings] == [
        (f.id, f.node, f.status) for f in found.report.findings
    ]
    assert recording.manifest.recorded_at == MOMENT
    was = found.facts.model_dump(mode="json")
    assert recording.facts.model_dump(mode="json") == redact_document(redactor, was), "the same facts"


@pytest.mark.timeout(300)
@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from(["rank.tail", "kernel.log", "listeners.tcp", "links.addr", "docker.ps", "rank.inspect"]),
    st.sampled_from(
        [
            f"HF_TOKEN={PLANTED}\n",
            f"Authorization: Bearer {API_KEY}\n",
            f"--api-key {API_KEY}\n",
            f"https://u:{API_KEY}@hub/x\n",
            f"{PUBLIC} {MAC} fe80::4ebb:47ff:fe01:1a16\n",
            "x" * 300 + "\n",
        ]
    ),
    st.integers(0, 40),
)
def test_and_so_they_are_whatever_else_a_node_says(
    loaded: LoadedSite, readings: dict[Role, NodeReading], where: str, text: str, times: int
) -> None:
    found = recorded_of(loaded, planted(readings, where, text * times))
    assert found.report is not None
    redactor = Redactor(key=KEY)
    files = files_of(found, redactor)
    everything = b"".join(files.values()).decode()
    for secret in (PLANTED, API_KEY, PUBLIC, MAC):
        assert secret not in everything
    node = json.loads(files["head.json"])["reading"]
    facts = pair_from(
        loaded.site,
        {
            "head": NodeReading.model_validate(node),
            "worker": NodeReading.model_validate(json.loads(files["worker.json"])["reading"]),
        },
    )
    site = json.loads(files["site.json"])["site"]
    again = run_checks(facts, _loaded(loaded, site), active=True, started_at=MOMENT)
    assert said(again) == said(found.report, redactor)


def _loaded(loaded: LoadedSite, site: dict[str, Any]) -> LoadedSite:
    return LoadedSite(type(loaded.site).model_validate(site), loaded.profile, loaded.path, {})


def test_a_release_that_was_made_of_a_secret_stays_current(
    loaded: LoadedSite, readings: dict[Role, NodeReading], tmp_path: Path
) -> None:
    from dspark_ops.deploy.spec import render_pair

    release = render_pair(loaded.site, loaded.profile)["head"].release
    fresh = {}
    for role in ROLES:
        inspected = readings[role].get("rank.inspect").stdout or ""
        old = re.search(r"r-[0-9a-f]{12}", inspected)
        assert old is not None
        result = ProbeResult(id="rank.inspect", rc=0, stdout=inspected.replace(old[0], release))
        fresh[role] = readings[role].model_copy(update={"results": {**readings[role].results, "rank.inspect": result}})
    write(recorded_of(loaded, fresh), tmp_path / "rec")
    report = session.replay(load(tmp_path / "rec"), WISHES)
    assert [f.status for f in report.findings if f.id == "service.release_current"] == ["ok"]


def test_a_replay_says_that_it_is_one_and_of_when(
    loaded: LoadedSite, readings: dict[Role, NodeReading], tmp_path: Path
) -> None:
    found = recorded_of(loaded, readings)
    write(found, tmp_path / "rec")
    report = session.simulate(WISHES, tmp_path / "rec")
    assert found.report is not None
    assert report.verb == "doctor simulate"
    assert report.exit_code == found.report.exit_code
    assert report.message.startswith(f"replay of {tmp_path / 'rec'}, recorded 2026-11-27 17:00 UTC by dspark-ops ")
    assert "no node was asked" in report.message


def test_every_probe_is_kept_with_its_command_and_answer(whole: Path) -> None:
    node = json.loads((whole / "head.json").read_text())
    asked = {probe["id"]: probe for probe in node["probes"]}
    assert asked["rank.inspect"]["argv"] == ["docker", "container", "inspect", "dspark-rank"]
    assert node["reading"]["results"]["rank.inspect"]["rc"] == 0
    assert {p.stat().st_mode & 0o777 for p in whole.iterdir()} == {0o600}
    assert [p.name for p in whole.parent.iterdir()] == ["rec"], "nothing of the making is left"


def test_names_are_hidden_when_asked_for(loaded: LoadedSite, readings: dict[Role, NodeReading], tmp_path: Path) -> None:
    found = recorded_of(loaded, readings)
    write(found, tmp_path / "rec", redactor=Redactor(names=names_of(found.loaded, found.readings)))
    text = "".join(path.read_text() for path in (tmp_path / "rec").iterdir())
    assert "spark-head" not in text
    assert "spark-worker" not in text
    recording = load(tmp_path / "rec")
    assert recording.readings["head"].hostname == "head-host"
    assert recording.readings["head"].user == "user1"
    assert recording.loaded.site.nodes.head.host == "head-host"
    assert recording.report is not None
    assert [(f.id, f.status) for f in session.replay(recording, WISHES).findings] == [
        (f.id, f.status) for f in recording.report.findings
    ]


@pytest.mark.parametrize("make", ["file", "full"])
def test_it_goes_to_a_new_or_empty_directory(
    loaded: LoadedSite, readings: dict[Role, NodeReading], tmp_path: Path, make: str
) -> None:
    place = tmp_path / "rec"
    if make == "file":
        place.write_text("")
    else:
        place.mkdir()
        (place / "mine").write_text("")
    with pytest.raises(ConfigError):
        write(recorded_of(loaded, readings), place)
    assert make == "file" or [p.name for p in place.iterdir()] == ["mine"]


def test_an_empty_directory_is_filled(loaded: LoadedSite, readings: dict[Role, NodeReading], tmp_path: Path) -> None:
    (tmp_path / "rec").mkdir()
    write(recorded_of(loaded, readings), tmp_path / "rec")
    assert load(tmp_path / "rec").manifest.site == "lab"


def test_a_write_that_fails_leaves_nothing(
    loaded: LoadedSite, readings: dict[Role, NodeReading], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(NoVerdictError, match="No space left"):
        write(recorded_of(loaded, readings), tmp_path / "rec")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def whole(loaded: LoadedSite, readings: dict[Role, NodeReading], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("whole") / "rec"
    write(recorded_of(loaded, readings), place)
    return place


@pytest.fixture
def kept(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "rec"))


def _cut(kept: Path) -> None:
    (kept / "head.json").write_bytes((kept / "head.json").read_bytes()[:1000])


def _gone(kept: Path) -> None:
    (kept / "worker.json").unlink()


def _no_manifest(kept: Path) -> None:
    (kept / MANIFEST).unlink()


def _rubbish(kept: Path) -> None:
    (kept / MANIFEST).write_bytes(b"\xff\xfe\x00")


def _array(kept: Path) -> None:
    (kept / MANIFEST).write_text("[1, 2]")


def _later(kept: Path) -> None:
    (kept / MANIFEST).write_text((kept / MANIFEST).read_text().replace(SCHEMA_ID, "dspark-ops/recording/v2"))


def _edited(kept: Path) -> None:
    (kept / "site.json").write_text((kept / "site.json").read_text().replace("lab", "lub"))


def _no_worker(kept: Path) -> None:
    manifest = Manifest.model_validate_json((kept / MANIFEST).read_text())
    files = {name: file for name, file in manifest.files.items() if name != "worker.json"}
    (kept / MANIFEST).write_text(manifest.model_copy(update={"files": files}).model_dump_json(by_alias=True))


def _unknown_key(kept: Path) -> None:
    document = json.loads((kept / MANIFEST).read_text())
    (kept / MANIFEST).write_text(json.dumps(document | {"more": 1}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut, "is not as it was recorded"),
        (_gone, "cannot be read"),
        (_no_manifest, "cannot be read"),
        (_rubbish, "is no manifest of a recording"),
        (_array, "is no manifest of a recording"),
        (_later, "this version reads dspark-ops/recording/v1"),
        (_edited, "is not as it was recorded"),
        (_no_worker, "names no worker.json"),
        (_unknown_key, "more"),
    ],
)
def test_what_is_damaged_or_of_another_version_is_one_error(kept: Path, damage: Any, says: str) -> None:
    damage(kept)
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(kept)


def test_traffic_that_was_not_recorded_is_not_judged(
    loaded: LoadedSite, readings: dict[Role, NodeReading], tmp_path: Path
) -> None:
    found = recorded_of(loaded, readings)
    passive = Recorded(found.loaded, found.probes, found.readings, found.facts, MOMENT, found.report, False)
    write(passive, tmp_path / "rec")
    with pytest.raises(ConfigError, match="without --active"):
        session.simulate(WISHES, tmp_path / "rec")
    assert session.simulate(Request(site=Path("x")), tmp_path / "rec").findings


def test_recording_live_keeps_what_was_read(
    loaded: LoadedSite,
    readings: dict[Role, NodeReading],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    calls = []

    def read_pair(site: object, probes: Any, *, timeout_s: float) -> dict[Role, NodeReading]:
        calls.append(probes)
        return readings

    monkeypatch.setattr(run.snapshot, "read_pair", read_pair)
    wishes = Request(site=loaded.path)
    report, manifest = session.record(wishes, tmp_path / "rec")
    assert len(calls) == 1
    assert manifest.active is False
    again = session.simulate(wishes, tmp_path / "rec")
    assert again.exit_code == report.exit_code
    assert [(f.id, f.node, f.status) for f in again.findings] == [(f.id, f.node, f.status) for f in report.findings]


@pytest.mark.parametrize(
    ("options", "request_", "changes", "says"),
    [
        ({"hosts": ("a",)}, {}, False, "expected two hosts"),
        ({"hosts": ("a", "b", "c")}, {}, False, "expected two hosts"),
        ({"hosts": ("a", "b"), "simulate": Path("d")}, {}, False, "--simulate contacts no node"),
        ({"record": Path("e"), "simulate": Path("d")}, {}, False, "--simulate contacts no node"),
        ({"user": "me"}, {}, False, "go with HEAD WORKER"),
        ({"ssh_config": Path("c")}, {}, False, "go with HEAD WORKER"),
        ({"hide_names": True}, {}, False, "goes with --record"),
        ({"hosts": ("a", "b")}, {}, True, "--fix needs a site"),
        ({"simulate": Path("d")}, {}, True, "--fix needs a site"),
        ({"hosts": ("a", "b")}, {"overrides": ("x=1",)}, False, "--set changes a site file"),
        ({"simulate": Path("d")}, {"overrides": ("x=1",)}, False, "--set changes a site file"),
    ],
)
def test_options_that_do_not_go_together(
    options: dict[str, Any], request_: dict[str, Any], changes: bool, says: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Elsewhere(**options).check(Request(site=Path("s"), **request_), changes=changes)


def test_options_that_do() -> None:
    for options in ({}, {"record": Path("d")}, {"hosts": ("a", "b"), "record": Path("d"), "hide_names": True}):
        Elsewhere(**options).check(Request(site=Path("s"), overrides=()), changes=False)  # type: ignore[arg-type]
    Elsewhere().check(Request(site=Path("s"), overrides=("a=1",)), changes=True)
    assert not Elsewhere().used


def test_hidden_names_leave_addresses_what_they_are(loaded: LoadedSite, readings: dict[Role, NodeReading]) -> None:
    """A host that is named by its address: the API's own address must stay one."""
    address = "192.168.1.10"
    document = loaded.site.model_dump(mode="json")
    document["nodes"]["head"]["host"] = document["serve"]["api_host"] = address
    named = dataclasses.replace(loaded, site=Site.model_validate(document))
    found = recorded_of(named, readings)
    files = files_of(found, Redactor(names=names_of(named, readings)))
    site = json.loads(files["site.json"])["site"]
    assert (site["serve"]["api_host"], site["nodes"]["head"]["host"]) == (address, address)
    assert site["nodes"]["worker"]["host"] == "worker-host"


def test_hidden_names_hide_whose_machine_this_is(
    loaded: LoadedSite, readings: dict[Role, NodeReading], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing.pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="alice"))
    for home in ("/home", "/Users"):
        named = dataclasses.replace(loaded, path=Path(f"{home}/alice/pair/site.yml"))
        found = recorded_of(named, readings)
        files = files_of(found, Redactor(names=names_of(named, readings)))
        assert b"alice" not in b"".join(files.values())


def test_what_was_found_must_be_of_this_version(
    loaded: LoadedSite, readings: dict[Role, NodeReading], tmp_path: Path
) -> None:
    found = dataclasses.replace(recorded_of(loaded, readings), found={"of another": "version"})
    write(found, tmp_path / "rec")
    with pytest.raises(ConfigError, match=r"site\.json"):
        session.simulate(WISHES, tmp_path / "rec")
