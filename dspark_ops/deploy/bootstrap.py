"""bootstrap: the host baseline and the fabric between the two, on both nodes or on neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.deploy.reach import reach
from dspark_ops.errors import DsparkError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.fabric.apply import Consent, counted, judged, rail_variables, render_plan
from dspark_ops.fabric.gid_record import remember
from dspark_ops.fabric.transaction import FabricTransaction, Proof, open_entries, prove
from dspark_ops.report.models import Change, Report, Verdict
from dspark_ops.report.recorder import Progress, Recorder

# earlyoom kills at its default threshold an engine that merely starts: leave it, give it low thresholds, or remove it.
Earlyoom = Literal["leave", "configure", "absent"]

APPLY_PHASES = ("baseline", "fabric", "prove", "settle")
# With nothing to change: a run that was killed before its confirmation has left a revert armed on the nodes.
SETTLE_PHASES = ("prove", "settle")


class _PhaseFailedError(DsparkError):
    """A phase of applying failed; what it was about is undone by the caller."""


def host_variables(site: Site, users: Mapping[Role, str]) -> dict[Role, dict[str, object]]:
    """What each node is told: its own rails with the other end's address, and the login user. Pure."""
    return {
        role: {
            "host_baseline_service_user": users[role],
            "host_baseline_rail_netdevs": [rail.of(role).netdev for rail in site.fabric.rails],
            **rails,
        }
        for role, rails in rail_variables(site).items()
    }


def bootstrap(
    loaded: LoadedSite,
    *,
    consent: Consent,
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    earlyoom: Earlyoom = "leave",
) -> Report:
    """Prepare both hosts and the rails between them, and prove it with jumbo pings both ways.

    Raises:
        NoVerdictError: a node is unreachable or without sudo; nothing was changed on the other either.
        RefusedError: a precheck forbids it (somebody else configures a rail, a rank runs), declined, or busy.
    """
    site = loaded.site
    recorder = Recorder("bootstrap", site.name, progress)
    with site_lock(site.name, on_wait=progress):
        with recorder.phase("reach"):
            readings = reach(site, recorder)
        users = {role: readings[role].user or "" for role in ROLES}
        run = _Bootstrap(loaded, recorder, host_variables(site, users), open_entries(readings), diff, earlyoom)
        with recorder.phase("plan") as note:
            planned = run.predict()
            note.detail = counted(len(planned))
        if check:
            recorder.changes.extend(planned)
            return recorder.report(
                "planned", ExitCode.OK, f"{counted(len(planned))} would be made; nothing was changed"
            )
        if planned:
            consent(render_plan(site, planned))
        return run.apply(APPLY_PHASES if planned else SETTLE_PHASES)


@dataclass
class _Bootstrap:
    """One bootstrap on two nodes that were reached."""

    loaded: LoadedSite
    recorder: Recorder
    per_host: dict[Role, dict[str, object]]
    before: Mapping[Role, str | None]
    diff: bool
    earlyoom: Earlyoom = "leave"

    def predict(self) -> tuple[Change, ...]:
        """What forbids it and what would change, from the playbook itself in check mode: one run for both."""
        return self._shown(judged(self._play("precheck", "baseline", "fabric", check=True)))

    def apply(self, phases: Sequence[str]) -> Report:
        """The given phases in order; the fabric is put back on both nodes when anything of it fails."""
        begun = ""
        proof: Proof | None = None
        try:
            for phase in phases:
                begun = phase
                with self.recorder.phase(phase) as note:
                    if phase == "prove":
                        proof = prove(self.loaded.site)
                        note.detail = proof.sentence
                    else:
                        self._step(phase)
        except (DsparkError, KeyboardInterrupt) as failure:
            return self._undo(begun, failure)
        count = len(self.recorder.changes)
        if count == 0:
            return self.recorder.report(
                "unchanged", ExitCode.OK, "both hosts and all rails are as wanted; zero changes"
            )
        if proof is not None:
            remember(self.loaded.site.name, proof.facts)
        rails = len(self.loaded.site.fabric.rails)
        mtu = self.loaded.site.fabric.mtu
        return self.recorder.report(
            "changed",
            ExitCode.OK,
            f"{counted(count)}; {rails} rails carry unfragmented pings of MTU {mtu} both ways",
            next_step="dspark-ops deploy",
        )

    def _undo(self, begun: str, failure: BaseException) -> Report:
        interrupted = isinstance(failure, KeyboardInterrupt)
        why = "interrupted" if interrupted else getattr(failure, "message", str(failure))
        left = []
        if begun == "baseline":
            left.append("the host baseline may be partly applied; the next bootstrap finishes it")
        else:
            left += FabricTransaction(self.loaded.site, self.recorder, self._play, self.before).put_back()
        if not left:
            why += "\nthe rails of both nodes are as they were"
        verdict: Verdict = "restore-incomplete" if left else "restored"
        code = ExitCode.RESTORE_INCOMPLETE if left else ExitCode.RESTORED
        if interrupted:
            verdict, code = "interrupted", ExitCode.INTERRUPTED
        return self.recorder.report(verdict, code, why, next_step="dspark-ops doctor", left=left)

    def _step(self, phase: str) -> None:
        # Verifying and confirming are one run: a host that fails the first ends the run before the second.
        result = self._play(*(("verify", "confirm") if phase == "settle" else (phase,)))
        self.recorder.changes.extend(self._shown(result))
        if result.unreachable:
            raise _PhaseFailedError(f"{phase}: {' and '.join(result.unreachable)} could not be reached any more")
        if result.failures:
            raise _PhaseFailedError("\n".join(f"{phase}: {f.node or 'pair'}: {f.message}" for f in result.failures))
        if not result.ok:
            raise _PhaseFailedError(f"{phase}: ansible-playbook ended with {result.rc}; its log: {result.log}")

    def _play(self, *tags: str, check: bool = False) -> PlayResult:
        return run_playbook(
            "bootstrap.yml",
            self.loaded,
            variables={"fabric_mtu": self.loaded.site.fabric.mtu, "host_baseline_earlyoom": self.earlyoom},
            host_variables=self.per_host,
            check=check,
            diff=True,
            tags=tags,
        )

    def _shown(self, result: PlayResult) -> tuple[Change, ...]:
        if self.diff:
            return result.changes
        return tuple(change.model_copy(update={"diff": None}) for change in result.changes)
