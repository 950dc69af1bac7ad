"""The supervisor during a verb that changes the pair: it lets go before the first change, and is told what to keep.

A verb that is killed leaves the hold with its end; the next one of the same control host takes it over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
from dspark_ops.supervise.control.document import Adopted, Told, read_told, render
from dspark_ops.supervise.control.words import give_back_words, hold_words, of_a_run, resume_words, run_owner

PLAYBOOK = "supervise.yml"
_KIB_PER_GIB = 1 << 20
#: What evictions, an image's load and the way back may take beside the starts themselves.
_BESIDE_S = 3600.0

#: How a verb left the pair. as-before: what the supervisor was told is still true. unclear: nobody can tell.
Outcome = Literal["adopted", "as-before", "unclear"]


@dataclass(frozen=True)
class Left:
    """What a verb leaves behind. adopted, loaded: where the outcome is `adopted`, and under which site it runs."""

    outcome: Outcome
    adopted: Adopted | None = None
    loaded: LoadedSite | None = None


AS_BEFORE = Left("as-before")
UNCLEAR = Left("unclear")


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

    @property
    def others_hold(self) -> HoldFacts | None:
        """The hold of a person, which no verb ends."""
        hold = self.seen.hold
        return hold if hold is not None and not of_a_run(hold.owner) else None

    def lines(self) -> list[str]:
        """What a plan says of it."""
        if self.by_unit:
            return ["  stop  the supervisor's unit on the head, which does not answer; it is started again at the end"]
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
            if held is not None and (held.left_s is None or held.left_s >= wanted_s):
                note.detail, note.skipped = f"{held.owner} holds it: {held.reason}", True
                return
            owner, why = (run_owner(), reason) if held is None else (held.owner, held.reason)
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

    def give_back(self) -> None:
        """Give the hold back as it was, for a verb that ends by an error of its own.

        Raises:
            DsparkError: it was not given back; it ends by itself.
        """
        self._give(AS_BEFORE)

    def _give(self, left: Left) -> str:
        mine = self._mine and not self.by_unit
        if left.adopted is None:
            if mine or self.by_unit:
                self._play("resumed", pair_supervisor_asks=[give_back_words(run_owner())] if mine else [])
            return "as it was"
        document = render(left.loaded or self.loaded, left.adopted, self.told.door, self.total_gib)
        # What did not serve before serves now, or is to be stopped: no latch and no spent budget of before is left. One
        # that served keeps what it knows, as of fatal lines in the kernel's log.
        words = give_back_words(run_owner()) if self.seen.state == "serving" else resume_words()
        self._play("told", pair_supervisor_config=document, pair_supervisor_asks=[words] if mine else [])
        held = self.others_hold
        return f"it keeps {left.adopted.words()}" + (f"; still held by {held.owner}" if held is not None else "")

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
        if left.adopted is None and report.exit_code != ExitCode.OK:
            return self._closed(report, left=(words,))
        return self._closed(
            report.model_copy(
                update={
                    "verdict": "restore-incomplete",
                    "exit_code": int(ExitCode.RESTORE_INCOMPLETE),
                    "message": f"{report.message}\n{words}",
                    "next_step": "dspark-ops deploy",
                }
            ),
            left=(f"{words}; what it kept before starts again when its hold ends",),
        )

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
    if told.site != loaded.site.name:
        raise RefusedError(
            f"the supervisor on the head keeps site {told.site!r}, not {loaded.site.name!r}; nothing was changed",
            hint="use that site's file, or remove the supervisor with it: `dspark-ops supervise remove`",
        )
    if not seen.answers and not force:
        raise RefusedError(
            f"a supervisor is installed on the head and cannot be asked: {seen.problem}; it might act at any moment, "
            "so nothing was changed",
            hint="`systemctl status dspark-supervisor` there; `--force-hold` stops its unit for the time of the verb, "
            "`dspark-ops supervise remove` takes it away",
        )
    hold = seen.hold
    if hold is not None and of_a_run(hold.owner) and hold.owner != run_owner():
        left = "" if hold.left_s is None else f", for {hold.left_s / 60:.0f} min more"
        raise RefusedError(
            f"{hold.owner} holds the supervisor{left}: {hold.reason}; nothing was changed",
            hint="wait for that run; if it is dead: `dspark-ops supervise resume`",
        )
    return Keeper(loaded, recorder, seen, told, total_gib_of(pair) if pair else {}, by_unit=not seen.answers)
