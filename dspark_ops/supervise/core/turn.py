"""One step while it is being decided: what is known, what changed so far, what is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from dspark_ops.supervise.core.clock import now_of, since
from dspark_ops.supervise.core.memory import (
    Action,
    ActionKind,
    FailureClass,
    Incident,
    Instant,
    Memory,
    State,
    Transition,
    Witness,
    WitnessKind,
)
from dspark_ops.supervise.core.settings import Settings
from dspark_ops.supervise.core.sight import Observation, Role

#: How many changes of state `status` and `explain` can show.
DECISIONS_KEPT = 20


@dataclass
class Turn:
    """Local to one call of `step`; nothing of it outlives the call but frozen values."""

    settings: Settings
    observation: Observation
    memory: Memory
    actions: list[Action] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)

    @property
    def now(self) -> Instant:
        return now_of(self.observation)

    @property
    def in_state_s(self) -> float:
        return since(self.memory.since, self.now)

    def note(self, **changes: Any) -> None:
        self.memory = replace(self.memory, **changes)

    def wait(self, *reasons: str) -> None:
        self.note(waits_for=reasons)

    def go(self, target: State, reason: str, witnesses: Iterable[Witness] = (), **changes: Any) -> None:
        """Change the state. What the old one waited for and asked for ends with it."""
        seen = tuple(witnesses)
        made = Transition(source=self.memory.state, target=target, reason=reason, witnesses=seen, at=self.now)
        self.transitions.append(made)
        decisions = (*self.memory.decisions, made)[-DECISIONS_KEPT:]
        self.note(
            state=target, since=self.now, reason=reason, decisions=decisions, waits_for=(), stop_role=None,
            stop_since=None, **changes,
        )  # fmt: skip
        self.actions = [action for action in self.actions if action.kind in ("drain", "undrain")]

    def ask(
        self,
        kind: ActionKind,
        reason: str,
        *,
        role: Role | None = None,
        epoch: str | None = None,
        incident: str | None = None,
        limit_s: float | None = None,
    ) -> None:
        self.actions.append(
            Action(kind=kind, reason=reason, role=role, epoch=epoch, incident=incident, limit_s=limit_s)
        )

    def open_incident(
        self, reason: str, failure_class: FailureClass, witnesses: tuple[Witness, ...], *, dead: bool
    ) -> None:
        """Remember when and by what a failure was noticed, and ask for evidence of this start.

        An incident that is open already stays the one whose recovery is measured.
        """
        memory, now = self.memory, self.now
        first_s = min((witness.since_s for witness in witnesses), default=now.monotonic_s)
        kinds: tuple[WitnessKind, ...] = tuple(dict.fromkeys(witness.kind for witness in witnesses))
        number = memory.incidents
        if memory.incident is None or not memory.incident.open:
            number += 1
            first = Instant(monotonic_s=first_s, wall_s=now.wall_s - (now.monotonic_s - first_s))
            incident = Incident(
                id=f"i{number}-{memory.epoch}", reason=reason, failure_class=failure_class, dead=dead,
                prefilling=memory.watch.prefilling, first_sign=first, detected=now, witnesses=kinds,
            )  # fmt: skip
            self.note(incident=incident, incidents=number)
        limit_s = self.settings.evidence_dead_limit_s if dead else self.settings.evidence_limit_s
        self.note(evidence_id=f"i{number}-{memory.epoch}", evidence_since=now, evidence_limit_s=limit_s)

    def close_incident(self) -> None:
        """It serves again, by whatever way."""
        incident = self.memory.incident
        if incident is not None and incident.open:
            self.note(incident=replace(incident, recovered=self.now))

    def evidence_pending(self) -> bool:
        """Ask for the evidence until it is there, failed or late. Nothing is stopped before."""
        memory, seen = self.memory, self.observation.evidence
        if memory.evidence_id is None or memory.evidence_since is None:
            return False
        left_s = memory.evidence_limit_s - since(memory.evidence_since, self.now)
        if left_s <= 0 or (seen is not None and seen.incident == memory.evidence_id and seen.state != "running"):
            self.note(evidence_since=None)
            return False
        self.ask("collect_evidence", "evidence before anything is stopped", incident=memory.evidence_id, limit_s=left_s)
        return True
