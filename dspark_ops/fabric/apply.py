"""`fabric apply` and `fabric restore`: the rails alone, on both nodes or on neither, and never a lost box."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.deploy.reach import reach
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.fabric.gid_record import remember
from dspark_ops.fabric.transaction import FabricTransaction, NotProvenError, Proof, open_entries, prove
from dspark_ops.report.models import Change, Report, Verdict
from dspark_ops.report.recorder import Progress, Recorder

Consent = Callable[[str], None]
PLAYBOOK = "fabric.yml"
# Short, so that a lost node is back within the minute; a slow pair may need longer to prove itself.
REVERT_AFTER_S = 45
_CHECK_ID = re.compile(r"\[[a-z]+\.[a-z0-9_]+\]")


def rail_variables(site: Site) -> dict[Role, dict[str, object]]:
    """What each node is told of the fabric: its own rails with the other end's address. Pure."""
    found: dict[Role, dict[str, object]] = {}
    for role in ROLES:
        other: Role = "worker" if role == "head" else "head"
        found[role] = {
            "fabric_rails": [
                {
                    "name": rail.name,
                    "netdev": rail.of(role).netdev,
                    "address": str(rail.of(role).address),
                    "peer": str(rail.of(other).address.ip),
                }
                for rail in site.fabric.rails
            ]
        }
    return found


def apply(
    loaded: LoadedSite,
    *,
    consent: Consent,
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    allow_management: bool = False,
    revert_after_s: int = REVERT_AFTER_S,
) -> Report:
    """Give every rail its address and MTU, persistently, and prove it; else put it back on both nodes.

    allow_management: consent to touch the port or the network that carries the operator's own sessions.
    revert_after_s: a node that is not confirmed after this time puts itself back.

    Raises:
        NoVerdictError: a node is unreachable or without sudo; nothing was changed on either.
        RefusedError: a guard forbids it (somebody else configures a rail, a rank runs), declined, or busy.
    """
    recorder = Recorder("fabric apply", loaded.site.name, progress)
    with site_lock(loaded.site.name, on_wait=progress):
        with recorder.phase("reach"):
            before = open_entries(reach(loaded.site, recorder))
        run = _FabricRun(
            loaded,
            recorder,
            before,
            diff,
            {"fabric_allow_management": allow_management, "fabric_revert_after_s": revert_after_s},
        )
        with recorder.phase("plan") as note:
            planned = run.predict("precheck", "fabric")
            note.detail = counted(len(planned))
        if check:
            recorder.changes.extend(planned)
            return recorder.report(
                "planned", ExitCode.OK, f"{counted(len(planned))} would be made; nothing was changed"
            )
        if planned:
            consent(render_plan(loaded.site, planned))
        # With nothing to change: a run that was killed before its confirmation has left a revert armed on the nodes.
        steps = ("fabric", "prove", "confirm") if planned else ("prove", "confirm")
        return run.carry_out(steps, "all rails are as wanted; zero changes")


def restore(
    loaded: LoadedSite, *, consent: Consent, progress: Progress, check: bool = False, diff: bool = False
) -> Report:
    """Take back the last confirmed change of the fabric on both nodes; refused where a file was edited since."""
    recorder = Recorder("fabric restore", loaded.site.name, progress)
    with site_lock(loaded.site.name, on_wait=progress):
        with recorder.phase("reach"):
            before = open_entries(reach(loaded.site, recorder))
        run = _FabricRun(loaded, recorder, before, diff, {"fabric_confirm_jumbo": False}, packets=False)
        with recorder.phase("plan") as note:
            planned = run.predict("restore_precheck", "restore")
            note.detail = counted(len(planned))
        if check:
            recorder.changes.extend(planned)
            return recorder.report(
                "planned", ExitCode.OK, f"{counted(len(planned))} would be taken back; nothing was changed"
            )
        if not planned:
            return recorder.report("unchanged", ExitCode.OK, "nothing of ours to take back; zero changes")
        consent(render_plan(loaded.site, planned))
        return run.carry_out(("restore", "prove", "confirm"), "nothing of ours to take back; zero changes")


def counted(number: int) -> str:
    """A number of changes in words."""
    return "1 change" if number == 1 else f"{number} changes"


def render_plan(site: Site, planned: tuple[Change, ...]) -> str:
    """The plan as the operator reads it before consent."""
    lines = [f"plan for site {site.name}: {counted(len(planned))}"]
    lines += [f"  {change.node:<6} {change.what}" for change in planned]
    return "\n".join(lines)


