"""`tenants restore` and the records it rests on: what is owed, what could not be told, what is left and why."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.ansible_run.events import PlayResult, TaskEvent, TaskFailure
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy import reach
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Recorder
from dspark_ops.tenants import played, records
from dspark_ops.tenants import restore as subject
from dspark_ops.tenants.restore import restore, restore_verb
from dspark_ops.transport.base import Files, NodeReading, ProbeResult

FOLDER = records.FOLDER


def record(key: str = "container:comfyui", state: str = "stopped", n: int = 1, **more: Any) -> str:
    told = {
        "schema": records.SCHEMA,
        "run": "r1",
        "n": n,
        "key": key,
        "kind": key.split(":", 1)[0],
        "what": "ComfyUI",
        "state": state,
        "intended_at": f"2026-11-27T10:00:0{n}+00:00",
        "held_kib": 3 << 20,
        "recorded": {"argv": ["python3", "serve.py"]},
    }
    return json.dumps(told | more)


def reading(role: Role, *texts: str, **more: Any) -> NodeReading:
    files = {f"{FOLDER}/r1-{n}.json": text for n, text in enumerate(texts)}
    given = {"reachable": True, "sudo": True, "results": {"tenants.records": ProbeResult(id="x", files=files)}}
    return NodeReading(node=role, **(given | more))


def test_the_environment_of_a_process_is_never_asked_for() -> None:
    from fnmatch import fnmatch

    probe = records.PROBES[0]
    assert isinstance(probe, Files)
    assert probe.root
    asked = [
        name
        for name in ("r1-1.json", "r1-12.json", "r1-1.env.json", ".lock", ".r1-1.json.dspark-tmp")
        if not name.startswith(".") and fnmatch(f"{FOLDER}/{name}", probe.patterns[0])
    ]
    assert asked == ["r1-1.json", "r1-12.json"]


def test_what_is_owed_is_what_was_not_given_back() -> None:
    states = ("stopped", "restored", "intended", "ended", "superseded", "forgotten")
    head = reading("head", *(record(state=state, n=n) for n, state in enumerate(states)))
    found = records.owed({"head": head, "worker": reading("worker")})
    assert [r.state for r in found["head"] or ()] == ["stopped", "intended"]
    assert found["worker"] == ()


@pytest.mark.parametrize(
    "unread",
    [
        reading("head", reachable=False),
        reading("head", sudo=False),
        reading("head", results={"tenants.records": ProbeResult(id="x", error="no answer")}),
        reading("head", record(), '{"schema": "dspark-ops/tenant/v1", "run":'),
        reading("head", record(schema="dspark-ops/tenant/v9")),
    ],
    ids=["unreachable", "without sudo", "no answer", "cut off", "another schema"],
)
def test_what_cannot_be_read_is_not_nothing(unread: NodeReading) -> None:
    assert records.owed({"head": unread}) == {"head": None}


LEAVES = st.none() | st.booleans() | st.integers() | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
NAMES = st.sampled_from(list(json.loads(record())))


@settings(deadline=None)
@given(st.dictionaries(NAMES, JSON))
def test_no_record_breaks_the_reader(changes: dict[str, Any]) -> None:
    found = records.parse_record("/x", json.dumps(json.loads(record()) | changes))
    assert found is None or found.owed is (found.state in ("intended", "stopped"))


@settings(deadline=None)
@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    records.parse_record("/x", text)


class Played:
    """The nodes' records and answers, and what they were asked."""

    def __init__(self) -> None:
        self.records: dict[Role, tuple[str, ...]] = {"head": (record(),), "worker": ()}
        self.answers: dict[Role, list[dict[str, Any]]] = {"head": [answer()], "worker": []}
        self.failure: str | None = None
        self.asked: list[tuple[dict[Role, list[str]], Mapping[str, Any], bool]] = []

    def read(self, _site: Any, _probes: Any) -> dict[Role, NodeReading]:
        return {role: reading(role, *self.records[role]) for role in ROLES}

    def play(self, name: str, _loaded: LoadedSite, *, check: bool, **more: Any) -> PlayResult:
        assert (name, more["tags"]) == ("tenants.yml", ("restore",))
        keys = {role: json.loads(base64.b64decode(more["host_variables"][role]["tenants_document"])) for role in ROLES}
        self.asked.append((keys, more["variables"], check))
        for role in ROLES:
            event = TaskEvent("ok", task=played.RESTORE, node=role, summary={"tenants": self.answers[role]})
            more["on_event"](event)
        failures = (TaskFailure("worker", "x", self.failure),) if self.failure else ()
        return PlayResult(2 if failures else 0, dict.fromkeys(ROLES, 0), (), failures, (), 1.0, Path("/log"))


