"""The steps that change the pair, each one playbook run; and undoing them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.spec import RankSpec
from dspark_ops.errors import DsparkError
from dspark_ops.facts.rank import RANK_CONTAINER
from dspark_ops.paths import state_dir
from dspark_ops.report.recorder import Recorder
from dspark_ops.transport.base import Command
from dspark_ops.transport.ssh import SshRunner, read_nodes

# An orderly stop lets running requests end; a start that failed has none.
_STOP_S = 30
_UNDO_STOP_S = 5


class StepFailedError(DsparkError):
    """A step of applying failed; whoever runs the verb undoes what was begun."""


@dataclass(frozen=True)
class Documents:
    """The two `rank_service_spec` documents of one start."""

    release: str
    epoch: str
    per_role: Mapping[Role, Mapping[str, Any]]

    @classmethod
    def of(cls, specs: Mapping[Role, RankSpec], epoch: str) -> Documents:
        return cls(specs["head"].release, epoch, {role: specs[role].document(epoch) for role in ROLES})


@dataclass
class Applier:
    """Runs the deploy playbook phase by phase and keeps what changed in the recorder."""

    loaded: LoadedSite
    recorder: Recorder
    documents: Documents
    check: bool = False
    diff: bool = False
    changed: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))

    def step(self, tag: str) -> PlayResult:
        """One phase of deploy.yml: image, settle, worker or head.

        Raises:
            StepFailedError: the play failed or a node was lost; the message is the task's own.
        """
        image = self.loaded.site.image
        result = run_playbook(
            "deploy.yml",
            self.loaded,
            variables={
                "engine_image_id": image.id,
                "engine_image_reference": image.reference,
                "engine_image_archive": str(image.archive) if image.archive else None,
            },
            host_variables=self._host_variables(),
            check=self.check,
            diff=self.diff,
            tags=(tag,),
        )
        self._take(tag, result)
        return result

    def remove(self, role: Role | None = None) -> PlayResult:
        """Stop and remove our rank containers: head first, then worker; or that of one node alone."""
        return self._stop(remove=True, role=role)

    def stop(self, role: Role | None = None) -> PlayResult:
        """Stop our rank containers and leave them there, with their logs: head first, then worker; or one alone."""
        return self._stop(remove=False, role=role)

    def _stop(self, *, remove: bool, role: Role | None = None) -> PlayResult:
        result = run_playbook(
            "stop.yml",
            self.loaded,
            variables={
                "rank_service_remove": remove,
                "rank_service_stop_timeout_s": _UNDO_STOP_S if remove else _STOP_S,
            },
            host_variables=self._host_variables(),
            check=self.check,
            diff=self.diff,
            tags=(role,) if role else (),
        )
        self._take("stop", result)
        return result

    def _host_variables(self) -> dict[Role, dict[str, Any]]:
        return {role: {"rank_service_spec": document} for role, document in self.documents.per_role.items()}

    def _take(self, step: str, result: PlayResult) -> None:
        shown = result.changes if self.diff else (change.model_copy(update={"diff": None}) for change in result.changes)
        self.recorder.changes.extend(shown)
        for role in ROLES:
            self.changed[role] += result.changed.get(role, 0)
        if result.unreachable:
            raise StepFailedError(f"{step}: {' and '.join(result.unreachable)} could not be reached any more")
        if result.failures:
            lines = [f"{f.node}: {f.task}: {f.message}" for f in result.failures]
            raise StepFailedError(f"{step}: " + "\n".join(lines))
        if result.rc != 0:
            raise StepFailedError(f"{step}: ansible-playbook ended with {result.rc}; its log: {result.log}")


def collect_logs(runners: Mapping[Role, SshRunner], recorder: Recorder) -> dict[Role, str]:
    """Evidence before kill: the end of both ranks' logs, kept beside the reports. Returns them by role."""
    command = Command(
        "log", ("docker", "logs", "--timestamps", "--tail", "400", RANK_CONTAINER), root=True, timeout_s=15
    )
    readings = read_nodes(runners, dict.fromkeys(runners, (command,)))
    logs: dict[Role, str] = {}
    folder = state_dir() / "evidence" / recorder.started_at.strftime("%Y%m%dT%H%M%SZ")
    for role, reading in readings.items():
        result = reading.get("log")
        text = (result.stdout or "") + (result.stderr or "")
        if result.error is None and result.rc == 0 and text.strip():
            logs[role] = text
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{role}.log").write_text(text, encoding="utf-8")
    return logs


# An exception with its message, or a death; not the traceback's own source lines, nor warnings that mention an error.
_CAUSE = re.compile(
    r"(?<![\w\x60'])[\w.]*(?:Error|Exception|Failure)\b: \S|died unexpectedly|EnforceNotMet|enforce fail"
)
_NO_CAUSE = re.compile(r"\b(?:WARNING|INFO|DEBUG)\b|\braise \w|See (?:stack trace|root cause) above|FutureWarning")
_PREFIX = re.compile(r"^(?:\([^)]*\) )?(?:ERROR \S+ \S+ \[[^]]*\] )?\s*")


def first_errors(logs: Mapping[Role, str], limit: int = 3) -> Sequence[str]:
    """The earliest lines of either rank that name an error, by Docker's time stamp: the cause, not its echoes."""
    found: dict[str, str] = {}
    for role, text in logs.items():
        for line in text.splitlines():
            stamp, _, rest = line.partition(" ")
            if _CAUSE.search(rest) and not _NO_CAUSE.search(rest):
                said = f"{role}: {_PREFIX.sub('', rest)[:240]}"
                found[said] = min(stamp, found.get(said, stamp))
    return sorted(found, key=lambda said: found[said])[:limit]
