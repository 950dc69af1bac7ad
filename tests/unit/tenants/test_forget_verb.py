"""`tenants forget`: what is shown and asked, exactly the shown records, what is refused, and what stays owed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from dspark_ops.ansible_run.events import PlayResult, TaskEvent, TaskFailure
from dspark_ops.cli.tenants import app
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy import owing, reach
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.paths import data_dir
from dspark_ops.report.models import Report
from dspark_ops.tenants import forget as subject
from dspark_ops.tenants import played, records
from dspark_ops.tenants.forget import forget_verb
from dspark_ops.transport.base import NodeReading
from tests.unit.deploy.conftest import SITE
from tests.unit.tenants.test_restore_verb import answer, reading, record

COMFY = "container:comfyui"


class Played:
    """The nodes' records and answers, and what they were asked."""

    def __init__(self) -> None:
        self.records: dict[Role, tuple[str, ...]] = {"head": (record(),), "worker": ()}
        self.answers: dict[Role, list[dict[str, Any]]] = {
            "head": [answer(outcome="forgotten", sentence="it was removed", changed=True)],
            "worker": [],
        }
        self.failure: str | None = None
        self.asked: list[tuple[dict[Role, list[str]], Mapping[str, Any], bool]] = []

    def read(self, _site: Any, _probes: Any) -> dict[Role, NodeReading]:
        return {role: reading(role, *self.records[role]) for role in ROLES}

    def play(self, name: str, _loaded: LoadedSite, *, check: bool, **more: Any) -> PlayResult:
        assert (name, more["tags"]) == ("tenants.yml", ("forget",))
        names = {role: json.loads(base64.b64decode(more["host_variables"][role]["tenants_document"])) for role in ROLES}
        self.asked.append((names, more["variables"], check))
        for role in ROLES:
            more["on_event"](TaskEvent("ok", task=played.FORGET, node=role, summary={"tenants": self.answers[role]}))
        failures = (TaskFailure("worker", "x", self.failure),) if self.failure else ()
        return PlayResult(2 if failures else 0, dict.fromkeys(ROLES, 0), (), failures, (), 1.0, Path("/log"))


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
        return forget_verb(loaded, keys=keys, **given)

    return verb


def test_the_record_is_shown_and_exactly_it_is_forgotten(run: Callable[..., Report], nodes: Played) -> None:
    plans: list[str] = []
    report = run(COMFY, consent=plans.append)
    assert (report.verdict, report.exit_code, report.left) == ("changed", 0, ())
    assert report.message.startswith("1 record(s) are forgotten")
    assert [change.what for change in report.changes] == [f"{COMFY} forgotten"]
    assert nodes.asked == [({"head": ["r1-0.json"], "worker": []}, {}, False)]
    assert plans[0].splitlines() == [
        "Forget, so that it is never brought back by `tenants restore`:",
        f"  head/{COMFY}  ComfyUI, 3.00 GiB, owed since 2026-11-27 10:00 UTC",
        "      a container that is still there gets its restart policy back and is not started",
        f"      record {records.FOLDER}/r1-0.json, stopped: kept, as forgotten",
    ]


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ((COMFY,), {"head": ["r1-0.json"], "worker": ["r1-1.json"]}),
        ((f"head/{COMFY}",), {"head": ["r1-0.json"], "worker": []}),
        ((f"worker/{COMFY}", "unit:x.service"), {"head": [], "worker": ["r1-0.json", "r1-1.json"]}),
    ],
)
def test_a_key_means_both_nodes_or_its_own(
    run: Callable[..., Report], nodes: Played, keys: tuple[str, ...], names: dict[str, list[str]]
) -> None:
    nodes.records["worker"] = (record("unit:x.service", n=1), record(n=2))
    run(*keys)
    assert {role: sorted(found) for role, found in nodes.asked[0][0].items()} == names


@pytest.mark.parametrize("state", ["restored", "ended", "superseded", "forgotten"])
def test_a_key_that_nothing_is_owed_to_is_refused(run: Callable[..., Report], nodes: Played, state: str) -> None:
    nodes.records["worker"] = (record("unit:x.service", state=state),)
    with pytest.raises(RefusedError, match=f"unit:x.service: nothing is owed to it; owed: head/{COMFY}$") as refused:
        run(COMFY, "unit:x.service")
    assert refused.value.exit_code == 4
    assert nodes.asked == []


