"""Every threshold of the supervisor, with its unit and where it is from."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dspark_ops.supervise.core.document import from_document

_DURATIONS = ("probe_s", "canary_s", "canary_timeout_s", "wedge_window_s", "start_limit_s", "gate_limit_s")
_COUNTS = ("canary_error_strikes", "canary_wrong_strikes", "gate_failures", "budget", "resets_limit")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Seconds end in _s, GiB in _gib. Read from /etc/dspark/supervise.json; an unknown key is an error.

    memory_needed_gib: MemAvailable that each node must show before a start: what a rank of the release needs.
    memory_floor_gib: below it on either node a start is given up; 0 turns it off.
    """

    memory_needed_gib: float
    memory_floor_gib: float = 0.0

    # Looking. A death is seen by the next look at the latest; goal: 10 s.
    probe_s: float = 5.0
    canary_s: float = 15.0
    #: Longer than one chunk of a prefill at the end of a window of 1 M tokens: 1029 s / 110 chunks is 9 s each.
    canary_timeout_s: float = 60.0
    #: Samples further apart than this prove nothing about the time between them.
    gap_s: float = 20.0

    # Wedge: `increase(generation[3m]) = 0 and changes(kv[3m]) = 0 for 1m`. A prefill of 128 K moves no counter of
    # tokens for 79 s and one of 900 K for 1029 s, but KV usage with every chunk (vLLM 0.33).
    # A compile of a new shape may stand still for longer; where that is seen, the window is what to raise.
    wedge_window_s: float = 180.0
    wedge_confirm_s: float = 60.0
    #: An outage of a link of 8 s was seen to heal by itself; a lost node is one that is lost longer than this.
    node_lost_s: float = 30.0
    #: The engine says itself that it is dead (/health 503), or nothing listens on its port: for this long.
    engine_dead_s: float = 10.0
    #: Failed canaries in a row before they are a witness; wrong text: three times, as a deployment judges it.
    canary_error_strikes: int = 2
    canary_wrong_strikes: int = 3
    #: GB10 in a deadlock: 95 % busy at 16-27 W, healthy 45 W (field reports). Off: 0.
    power_low_w: float = 30.0
    power_busy_percent: float = 80.0
    power_window_s: float = 180.0
    #: Serving must have been proven this recently, by a correct canary or by tokens; else it is suspect.
    proof_limit_s: float = 180.0
    #: Suspect for this long without a verdict is told to a person.
    suspect_page_s: float = 300.0

    # Going down.
    drain_s: float = 30.0
    evidence_limit_s: float = 60.0
    #: After a death nobody has to wait for stack samples: serving again is late by what evidence takes.
    evidence_dead_limit_s: float = 5.0
    stop_grace_s: float = 15.0
    #: After the death of its peer or its engine a rank has nothing to end in order: it only waits for the other.
    dead_grace_s: float = 2.0
    kill_limit_s: float = 30.0
    #: Stopping or cooling longer than this is told to a person.
    stuck_page_s: float = 120.0

    # Coming up. Weights of 150 GB and a cold compile cache took most of half an hour.
    start_limit_s: float = 1800.0
    gate_limit_s: float = 1800.0
    gate_failures: int = 3
    #: Waiting for a node's clock, since the boot of that node, before the first start; then it goes ahead, and says so.
    clock_wait_s: float = 300.0
    #: A head waits up to this long after its boot, by chance: pairs do not start at once after a power cut.
    boot_delay_s: float = 15.0

    # Restart policy: 0, 1, 5, 15, 30 min; 4 in 6 h; forgotten after 2 h of healthy serving.
    backoff_s: tuple[float, ...] = (0.0, 60.0, 300.0, 900.0, 1800.0)
    jitter: float = 0.2
    budget: int = 4
    budget_window_s: float = 6 * 3600.0
    reset_s: float = 2 * 3600.0
    #: Resets of a node while serving, within the budget's window, that end automatic restarts.
    resets_limit: int = 2

    @property
    def wedge_s(self) -> float:
        return self.wedge_window_s + self.wedge_confirm_s

    def __post_init__(self) -> None:
        least = dict.fromkeys(_COUNTS, 1.0) | dict.fromkeys(_DURATIONS, 0.1)
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value < least.get(field.name, 0.0):
                raise ValueError(f"{field.name} is {value}; expected {least.get(field.name, 0.0):g} or more")
        if not self.backoff_s or list(self.backoff_s) != sorted(self.backoff_s) or self.backoff_s[0] < 0:
            raise ValueError(f"backoff_s is {list(self.backoff_s)}; expected seconds that do not decrease")
        if self.jitter > 1:
            raise ValueError(f"jitter is {self.jitter}; expected a share between 0 and 1")
        if self.gap_s < 2 * self.probe_s:
            raise ValueError(f"gap_s is {self.gap_s:g}; expected at least two probes ({2 * self.probe_s:g} s)")
        if self.wedge_s <= self.canary_timeout_s:
            raise ValueError(f"the wedge window ({self.wedge_s:g} s) must be longer than canary_timeout_s")

    @classmethod
    def from_document(cls, document: object) -> Settings:
        """Raises DocumentError with the key that is wrong."""
        return from_document(cls, document, "settings")
