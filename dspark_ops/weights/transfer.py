"""The plays that move weights, with their progress, and what a play that failed means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dspark_ops.ansible_run.events import PlayResult, TaskEvent
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, HubSite, RailSite, Role
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.report.models import Measurement
from dspark_ops.report.recorder import Recorder
from dspark_ops.transport.ssh import SshRunner
from dspark_ops.weights.meter import amount, watching
from dspark_ops.weights.model import RECORDS, Manifest, WeightFile, parse_manifest
from dspark_ops.weights.plan import WeightsPlan, require_hub

#: The longest a download and a mirror may last.
FETCH_S, SYNC_S = 24 * 3600, 6 * 3600
_GIB = 1 << 30
_CHECK = re.compile(r"\[(weights\.[a-z_]+)\]$")
_NO_ANSWER = frozenset({"weights.hub_unreachable", "weights.hub_answer"})


class PlayFailedError(DsparkError):
    """A play failed; the verb decides what that means. result: what it did."""

    def __init__(self, result: PlayResult) -> None:
        super().__init__(lines(result))
        self.result = result


@dataclass
class Moves:
    """Runs the plays of one verb and keeps what they said."""

    loaded: LoadedSite
    recorder: Recorder
    runners: Mapping[Role, SshRunner]
    check: bool = False
    diff: bool = False
    moved: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def hub(self) -> HubSite:
        return require_hub(self.loaded.site)

    def manifest(self) -> Manifest:
        """What the pinned revision consists of, as the hub tells the head. Changes nothing.

        Raises:
            NoVerdictError: the hub, or the head, gives no answer.
            RefusedError: there is no such revision, it is gated, or its index is not whole.
        """
        result = self._play("metadata", {}, check=False)
        if result.failures or not result.ok:
            told = lines(result)
            checks = {match[1] for failure in result.failures if (match := _CHECK.search(failure.message))}
            if not checks or checks & _NO_ANSWER:
                raise NoVerdictError(f"{told}\nnothing was changed", hint="try again, or set model.hub.endpoint")
            raise RefusedError(f"{told}\nnothing was changed", hint="correct model.hub of the site")
        manifest = parse_manifest(self.moved.get("metadata", {}).get("manifest"))
        if manifest is None or (manifest.repo, manifest.revision) != (self.hub.repo, self.hub.revision):
            raise NoVerdictError("the head's answer about the revision cannot be used", hint="run again")
        return manifest

    def fetch(self, plan: WeightsPlan) -> Manifest:
        """Bring the planned files to the head; the manifest with every sha256.

        Raises:
            PlayFailedError: what came is kept there.
        """
        wanted = {file.blob for file in plan.fetch}
        variables = {
            "model_fetch_files": [f.model_dump(mode="json") for f in plan.fetch],
            "model_fetch_document": plan.manifest.document(),
            "model_fetch_need_bytes": self._need(plan.need_bytes["head"]),
        }
        with (
            self.recorder.phase("fetch" + self._mode) as note,
            watching(self.runners["head"], "fetch", self.recorder.progress),
        ):
            self._done(self._play("fetch", variables))
            note.detail = self.told("fetch")
        came = self.moved.get("fetch", {}).get("files") or []
        seen = parse_manifest({"repo": self.hub.repo, "revision": self.hub.revision, "files": came})
        known = plan.manifest.completed(seen)
        if not self.check and any(file.sha256 is None for file in known.files if file.blob in wanted):
            raise NoVerdictError("the head did not say the sha256 of what it fetched", hint="run again")
        return known

    def mirror(self, plan: WeightsPlan, manifest: Manifest) -> None:
        """Bring the planned files to the worker over the rails and make the snapshot on both nodes.

        Raises:
            PlayFailedError: what came is kept there.
        """
        wanted = {file.blob for file in plan.mirror}
        files = [file for file in manifest.files if file.blob in wanted]
        variables = {
            "model_sync_document": manifest.document(),
            "model_sync_files": [file.model_dump(mode="json") for file in files],
            "model_sync_need_bytes": self._need(plan.need_bytes["worker"]),
            "model_sync_timeout_s": SYNC_S,
        }
        with (
            self.recorder.phase("mirror" + self._mode) as note,
            watching(self.runners["worker"], "mirror", self.recorder.progress),
        ):
            self._done(self._play("sync", variables, rails=plan.rails))
            note.detail = self.told("sync")

    def close(self) -> bool:
        """Stop the servers after an interruption; whether that was done."""
        try:
            return self._play("close", {}, check=False).ok
        except (DsparkError, KeyboardInterrupt):
            return False

    def told(self, step: str) -> str | None:
        """What a step moved, in words; None when it moved nothing."""
        summary = self.moved.get(step, {})
        if "came_bytes" not in summary:
            return None
        came, kept, seconds = int(summary["came_bytes"]), int(summary["kept_bytes"]), float(summary["seconds"])
        rails: dict[str, int] = summary.get("rails") or {}
        over = " over " + ", ".join(f"{name} {amount(count)}" for name, count in sorted(rails.items())) if rails else ""
        rate = f", {amount(came / max(seconds, 0.001))}/s" if came else ""
        before = f", {amount(kept)} were there" if kept else ""
        return f"{amount(came)}{over} in {seconds:.1f} s{rate}{before}"

    def measurements(self) -> tuple[Measurement, ...]:
        out = []
        for step, node in (("fetch", "head"), ("sync", "worker")):
            summary = self.moved.get(step, {})
            for key, what, unit in (
                ("came_bytes", "moved", "bytes"),
                ("kept_bytes", "kept", "bytes"),
                ("seconds", "transfer", "s"),
            ):
                if key in summary:
                    value = float(summary[key])
                    role: Role = "head" if node == "head" else "worker"
                    out.append(Measurement(node=role, subject=step, what=what, value=value, unit=unit))
            out += [
                Measurement(node="worker", subject=name, what="moved", value=float(count), unit="bytes")
                for name, count in sorted((summary.get("rails") or {}).items())
            ]
        return tuple(out)

    @property
    def _mode(self) -> str:
        return " (check)" if self.check else ""

    def _need(self, missing: int) -> int:
        return missing + round(self.loaded.site.guards.disk_floor_gib * _GIB) if missing else 0

    def _done(self, result: PlayResult) -> None:
        changes = result.changes if self.diff else (c.model_copy(update={"diff": None}) for c in result.changes)
        self.recorder.changes.extend(changes)
        if result.failures or result.unreachable or not result.ok:
            raise PlayFailedError(result)

    def _play(
        self, step: str, variables: dict[str, object], *, check: bool | None = None, rails: tuple[RailSite, ...] = ()
    ) -> PlayResult:
        hub = self.hub
        common: dict[str, object] = {
            "model_step": step,
            "model_fetch_repo": hub.repo,
            "model_fetch_revision": hub.revision,
            "model_fetch_endpoint": hub.endpoint,
            "model_fetch_cache": str(hub.cache),
            "model_fetch_records": str(RECORDS),
            "model_sync_repo": hub.repo,
            "model_sync_cache": str(hub.cache),
            "model_sync_records": str(RECORDS),
        }

        def hear(event: TaskEvent) -> None:
            if event.summary is not None and ("came_bytes" in event.summary or "manifest" in event.summary):
                self.moved[step] = event.summary

        return run_playbook(
            "model.yml",
            self.loaded,
            variables=common | variables,
            host_variables={role: {"model_sync_rails": [_rail(rail, role) for rail in rails]} for role in ROLES},
            check=self.check if check is None else check,
            diff=self.diff,
            on_event=hear,
            timeout_s=FETCH_S if step == "fetch" else SYNC_S,
        )


def _rail(rail: RailSite, role: Role) -> dict[str, str]:
    end = rail.of(role)
    return {
        "name": rail.name,
        "address": str(rail.head.address.ip),
        "local": str(end.address.ip),
        "device": end.netdev,
    }


def lines(result: PlayResult) -> str:
    """What failed, a line each."""
    told = [f"{failure.node}: {failure.task}: {failure.message}" for failure in result.failures]
    return "\n".join(told) or f"ansible-playbook ended with {result.rc}; its log: {result.log}"


def names(files: tuple[WeightFile, ...], most: int = 5) -> str:
    """File names for people, not more than a few."""
    shown = ", ".join(file.name for file in files[:most])
    return shown + (f" and {len(files) - most} more" if len(files) > most else "")
