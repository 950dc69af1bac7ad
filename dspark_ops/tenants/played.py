"""One run of tenants.yml: what each node was told, and what it says of each tenant."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspark_ops.ansible_run.events import PlayResult, TaskEvent
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import StepFailedError
from dspark_ops.report.models import Change
from dspark_ops.report.recorder import Recorder

PLAYBOOK = "tenants.yml"
EVICT, RESTORE = "Evict the tenants", "Bring back the tenants that are owed"
FORGET = "Forget the tenants that were named"
_TASKS = {"evict": EVICT, "restore": RESTORE, "forget": FORGET}


@dataclass(frozen=True)
class Told:
    """What a node says of one tenant. changed: it was touched, or would be under check mode."""

    node: Role
    key: str
    outcome: str
    sentence: str
    changed: bool = False
    consent: bool = False
    freed_kib: int | None = None
    held_kib: int | None = None
    before: str = ""
    after: str = ""


@dataclass
class Listener:
    """Collects what the task of that name says of each tenant; the look before it says nothing that lasts."""

    task: str
    told: list[Told] = field(default_factory=list)

    def hear(self, event: TaskEvent) -> None:
        if event.task != self.task or event.node is None or event.summary is None:
            return
        for document in event.summary.get("tenants") or ():
            self.told.append(_told(event.node, document))


def _told(node: Role, document: Mapping[str, Any]) -> Told:
    return Told(
        node=node,
        key=str(document["key"]),
        outcome=str(document["outcome"]),
        sentence=str(document["sentence"]),
        changed=bool(document["changed"]),
        consent=bool(document["consent"]),
        freed_kib=document["freed_kib"],
        held_kib=document["held_kib"],
        before=str(document["before"]),
        after=str(document["after"]),
    )


def wrapped(document: Sequence[Any]) -> str:
    """A list as base64 of JSON: a program may be named as it likes, nothing in it is ever read as a template."""
    return base64.b64encode(json.dumps(document).encode()).decode()


def play(
    loaded: LoadedSite,
    recorder: Recorder,
    tag: str,
    documents: Mapping[Role, Sequence[Any]],
    *,
    check: bool,
    diff: bool,
    timeout_s: float,
    **variables: object,
) -> tuple[Told, ...]:
    """Run one phase of tenants.yml on both nodes and keep what changed in the recorder.

    Raises:
        StepFailedError: a tenant could not be stopped or a node was lost; the message is the node's own.
    """
    listener = Listener(_TASKS[tag])
    result = run_playbook(
        PLAYBOOK,
        loaded,
        variables=variables,
        host_variables={role: {"tenants_document": wrapped(documents.get(role, ()))} for role in ROLES},
        check=check,
        diff=diff,
        tags=(tag,),
        on_event=listener.hear,
        timeout_s=timeout_s,
    )
    recorder.changes.extend(_change(told, diff=diff) for told in listener.told if told.changed)
    _raise_failure(tag, result)
    return tuple(listener.told)


def _change(told: Told, *, diff: bool) -> Change:
    before, after = told.before.strip().replace("\n", "; "), told.after.strip().replace("\n", "; ")
    text = f"--- before: {told.key}\n{told.before}+++ after: {told.key}\n{told.after}" if diff else None
    return Change(
        node=told.node, what=f"{told.key} {told.outcome}", before=before or None, after=after or None, diff=text
    )


def _raise_failure(tag: str, result: PlayResult) -> None:
    if result.failures:
        lines = [f"{f.node}: {f.message}" if f.node else f.message for f in result.failures]
        raise StepFailedError(f"tenants {tag}: " + "\n".join(dict.fromkeys(lines)))
    if result.unreachable:
        raise StepFailedError(f"tenants {tag}: {' and '.join(result.unreachable)} could not be reached any more")
    if result.rc != 0:
        raise StepFailedError(f"tenants {tag}: ansible-playbook ended with {result.rc}; its log: {result.log}")
