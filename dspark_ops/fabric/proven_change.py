"""One change of the fabric of two nodes that were reached: foretold, carried out step by step, proven, or put back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.config.models import Role, Site
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.fabric.gid_record import remember
from dspark_ops.fabric.transaction import REVERT_AFTER_S, FabricTransaction, NotProvenError, Proof, prove
from dspark_ops.report.models import Change, Report, Verdict
from dspark_ops.report.recorder import Recorder

Consent = Callable[[str], None]
PROVE = "prove"
_CHECK_ID = re.compile(r"\[[a-z]+\.[a-z0-9_]+\]")


class Play(Protocol):
    """Runs the verb's playbook with the given tags on both nodes."""

    def __call__(self, *tags: str, check: bool = False) -> PlayResult: ...


@dataclass
class ProvenChange:
    """before: the settled journal entry of each node when it all began. packets: full-size pings belong to the proof.

    harmless: steps in which the rails are not touched yet, with what they may leave behind. revert_after_s: what the
    nodes' timers were told; a lost node is waited for that long.
    """

    site: Site
    recorder: Recorder
    play: Play
    before: Mapping[Role, str | None]
    diff: bool = False
    packets: bool = True
    harmless: Mapping[str, str] = field(default_factory=dict)
    revert_after_s: int = REVERT_AFTER_S

    def predict(self, *tags: str) -> tuple[Change, ...]:
        """What forbids it and what would change, from the playbook itself in check mode: one run for both."""
        return self._shown(judged(self.play(*tags, check=True)))

    def planned(self, changes: tuple[Change, ...]) -> Report:
        """The report of `--check`."""
        self.recorder.changes.extend(changes)
        return self.recorder.report(
            "planned", ExitCode.OK, f"{counted(len(changes))} would be made; nothing was changed"
        )

    def carry_out(self, steps: Mapping[str, tuple[str, ...]], *, unchanged: str, next_step: str | None) -> Report:
        """The steps in order, each with the tags of its run; both nodes are put back when one fails."""
        proof: Proof | None = None
        begun = ""
        try:
            for begun, tags in steps.items():
                with self.recorder.phase(begun) as note:
                    if begun == PROVE:
                        proof = prove(self.site, packets=self.packets)
                        note.detail = proof.sentence
                    else:
                        self._step(begun, tags)
        except (DsparkError, KeyboardInterrupt) as failure:
            return self._undo(begun, failure)
        count = len(self.recorder.changes)
        if count == 0:
            return self.recorder.report("unchanged", ExitCode.OK, unchanged)
        if proof is not None and self.packets:
            # Where the GIDs are now: `fabric verify` and the doctor compare later readings with it.
            remember(self.site.name, proof.facts)
        told = f"{counted(count)}; {proof.sentence}" if proof is not None else counted(count)
        return self.recorder.report("changed", ExitCode.OK, told, next_step=next_step)

    def _step(self, name: str, tags: tuple[str, ...]) -> None:
        result = self.play(*tags)
        self.recorder.changes.extend(self._shown(result))
        if result.unreachable:
            raise NotProvenError(f"{name}: {' and '.join(result.unreachable)} could not be reached any more")
        if result.failures:
            raise NotProvenError("\n".join(f"{name}: {f.node or 'pair'}: {f.message}" for f in result.failures))
        if not result.ok:
            raise NotProvenError(f"{name}: ansible-playbook ended with {result.rc}; its log: {result.log}")

    def _undo(self, begun: str, failure: BaseException) -> Report:
        interrupted = isinstance(failure, KeyboardInterrupt)
        why = "interrupted" if interrupted else getattr(failure, "message", str(failure))
        if begun in self.harmless:
            left = [self.harmless[begun]]
        else:
            left = FabricTransaction(self.site, self.recorder, self.play, self.before, self.revert_after_s).put_back()
        if not left:
            why += "\nthe rails of both nodes are as they were"
        verdict: Verdict = "restore-incomplete" if left else "restored"
        code = ExitCode.RESTORE_INCOMPLETE if left else ExitCode.RESTORED
        if interrupted:
            verdict, code = "interrupted", ExitCode.INTERRUPTED
        return self.recorder.report(verdict, code, why, next_step="dspark-ops doctor", left=left)

    def _shown(self, result: PlayResult) -> tuple[Change, ...]:
        if self.diff:
            return result.changes
        return tuple(change.model_copy(update={"diff": None}) for change in result.changes)


def counted(number: int) -> str:
    """A number of changes in words."""
    return "1 change" if number == 1 else f"{number} changes"


def render_plan(site: Site, planned: tuple[Change, ...]) -> str:
    """The plan as the operator reads it before consent."""
    lines = [f"plan for site {site.name}: {counted(len(planned))}"]
    lines += [f"  {change.node:<6} {change.what}" for change in planned]
    return "\n".join(lines)


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
