"""image sync: the head's image on the worker, over a rail, only the layers that the worker lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dspark_ops.ansible_run.events import PlayResult, TaskEvent
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES
from dspark_ops.errors import DsparkError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.images.sync_plan import SyncPlan, plan_sync
from dspark_ops.images.sync_reading import SPOOL, read_sync
from dspark_ops.report.models import Measurement, Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.ssh import open_runner

Consent = Callable[[str], None]

_TIMEOUT_S = 3600
_MIB = 1 << 20


def sync(
    loaded: LoadedSite, *, consent: Consent, progress: Progress, check: bool = False, diff: bool = False
) -> Report:
    """Make the worker's Engine hold the site's image, as the head's does.

    Raises:
        DsparkError: nothing was changed: unreachable, refused, declined, busy.
    """
    site = loaded.site
    recorder = Recorder("image sync", site.name, progress)
    runners = {role: open_runner(site, role) for role in ROLES}
    try:
        with site_lock(site.name, on_wait=progress):
            with recorder.phase("observe") as note:
                nodes, recorder.nodes = read_sync(site, runners)
                plan = plan_sync(site, nodes)
                note.detail = _detail(plan)
            if not plan.changes:
                return recorder.report(
                    "unchanged", ExitCode.OK, f"both nodes hold {plan.reference} ({plan.image.id[:19]}); zero changes"
                )
            transfer = _Transfer(loaded, recorder, plan, diff)
            if check:
                return transfer.check()
            consent(plan.render(site))
            return transfer.run()
    finally:
        for runner in runners.values():
            runner.close()


def _detail(plan: SyncPlan) -> str:
    if plan.bring:
        return f"the worker lacks {len(plan.layers)} of {len(plan.image.layers)} layers"
    return "the worker has the image" + (", not its name" if plan.name else "")


@dataclass
class _Transfer:
    """One sync after its plan. The worker's Engine holds the whole image at the end, or what it held before."""

    loaded: LoadedSite
    recorder: Recorder
    plan: SyncPlan
    diff: bool
    fetched: dict[str, Any] = field(default_factory=dict)

    def check(self) -> Report:
        with self.recorder.phase("sync (check)"):
            result = self._play(check=True)
            self._take(result)
        self.recorder.progress(self.plan.render(self.loaded.site))
        if result.failures or not result.ok:
            _refuse_moved(result)
            raise RefusedError("the image cannot be brought there:\n" + _lines(result))
        return self.recorder.report(
            "planned", ExitCode.OK, f"{result.total_changed} changes would be made; nothing was changed"
        )

    def run(self) -> Report:
        try:
            with self.recorder.phase("sync") as note:
                result = self._play()
                self._take(result)
                note.detail = self._moved()
                if result.failures or result.unreachable or not result.ok:
                    raise _FailedError(_lines(result))
        except _FailedError as failure:
            return self._failed(result, failure.message)
        except KeyboardInterrupt:
            return self._interrupted()
        report = self.recorder.report("changed", ExitCode.OK, self._message(), next_step="dspark-ops image verify")
        return report.model_copy(update={"measurements": self._measurements()})

    def _play(self, *, check: bool = False, tags: tuple[str, ...] = (), leftover: bool | None = None) -> PlayResult:
        plan = self.plan
        only_clean = not plan.bring and not plan.name
        # Where nothing is brought only the last tasks run.
        needed: tuple[str, ...] = () if plan.bring else ("close",) if only_clean else ("name", "close")
        return run_playbook(
            "image_sync.yml",
            self.loaded,
            variables={
                "image_sync_id": plan.image.id,
                "image_sync_reference": plan.reference,
                "image_sync_bytes": plan.image.size_bytes,
                "image_sync_layers": list(plan.layers),
                "image_sync_previous": plan.previous,
                "image_sync_previous_name": plan.previous_name,
                "image_sync_drop": list(plan.drop),
                "image_sync_spool": SPOOL,
                "image_sync_timeout_s": _TIMEOUT_S,
                "image_sync_leftover": only_clean if leftover is None else leftover,
            },
            host_variables={
                role: {
                    "image_sync_device": plan.rail.of(role).netdev,
                    "image_sync_address": str(plan.rail.of(role).address.ip),
                }
                for role in ROLES
            },
            check=check,
            diff=self.diff,
            tags=tags or needed,
            on_event=self._hear,
            timeout_s=_TIMEOUT_S,
        )

    def _hear(self, event: TaskEvent) -> None:
        if event.summary is not None and "came_bytes" in event.summary:
            self.fetched = event.summary

    def _take(self, result: PlayResult) -> None:
        changes = result.changes if self.diff else (c.model_copy(update={"diff": None}) for c in result.changes)
        self.recorder.changes.extend(changes)

    def _failed(self, result: PlayResult, why: str) -> Report:
        _refuse_moved(result)
        if result.unreachable:
            left = [
                f"{role}: it was lost; a transfer that still runs there ends by itself" for role in result.unreachable
            ]
            return self.recorder.report(
                "restore-incomplete", ExitCode.RESTORE_INCOMPLETE, why, next_step="dspark-ops image sync", left=left
            )
        return self.recorder.report(
            "restored",
            ExitCode.RESTORED,
            f"{why}\nthe worker's Engine holds what it held before",
            next_step="dspark-ops image sync",
        )

    def _interrupted(self) -> Report:
        try:
            with self.recorder.phase("undo"):
                stopped = self._play(tags=("close",), leftover=False).ok
        except (DsparkError, KeyboardInterrupt):
            stopped = False
        left = () if stopped else ("head: the layer server; it ends by itself two minutes after the last request",)
        return self.recorder.report(
            "interrupted",
            ExitCode.INTERRUPTED,
            "interrupted; what was brought so far is kept in the worker's spool",
            next_step="dspark-ops image sync",
            left=left,
        )

    def _moved(self) -> str | None:
        if not self.fetched:
            return None
        came, seconds = int(self.fetched["came_bytes"]), float(self.fetched["seconds"])
        kept = int(self.fetched["kept_bytes"])
        rate = f", {came / _MIB / max(seconds, 0.001):.0f} MiB/s" if came else ""
        before = f", {kept / _MIB:.1f} MiB were there from an earlier run" if kept else ""
        return f"{came / _MIB:.1f} MiB over {self.plan.rail.name} in {seconds:.1f} s{rate}{before}"

    def _message(self) -> str:
        moved = self._moved()
        if self.plan.bring:
            return f"the worker holds {self.plan.reference} ({self.plan.image.id[:19]}): {moved}"
        if self.plan.name:
            return f"the worker's image bears the name {self.plan.reference}"
        return "the spool of an earlier run is gone; the image was there"

    def _measurements(self) -> tuple[Measurement, ...]:
        if not self.fetched:
            return ()
        units: Mapping[str, tuple[str, str]] = {
            "came_bytes": ("moved", "bytes"),
            "kept_bytes": ("kept from an earlier run", "bytes"),
            "seconds": ("transfer", "s"),
        }
        return tuple(
            Measurement(
                node="worker", subject=self.plan.rail.name, what=what, value=float(self.fetched[key]), unit=unit
            )
            for key, (what, unit) in units.items()
        )


class _FailedError(DsparkError):
    """The play failed; what that means is decided by whoever runs the verb."""


def _refuse_moved(result: PlayResult) -> None:
    moved = [failure for failure in result.failures if "[image.moved_tag]" in failure.message]
    if moved:
        raise RefusedError("\n".join(f"{failure.node}: {failure.message}" for failure in moved))


def _lines(result: PlayResult) -> str:
    told = [f"{failure.node}: {failure.task}: {failure.message}" for failure in result.failures]
    return "\n".join(told) or f"ansible-playbook ended with {result.rc}; its log: {result.log}"
