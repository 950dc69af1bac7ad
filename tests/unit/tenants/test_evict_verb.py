"""`tenants evict` with the nodes and the playbook replaced: what is asked, refused, told, and left."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskEvent, TaskFailure
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy import reach
from dspark_ops.deploy.apply import StepFailedError
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Recorder
from dspark_ops.tenants import played
from dspark_ops.tenants.evict import evict, evict_verb
from dspark_ops.tenants.model import Tenant
from dspark_ops.tenants.sight import NodeTenants, TenantSight
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.tenants.test_policy import tenant


class Played:
    """The nodes' answers, and what they were asked."""

    def __init__(self) -> None:
        self.tenants: tuple[Tenant, ...] = (tenant(), tenant("container:ollama", node="worker"))
        self.problems: tuple[str, ...] = ()
        self.failure: str | None = None
        self.asked: list[tuple[dict[Role, list[Any]], Mapping[str, Any], bool]] = []

    def look(self, _loaded: LoadedSite, _runners: Any) -> TenantSight:
        problems: dict[Role, tuple[str, ...]] = {"head": self.problems, "worker": ()}
        return TenantSight(
            {role: NodeTenants(tuple(t for t in self.tenants if t.node == role), problems[role]) for role in ROLES}
        )

    def play(self, name: str, _loaded: LoadedSite, *, check: bool, **more: Any) -> PlayResult:
        assert (name, more["tags"]) == ("tenants.yml", ("evict",))
        documents = {
            role: json.loads(base64.b64decode(more["host_variables"][role]["tenants_document"])) for role in ROLES
        }
        self.asked.append((documents, more["variables"], check))
        for role in ROLES:
            told = [
                {
                    "key": document["key"],
                    "kind": document["kind"],
                    "outcome": "evicted",
                    "sentence": "stopped",
                    "changed": True,
                    "consent": False,
                    "freed_kib": None if check else 2 << 20,
                    "held_kib": 2 << 20,
                    "before": "container comfyui: running\n",
                    "after": "container comfyui: exited\n",
                }
                for document in documents[role]
            ]
            summary = {"what": "x", "tenants": told}
            for task in ("Check that the tenants are what was shown", "Evict the tenants"):
                more["on_event"](TaskEvent("changed", task=task, node=role, summary=summary))
        failures = (TaskFailure("head", "Evict the tenants", self.failure),) if self.failure else ()
        return PlayResult(2 if failures else 0, dict.fromkeys(ROLES, 1), (), failures, (), 1.0, Path("/log"))


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = Played()
    monkeypatch.setattr(played, "run_playbook", found.play)
    monkeypatch.setattr("dspark_ops.tenants.evict.look_at_tenants", found.look)
    bare = {"supervise.files": ProbeResult(id="supervise.files", files={})}
    answer = {role: NodeReading(node=role, reachable=True, sudo=True, results=bare) for role in ROLES}
    monkeypatch.setattr(reach, "read_pair", lambda _site, _probes: answer)
    return found


@pytest.fixture
def run(loaded: LoadedSite, nodes: Played) -> Callable[..., Report]:
    def verb(*keys: str, **more: Any) -> Report:
        given: dict[str, Any] = {
            "everything": False,
            "consent": lambda _plan: None,
            "progress": lambda _line: None,
        } | more
        return evict_verb(loaded, keys=keys, **given)

    return verb


def test_only_what_was_named_is_sent_to_its_node(run: Callable[..., Report], nodes: Played) -> None:
    plans: list[str] = []
    report = run("container:comfyui", consent=plans.append)
    documents, variables, _ = nodes.asked[0]
    assert [t["key"] for t in documents["head"]] == ["container:comfyui"]
    assert documents["worker"] == []
    assert variables["tenants_kill_consent"] is False
    assert "head/container:comfyui  ComfyUI" in plans[0]
    assert "comes back by docker start" in plans[0]
    assert (report.verdict, report.exit_code) == ("changed", 0)
    assert "1 tenant(s) evicted, 2.00 GiB of memory came back" in report.message
    assert [(c.node, c.what, c.before) for c in report.changes] == [
        ("head", "container:comfyui evicted", "container comfyui: running")
    ]