def test_records_that_cannot_be_read_are_no_verdict(run: Callable[..., Report], nodes: Played) -> None:
    nodes.records["worker"] = ("{",)
    with pytest.raises(NoVerdictError, match="worker: the records of evicted tenants"):
        run(COMFY)
    assert nodes.asked == []


def test_who_declines_changes_nothing(run: Callable[..., Report], nodes: Played) -> None:
    def declined(_plan: str) -> None:
        raise RefusedError("declined")

    with pytest.raises(RefusedError):
        run(COMFY, consent=declined)
    assert nodes.asked == []


def test_check_asks_nobody_and_changes_nothing(run: Callable[..., Report], nodes: Played) -> None:
    def never(plan: str) -> None:
        raise AssertionError(plan)

    lines: list[str] = []
    report = run(COMFY, check=True, consent=never, progress=lines.append)
    assert (report.verdict, report.exit_code, nodes.asked[0][2]) == ("planned", 0, True)
    assert report.message == "1 record(s) would be forgotten; nothing was changed"
    assert any(f"head/{COMFY}" in line for line in lines)


def test_what_could_not_be_taken_back_is_said_and_stays_owed(run: Callable[..., Report], nodes: Played) -> None:
    nodes.answers["worker"] = [answer(COMFY, "left", sentence="the Docker Engine does not answer")]
    report = run(COMFY)
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert report.left == (f"worker/{COMFY}: the Docker Engine does not answer",)
    assert "1 stay owed" in report.message


def test_one_that_was_settled_meanwhile_is_no_change(run: Callable[..., Report], nodes: Played) -> None:
    nodes.answers["head"] = []
    report = run(COMFY)
    assert (report.verdict, report.exit_code, report.changes) == ("unchanged", 0, ())


def test_a_lost_node_is_incomplete_not_done(run: Callable[..., Report], nodes: Played) -> None:
    nodes.failure = "connection timed out"
    report = run(COMFY)
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert "worker: connection timed out" in report.message


def test_a_node_that_is_lost_under_check_has_nothing_half_done(run: Callable[..., Report], nodes: Played) -> None:
    nodes.failure = "connection timed out"
    report = run(COMFY, check=True)
    assert (report.verdict, report.exit_code, report.left) == ("failed", 3, ())
    assert report.message.startswith("nothing was changed: ")


def test_the_command_of_a_process_is_shown_without_its_secrets(run: Callable[..., Report], nodes: Played) -> None:
    told = {"argv": ["python3", "serve.py", "--api-key", "planted"]}
    nodes.records["head"] = (record("process:python3/7", recorded=told),)
    plans: list[str] = []
    run("process:python3/7", consent=plans.append)
    assert "its command: python3 serve.py --api-key <hidden>" in plans[0]
    assert "its recorded environment is removed" in plans[0]


def invoked(tmp_path: Path, *words: str) -> Any:
    (tmp_path / "site.yml").write_text(SITE)
    (tmp_path / "image.tar").write_bytes(b"x")
    return CliRunner().invoke(app, ["forget", *words, "--site", str(tmp_path / "site.yml")])


def test_the_verb_refuses_without_a_terminal_and_takes_yes(tmp_path: Path, nodes: Played) -> None:
    refused = invoked(tmp_path, COMFY)
    assert isinstance(refused.exception, DsparkError)
    assert refused.exception.exit_code == 4
    assert nodes.asked == []
    done = invoked(tmp_path, f"head/{COMFY}", "--yes", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["verb"] == "tenants forget"
    assert nodes.asked[0][0]["head"] == ["r1-0.json"]


def test_keys_are_required(tmp_path: Path, nodes: Played) -> None:
    assert invoked(tmp_path).exit_code == 2
    assert nodes.asked == []


def test_neither_deploy_nor_stop_nor_rollback_counts_it_as_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"head": reading("head", record(state="forgotten")), "worker": reading("worker", record())}
    monkeypatch.setattr(owing, "read_nodes", lambda _runners, _probes: found)
    assert owing.owed_lines({}) == [f"worker: owed their place: {COMFY}"]


def test_the_play_listens_to_the_task_that_the_role_has() -> None:
    for tag, name in (("evict", played.EVICT), ("restore", played.RESTORE), ("forget", played.FORGET)):
        text = (data_dir("playbooks") / f"roles/tenants/tasks/{tag}.yml").read_text(encoding="utf-8")
        task = next(task for task in yaml.safe_load(text) if task["name"] == name)
        assert task["dspark_tenants"]["state"] == tag