def answer(key: str = "container:comfyui", outcome: str = "restored", **more: Any) -> dict[str, Any]:
    told = {"key": key, "outcome": outcome, "sentence": "as before", "changed": outcome == "restored"}
    rest = {"consent": False, "freed_kib": None, "held_kib": None, "before": "", "after": ""}
    return {**told, **rest, **more}


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = Played()
    monkeypatch.setattr(played, "run_playbook", found.play)
    monkeypatch.setattr(reach, "read_pair", found.read)
    monkeypatch.setattr(subject, "read_pair", found.read)
    return found


@pytest.fixture
def run(loaded: LoadedSite, nodes: Played) -> Callable[..., Report]:
    def verb(*keys: str, **more: Any) -> Report:
        given = {"consent": lambda _plan: None, "progress": lambda _line: None} | more
        return restore_verb(loaded, keys=keys, **given)

    return verb


def test_all_that_is_owed_comes_back(run: Callable[..., Report], nodes: Played) -> None:
    plans: list[str] = []
    report = run(consent=plans.append)
    assert (report.verdict, report.exit_code, report.left) == ("restored", 0, ())
    assert nodes.asked == [({"head": [], "worker": []}, {"tenants_run": "", "tenants_start_processes": False}, False)]
    assert "head/container:comfyui  ComfyUI, 3.00 GiB, owed since 2026-11-27 10:00 UTC" in plans[0]


def test_nothing_owed_plays_nothing(run: Callable[..., Report], nodes: Played) -> None:
    nodes.records["head"] = (record(state="restored"),)
    report = run()
    assert (report.verdict, report.exit_code, nodes.asked) == ("unchanged", 0, [])


def test_records_that_cannot_be_read_are_no_verdict(run: Callable[..., Report], nodes: Played) -> None:
    nodes.records["worker"] = ("{",)
    with pytest.raises(NoVerdictError, match="worker: the records of evicted tenants"):
        run()
    assert nodes.asked == []


def test_a_key_goes_to_its_node_only(run: Callable[..., Report], nodes: Played) -> None:
    nodes.records["worker"] = (record(),)
    run("head/container:comfyui")
    # A name that no tenant has: the other node brings back nothing.
    assert nodes.asked[0][0] == {"head": ["container:comfyui"], "worker": [""]}


def test_a_key_that_nothing_is_owed_to_is_refused(run: Callable[..., Report]) -> None:
    with pytest.raises(RefusedError, match="container:x: nothing is owed to it; owed: head/container:comfyui"):
        run("container:x")


def test_a_process_waits_for_consent_to_its_command(run: Callable[..., Report], nodes: Played) -> None:
    nodes.records["head"] = (record("process:python3/7"),)
    nodes.answers["head"] = [answer("process:python3/7", "left", consent=True, sentence="it was started by hand")]
    plans: list[str] = []
    report = run(consent=plans.append)
    assert "starts only with --start-processes: python3 serve.py" in plans[0]
    assert (report.verdict, report.exit_code) == ("refused", 4)
    assert report.next_step == "dspark-ops tenants restore --start-processes"
    assert report.left == ("head/process:python3/7: it was started by hand",)


def test_what_cannot_come_back_is_named(run: Callable[..., Report], nodes: Played) -> None:
    nodes.answers["head"] = [answer(), answer("unit:x.service", "left", sentence="its file was removed")]
    report = run()
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert "1 tenant(s) are back as they were; 1 could not" in report.message
    assert report.left == ("head/unit:x.service: its file was removed",)


def test_a_lost_node_is_incomplete_not_done(run: Callable[..., Report], nodes: Played) -> None:
    nodes.failure = "connection timed out"
    report = run()
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert "worker: connection timed out" in report.message


def test_a_node_that_is_lost_under_check_has_nothing_half_done(run: Callable[..., Report], nodes: Played) -> None:
    nodes.failure = "connection timed out"
    report = run(check=True)
    assert (report.verdict, report.exit_code, report.left, report.next_step) == ("failed", 3, (), None)
    assert report.message.startswith("nothing was changed: ")
    assert "worker: connection timed out" in report.message


def test_check_changes_nothing(run: Callable[..., Report], nodes: Played) -> None:
    def never(plan: str) -> None:
        raise AssertionError(plan)

    report = run(check=True, consent=never)
    assert (report.verdict, nodes.asked[0][2]) == ("planned", True)


def test_the_transaction_asks_for_its_own_run(loaded: LoadedSite, nodes: Played) -> None:
    nodes.answers["worker"] = [answer("unit:x.service", "left"), answer("unit:y.service", "back")]
    done = restore(loaded, Recorder("deploy", "desk", lambda _line: None), run="r1", start_processes=True)
    assert [(r.node, r.key, r.outcome) for r in done.restored] == [
        ("head", "container:comfyui", "restored"),
        ("worker", "unit:y.service", "back"),
    ]
    assert [r.key for r in done.left] == ["unit:x.service"]
    assert nodes.asked[0][1] == {"tenants_run": "r1", "tenants_start_processes": True}
