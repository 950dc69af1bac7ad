"""The supervisor during a verb that changes the pair: it lets go before the first change, and is told what to keep.

A verb that is killed leaves the hold with its end; the next one of the same control host takes it over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.facts.supervisor import HoldFacts, SupervisorFacts
from dspark_ops.report.models import Report, now
from dspark_ops.report.recorder import Recorder
from dspark_ops.supervise.control.document import Told, read_told, refuse_another, render
from dspark_ops.supervise.control.outcome import Left
from dspark_ops.supervise.control.words import give_back_words, hold_words, of_a_run, run_owner

PLAYBOOK = "supervise.yml"
_KIB_PER_GIB = 1 << 20
#: What evictions, an image's load and the way back may take beside the starts themselves.
_BESIDE_S = 3600.0
#: Of one that could not be asked, so that nobody knows what it waits for.
_REMEMBERED = "a hold that it remembers lasts, and a latch for harm: `dspark-ops supervise resume` ends them"


def total_gib_of(pair: PairFacts) -> dict[Role, float | None]:
    """MemTotal of both nodes; None where it was not read."""
    found: dict[Role, float | None] = {}
    for role in ROLES:
        memory = pair.of(role).memory
        total = memory.mem_total_kib if memory is not None else None
        found[role] = None if total is None else total / _KIB_PER_GIB
    return found


def hold_s(loaded: LoadedSite) -> float:
    """How long a verb may take at most: a start, its gate, the way back, and what is beside them."""
    gate = loaded.site.gate
    return 2.0 * loaded.site.guards.ready_timeout_s + (gate.timeout_s if gate is not None else 0) + _BESIDE_S


@dataclass
class Keeper:
    """One supervisor that is there and can be held. by_unit: it cannot be asked, so its unit is stopped instead."""

    loaded: LoadedSite
    recorder: Recorder
    seen: SupervisorFacts
    told: Told
    total_gib: Mapping[Role, float | None]
    by_unit: bool = False
    _mine: bool = field(default=False, init=False)
    #: A person's hold that drains for the time of this verb: until when (monotonic seconds) it lasts without draining.
    _drained_until: float | None = field(default=None, init=False)

    @property
    def others_hold(self) -> HoldFacts | None:
        """The hold of a person, which no verb ends."""
        hold = self.seen.hold
        return hold if hold is not None and not of_a_run(hold.owner) else None

    def lines(self) -> list[str]:
        """What a plan says of it."""
        if self.by_unit:
            return [
                "  stop  the supervisor's unit on the head, which does not answer; it is started again at the end",
                f"        {_REMEMBERED}",
            ]
        held = self.others_hold
        who = f"; it stays held by {held.owner}: {held.reason}" if held is not None else ""
        return [f"  hold  the supervisor on the head ({self.seen.state}), tell it afterwards what to keep{who}"]

    def keeps(self, release: str) -> bool:
        """Whether it was told to keep this release running, and no run that was cut off holds it."""
        hold = self.seen.hold
        cut_off = hold is not None and of_a_run(hold.owner)
        adopted = self.told.adopted
        return adopted.wanted == "serving" and adopted.release == release and not cut_off and not self.by_unit

    @property
    def keeps_nothing(self) -> bool:
        """Whether it was told that nothing is to run, and no run that was cut off holds it."""
        hold = self.seen.hold
        return self.told.adopted.wanted == "stopped" and not (hold is not None and of_a_run(hold.owner))

    def take(self, reason: str, *, drain: bool = False, for_s: float | None = None) -> None:
        """Hold it, before the first change. drain: it takes the pair out of the gateway at once.

        Raises:
            RefusedError: it did not let go; nothing was changed.
        """
        wanted_s = hold_s(self.loaded) if for_s is None else for_s
        held = self.others_hold
        with self.recorder.phase("hold") as note:
            drains = drain and held is not None and not held.drain
            if held is not None and (held.left_s is None or (held.left_s >= wanted_s and not drains)):
                note.detail, note.skipped = f"{held.owner} holds it: {held.reason}", True
                return
            owner, why = (run_owner(), reason) if held is None else (held.owner, held.reason)
            if held is not None:
                wanted_s, drain = max(wanted_s, held.left_s or 0.0), drain or held.drain
            try:
                self._play("held", pair_supervisor_asks=[hold_words(why, owner, wanted_s, drain=drain)])
            except KeyboardInterrupt:
                self.recorder.progress("the hold may have been taken; `dspark-ops supervise status` tells")
                raise
            except DsparkError as failure:
                raise RefusedError(
                    f"the supervisor on the head did not let go; nothing was changed: {failure.message}",
                    hint="`dspark-ops supervise status`; `--force-hold` stops its unit for the time of the verb",
                ) from None
            self._mine = held is None
            self._drained_until = time.monotonic() + wanted_s if drains else None
            note.detail = "its unit is stopped" if self.by_unit else f"for at most {wanted_s / 60:.0f} min"

    def hand_over(self, report: Report, left: Left) -> Report:
        """Tell it what to keep and give the hold back. Where nobody can tell how the pair was left, it stays held."""
        if left.outcome == "unclear":
            return self._kept_held(report)
        try:
            with self.recorder.phase("hand over") as note:
                note.detail = self._give(left)
        except (DsparkError, KeyboardInterrupt) as failure:
            why = getattr(failure, "message", "interrupted")
            return self._not_told(report, left, why)
        return self._closed(report)

    def during(self, work: Callable[[], Report], left_of: Callable[[Report], Left], broken: Left) -> Report:
        """The work of a verb after `take`. However it ends, the hold does not outlive it unsaid.

        left_of: how the work that gave a report left the pair. broken: the same of work that ends by an error.
        """
        try:
            report = work()
        except BaseException:
            self._let_go(broken)
            raise
        return self.hand_over(report, left_of(report))

    def _let_go(self, left: Left) -> None:
        """For a verb that ends by an error, which is what is told: nothing of this hides it."""
        try:
            if left.outcome != "unclear":
                self._give(left)
                return
            why = "how the pair was left is not clear"
        except (DsparkError, KeyboardInterrupt) as failure:
            why = getattr(failure, "message", "interrupted")
        self.recorder.progress(f"{self._still()}: {why}; `dspark-ops supervise resume` when it is looked after")

    def _still(self) -> str:
        return "the supervisor's unit is stopped" if self.by_unit else "the supervisor may stay held until that expires"

    def _at_the_end(self, mine: list[str]) -> list[list[str]]:
        """What it is asked at the end: a hold of ours goes, a person's is as it was."""
        held = self.others_hold
        if self._drained_until is not None and held is not None:
            left_s = max(60.0, self._drained_until - time.monotonic())
            return [hold_words(held.reason, held.owner, left_s, drain=False)]
        return [mine] if self._mine and not self.by_unit else []

    def _give(self, left: Left) -> str:
        if left.adopted is None:
            asks = self._at_the_end(give_back_words(run_owner()))
            if asks or self.by_unit:
                self._play("resumed", pair_supervisor_asks=asks)
            return f"as it was; {_REMEMBERED}" if self.by_unit else "as it was"
        document = render(left.loaded or self.loaded, left.adopted, self.told.door, self.total_gib)
        # Its hold and no more: a spent budget ends by itself when a proven start runs, and a fatal line in the kernel's
        # log is for a person to resume.
        asks = self._at_the_end(give_back_words(run_owner()))
        self._play("told", pair_supervisor_config=document, pair_supervisor_asks=asks)
        held = self.others_hold
        told = f"it keeps {left.adopted.words()}" + (f"; still held by {held.owner}" if held is not None else "")
        return f"{told}; {_REMEMBERED}" if self.by_unit else told

    def _play(self, state: str, **variables: Any) -> PlayResult:
        result = run_playbook(
            PLAYBOOK,
            self.loaded,
            variables={
                "pair_supervisor_state": state,
                "pair_supervisor_site": self.loaded.site.name,
                "pair_supervisor_by_unit": self.by_unit,
                **variables,
            },
            timeout_s=180,
        )
        self.recorder.changes.extend(change.model_copy(update={"diff": None}) for change in result.changes)
        if not result.ok:
            said = "; ".join(f"{failure.task}: {failure.message}" for failure in result.failures)
            raise NoVerdictError(said or f"ansible-playbook ended with {result.rc}; its log: {result.log}")
        return result

    def _kept_held(self, report: Report) -> Report:
        if self.by_unit:
            words = "the supervisor's unit is stopped, as how the pair was left is not clear"
        else:
            words = "the supervisor stays held, and ends that by itself, as how the pair was left is not clear"
        return self._closed(report, left=(f"{words}: `dspark-ops supervise resume` when it is",))

    def _not_told(self, report: Report, left: Left, why: str) -> Report:
        wanted = f"is not told to keep {left.adopted.words()}" if left.adopted is not None else "was not given back"
        words = f"the supervisor on the head {wanted}: {why}"
        if left.adopted is None:
            words += "; its hold ends by itself" if not self.by_unit else "; its unit may be stopped"
        if left.adopted is None and report.exit_code != ExitCode.OK:
            return self._closed(report, left=(words,))
        after = "" if left.adopted is None else "; what it kept before starts again when its hold ends"
        return self._closed(
            report.model_copy(
                update={
                    "verdict": "restore-incomplete",
                    "exit_code": int(ExitCode.RESTORE_INCOMPLETE),
                    "message": f"{report.message}\n{words}",
                    "next_step": self._again(left, served=report.exit_code == ExitCode.OK),
                }
            ),
            left=(f"{words}{after}",),
        )

    def _again(self, left: Left, *, served: bool) -> str:
        """The verb that tells it the same again."""
        if left.adopted is None:
            return "dspark-ops supervise resume"
        if left.adopted.wanted == "stopped":
            return "dspark-ops stop"
        # What a rollback or the way back from a failure brought is not what the site file says.
        told_by_deploy = served and self.recorder.verb in ("deploy", "start")
        return "dspark-ops deploy" if told_by_deploy else f"dspark-ops rollback {left.adopted.release}"

    def _closed(self, report: Report, left: tuple[str, ...] = ()) -> Report:
        """The report with what was done after it was written."""
        return report.model_copy(
            update={
                "phases": tuple(self.recorder.phases),
                "changes": tuple(self.recorder.changes),
                "finished_at": now(),
                "left": (*report.left, *left),
            }
        )