@dataclass
class _FabricRun:
    """One change of the fabric of two nodes that were reached."""

    loaded: LoadedSite
    recorder: Recorder
    before: Mapping[Role, str | None]
    diff: bool
    variables: dict[str, object]
    packets: bool = True

    def predict(self, *tags: str) -> tuple[Change, ...]:
        """What forbids it and what would change, from the playbook itself in check mode."""
        return self._shown(judged(self._play(*tags, check=True)))

    def carry_out(self, steps: tuple[str, ...], unchanged: str) -> Report:
        """The steps in order; both nodes are put back when one fails."""
        proof: Proof | None = None
        try:
            for step in steps:
                with self.recorder.phase(step) as note:
                    if step == "prove":
                        proof = prove(self.loaded.site, packets=self.packets)
                        note.detail = proof.sentence
                    else:
                        self._step(step)
        except (DsparkError, KeyboardInterrupt) as failure:
            return self._undo(failure)
        count = len(self.recorder.changes)
        if count == 0:
            return self.recorder.report("unchanged", ExitCode.OK, unchanged)
        if proof is not None and self.packets:
            remember(self.loaded.site.name, proof.facts)
        return self.recorder.report(
            "changed", ExitCode.OK, f"{counted(count)}; {proof.sentence if proof else 'not proven'}"
        )

    def _undo(self, failure: BaseException) -> Report:
        interrupted = isinstance(failure, KeyboardInterrupt)
        why = "interrupted" if interrupted else getattr(failure, "message", str(failure))
        left = FabricTransaction(self.loaded.site, self.recorder, self._play, self.before).put_back()
        if not left:
            why += "\nthe rails of both nodes are as they were"
        verdict: Verdict = "restore-incomplete" if left else "restored"
        code = ExitCode.RESTORE_INCOMPLETE if left else ExitCode.RESTORED
        if interrupted:
            verdict, code = "interrupted", ExitCode.INTERRUPTED
        return self.recorder.report(verdict, code, why, next_step="dspark-ops fabric verify", left=left)

    def _step(self, tag: str) -> None:
        result = self._play(tag)
        self.recorder.changes.extend(self._shown(result))
        if result.unreachable:
            raise NotProvenError(f"{tag}: {' and '.join(result.unreachable)} could not be reached any more")
        if result.failures:
            raise NotProvenError("\n".join(f"{tag}: {f.node or 'pair'}: {f.message}" for f in result.failures))
        if not result.ok:
            raise NotProvenError(f"{tag}: ansible-playbook ended with {result.rc}; its log: {result.log}")

    def _play(self, *tags: str, check: bool = False) -> PlayResult:
        return run_playbook(
            PLAYBOOK,
            self.loaded,
            variables={"fabric_mtu": self.loaded.site.fabric.mtu, **self.variables},
            host_variables=rail_variables(self.loaded.site),
            check=check,
            diff=True,
            tags=tags,
        )

    def _shown(self, result: PlayResult) -> tuple[Change, ...]:
        if self.diff:
            return result.changes
        return tuple(change.model_copy(update={"diff": None}) for change in result.changes)


def judged(result: PlayResult) -> PlayResult:
    """The prediction of a run in check mode, once it is one.

    Raises:
        RefusedError: a check of ours forbids the change; its id stands in the message.
        NoVerdictError: a node was lost, or the run broke: nothing was judged.
    """
    if result.unreachable:
        raise NoVerdictError(
            f"{' and '.join(result.unreachable)} could not be reached by Ansible; nothing was changed",
            hint=f"its own words are in {result.log}",
        )
    refusals = [f for f in result.failures if f.node is not None and _CHECK_ID.search(f.message)]
    if refusals:
        lines = [f"  - {f.node}: {f.message}" for f in refusals]
        raise RefusedError(
            "refused before anything was changed:\n" + "\n".join(lines),
            hint="`dspark-ops fabric show` shows what is there, `dspark-ops doctor` judges it",
        )
    if not result.ok:
        told = [f"{f.node or 'pair'}: {f.task}: {f.message}" for f in result.failures]
        raise NoVerdictError(
            "what would change cannot be told: " + ("; ".join(told) or f"ansible-playbook ended with {result.rc}"),
            hint=f"its log: {result.log}",
        )
    return result
