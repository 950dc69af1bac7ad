"""Two nodes that can be logged in to and playbook runs with chosen answers, for the verbs that change the fabric."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskFailure
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy import reach
from dspark_ops.fabric import transaction
from dspark_ops.facts.fabric_journal import JOURNAL
from dspark_ops.report.models import Change
from dspark_ops.transport.base import NodeReading, ProbeResult

LOG = Path("/state/runs/x/ansible.log")
Answer = PlayResult | BaseException


def played(
    rc: int = 0,
    *,
    changes: Sequence[Change] = (),
    failures: Sequence[TaskFailure] = (),
    unreachable: Sequence[Role] = (),
) -> PlayResult:
    changed = {role: sum(change.node == role for change in changes) for role in ROLES}
    return PlayResult(rc, changed, tuple(changes), tuple(failures), tuple(unreachable), 1.0, LOG)


def failed(message: str, node: Role | None = "worker") -> PlayResult:
    return played(2, failures=[TaskFailure(node, "A task", message)])


LOST = played(4, unreachable=["worker"], failures=[TaskFailure("worker", "A task", "connection timed out")])


@dataclass
class PlayedPair:
    """Two nodes that can be logged in to, and playbook runs whose answers the test chooses; all is well unless told.

    answers: by phase; "plan" is the run under check mode. journals: state of each node's journal when a change failed.
    supervisor: its files on the head; none unless told.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    readings: dict[Role, dict[str, Any]] = field(default_factory=dict)
    journals: dict[Role, str] = field(default_factory=lambda: dict.fromkeys(ROLES, "reverted"))
    silent_rail: str | None = None
    playbook: str = "bootstrap.yml"
    runs: list[str] = field(default_factory=list)
    variables: list[Mapping[Role, Mapping[str, object]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    supervisor: Mapping[str, str] = field(default_factory=dict)
    supervisor_says: ProbeResult = field(
        default_factory=lambda: ProbeResult(id="supervise.status", error="connection refused")
    )

    def read(self, _site: Any, probes: Any, **_more: Any) -> dict[Role, NodeReading]:
        sound = {"reachable": True, "user": "ubuntu", "sudo": True}
        asked = probes if isinstance(probes, Mapping) else dict.fromkeys(ROLES, probes)
        return {
            role: NodeReading(
                node=role,
                results={p.id: self.result(role, p.id) for p in found},
                **(sound | self.readings.get(role, {})),
            )
            for role, found in asked.items()
        }

    def result(self, role: Role, probe: str) -> ProbeResult:
        if probe == "journal.fabric":
            changed = bool({"fabric", "restore"} & set(self.runs))
            entry = {"id": "new" if changed else "old", "state": self.journals[role] if changed else "confirmed"}
            return ProbeResult(id=probe, files={JOURNAL: json.dumps(entry)})
        if probe == "supervise.files":
            return ProbeResult(id=probe, files=dict(self.supervisor))
        if probe == "supervise.status":
            return self.supervisor_says
        received = 0 if probe == f"jumbo.{self.silent_rail}" else 2
        return ProbeResult(id=probe, rc=0, stdout=f"2 packets transmitted, {received} received", stderr="")

    def play(self, name: str, _loaded: LoadedSite, *, check: bool, tags: Sequence[str], **more: Any) -> PlayResult:
        assert name == self.playbook
        phase = "plan" if check else "+".join(tags)
        self.runs.append(phase)
        self.variables.append(more["host_variables"])
        answer = self.answers.get(phase, played())
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def connect(self, monkeypatch: pytest.MonkeyPatch, state: Path, subject: Any) -> None:
        """Stand in for SSH and Ansible under the verb of the given module."""
        monkeypatch.setenv("XDG_STATE_HOME", str(state))
        monkeypatch.setattr(subject, "run_playbook", self.play)
        monkeypatch.setattr(reach, "read_pair", self.read)
        monkeypatch.setattr(transaction, "read_pair", self.read)
        monkeypatch.setattr(transaction, "REVERT_MARGIN_S", -1000.0)
        monkeypatch.setattr(transaction, "_POLL_S", 0.0)