def test_all_of_them(run: Callable[..., Report], nodes: Played) -> None:
    report = run(everything=True, kill=True)
    documents, variables, _ = nodes.asked[0]
    assert [len(documents[role]) for role in ROLES] == [1, 1]
    assert variables["tenants_kill_consent"] is True
    assert "2 tenant(s) evicted, 4.00 GiB" in report.message


def test_check_asks_nobody_and_says_what_would_be(run: Callable[..., Report], nodes: Played) -> None:
    def never(plan: str) -> None:
        raise AssertionError(plan)

    report = run(everything=True, check=True, diff=True, consent=never)
    assert nodes.asked[0][2] is True
    assert (report.verdict, report.message) == ("planned", "2 tenant(s) would be evicted; nothing was changed")
    assert "--- before: container:comfyui\ncontainer comfyui: running\n" in str(report.changes[0].diff)


def test_declined_is_untouched(run: Callable[..., Report], nodes: Played) -> None:
    def declines(_plan: str) -> None:
        raise RefusedError("declined; nothing was changed")

    with pytest.raises(RefusedError, match="declined"):
        run("container:comfyui", consent=declines)
    assert nodes.asked == []


def test_one_that_may_not_go_keeps_all_of_them(run: Callable[..., Report], nodes: Played) -> None:
    nodes.tenants += (tenant("desktop:ada", members=()),)
    with pytest.raises(RefusedError, match="head/desktop:ada: a desktop session"):
        run(everything=True)
    assert nodes.asked == []


def test_half_a_list_is_no_list(run: Callable[..., Report], nodes: Played) -> None:
    nodes.problems = ("head: docker does not answer",)
    with pytest.raises(NoVerdictError, match="docker does not answer"):
        run("container:comfyui")
    assert nodes.asked == []


def test_nobody_there(run: Callable[..., Report], nodes: Played) -> None:
    nodes.tenants = ()
    assert (run(everything=True).verdict, nodes.asked) == ("unchanged", [])


def test_a_failure_says_what_the_node_said_and_how_to_go_back(run: Callable[..., Report], nodes: Played) -> None:
    nodes.failure = "container:comfyui: it was stopped, but its memory stays away [tenant.memory_returned]"
    report = run("container:comfyui")
    assert (report.verdict, report.exit_code) == ("failed", 1)
    assert "head: container:comfyui: it was stopped" in report.message
    assert report.next_step == "dspark-ops tenants restore"
    assert report.left


def test_a_failure_under_check_has_stopped_nobody(run: Callable[..., Report], nodes: Played) -> None:
    nodes.failure = "connection timed out"
    report = run("container:comfyui", check=True)
    assert (report.verdict, report.exit_code, report.left, report.next_step) == ("failed", 3, (), None)
    assert report.message.startswith("nothing was changed: ")


def test_the_transaction_gets_each_outcome_once(loaded: LoadedSite, nodes: Played) -> None:
    recorder = Recorder("deploy", "desk", lambda _line: None)
    done = evict(loaded, recorder, nodes.tenants, "run-1")
    assert [(e.node, e.key, e.outcome, e.freed_kib) for e in done] == [
        ("head", "container:comfyui", "evicted", 2 << 20),
        ("worker", "container:ollama", "evicted", 2 << 20),
    ]
    nodes.failure = "it does not end"
    with pytest.raises(StepFailedError, match="head: it does not end"):
        evict(loaded, recorder, nodes.tenants, "run-2")
    assert evict(loaded, recorder, (), "run-3") == ()
    assert len(nodes.asked) == 2


def test_a_name_is_never_a_template(loaded: LoadedSite, nodes: Played) -> None:
    wild = tenant("process:{{1+1}}/7")
    evict(loaded, Recorder("deploy", "desk", lambda _line: None), [wild], "run-1")
    assert nodes.asked[0][0]["head"][0]["key"] == "process:{{1+1}}/7"
    assert "{{" not in played.wrapped([wild.model_dump(mode="json")])