def keeper_of(
    loaded: LoadedSite,
    recorder: Recorder,
    seen: SupervisorFacts,
    pair: PairFacts | None = None,
    *,
    force: bool = False,
) -> Keeper | None:
    """The supervisor that a verb has to hold; None where none is installed.

    pair: for verbs that tell it a release. force: one that does not answer is stopped for the time of the verb.

    Raises:
        NoVerdictError: it could not be told whether there is one.
        RefusedError: it cannot be asked, keeps another site, or another run holds it.
    """
    if seen.installed is None:
        raise NoVerdictError(
            f"it could not be told whether a supervisor keeps the pair: {seen.problem}; nothing was changed",
            hint="the login user reads its files through `sudo -n`",
        )
    if not seen.installed:
        return None
    told = read_told(seen.config)
    if told is None:
        raise RefusedError(
            "the supervisor on the head has no configuration that can be read; nothing was changed",
            hint="`dspark-ops supervise install` writes it, `dspark-ops supervise remove` takes the supervisor away",
        )
    refuse_another(loaded.site.name, told.site)
    if not seen.answers and not force:
        raise RefusedError(
            f"a supervisor is installed on the head and cannot be asked: {seen.problem}; it might act at any moment, "
            "so nothing was changed",
            hint="`systemctl status dspark-supervisor` there; `--force-hold` stops its unit for the time of the verb "
            "(what it waits for a person with, it still does afterwards: `dspark-ops supervise resume`), "
            "`dspark-ops supervise install` finishes one that was cut off, `dspark-ops supervise remove` takes it away",
        )
    refuse_other_run(seen)
    return Keeper(loaded, recorder, seen, told, total_gib_of(pair) if pair else {}, by_unit=not seen.answers)


def refuse_other_run(seen: SupervisorFacts) -> None:
    """Two control hosts take turns.

    Raises:
        RefusedError: a run of another control host, or of another user of this one, holds it.
    """
    hold = seen.hold
    if hold is not None and of_a_run(hold.owner) and hold.owner != run_owner():
        left = "" if hold.left_s is None else f", for {hold.left_s / 60:.0f} min more"
        raise RefusedError(
            f"{hold.owner} holds the supervisor{left}: {hold.reason}; nothing was changed",
            hint="wait for that run; if it is dead: `dspark-ops supervise resume`",
        )
