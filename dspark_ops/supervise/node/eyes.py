"""What the daemon sees of the pair: samplers for each source, and one observation made of their last answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dspark_ops.supervise.core.model import (
    CanarySight,
    EngineSight,
    Event,
    EvidenceSight,
    GateSight,
    NodeSight,
    Observation,
    Role,
    Settings,
    StartRefusal,
    Wanted,
)
from dspark_ops.supervise.node import engine, rank, sight
from dspark_ops.supervise.node.config import Config
from dspark_ops.supervise.node.containers import ContainerError
from dspark_ops.supervise.node.link import Link, LinkError
from dspark_ops.supervise.node.sampler import Sampler
from dspark_ops.supervise.node.seeing import node_sight, unreachable

_LOOK_TIMEOUT_S = 12.0
_SLOW_EVERY_S = 30.0
_WATCH_S = 30.0
_FABRIC_EVERY_S = 10.0
_HURRIED_S = 1.0


@dataclass(frozen=True)
class Clock:
    """Both clocks; tests give others. boot: seconds since the boot, sleeping included. wall: Unix time."""

    boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    wall: Callable[[], float] = time.time


class Eyes:
    """Runs the samplers of one configuration. news: told whenever something came in."""

    def __init__(self, config: Config, settings: Settings, link: Link, clock: Clock, news: Callable[[], None]) -> None:
        self._config = config
        self._settings = settings
        self._link = link
        self._clock = clock
        self.news = news
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._refusals: list[StartRefusal] = []
        self._canary: CanarySight | None = None
        self._canary_pending_s: float | None = None
        self._canary_wanted = False
        self._gate: GateSight | None = None
        self._evidence: EvidenceSight | None = None
        self._slow_at: dict[Role, float] = {}
        self._slow: dict[Role, dict[str, Any]] = {"head": {}, "worker": {}}
        self._gone: dict[Role, str | None] = {"head": None, "worker": None}
        self._worker_boot: str | None = None
        self._stopped = False
        self._boot_id = _boot_id()
        probe_s = settings.probe_s
        self.looks: dict[Role, Sampler[NodeSight]] = {
            "head": Sampler("look-head", probe_s, self._look_head, news),
            "worker": Sampler("look-worker", probe_s, self._look_worker, news),
        }
        self._engine = Sampler("engine", probe_s, lambda: engine.read_engine(self._config.api.url), news)
        self._fabric = Sampler("fabric", max(_FABRIC_EVERY_S, probe_s), self._try_fabric, lambda: None)
        self._asking = Sampler("canary", min(1.0, probe_s), self._ask_canary, lambda: None)

    def adopt(self, config: Config, settings: Settings) -> None:
        """Look by another configuration of the same site from now on."""
        self._config, self._settings = config, settings
        self.hurry(nodes=False, engine=False)

    def start(self) -> None:
        """Begin to look."""
        for sampler in self._samplers():
            sampler.start()
        for role in ("head", "worker"):
            threading.Thread(target=self._watch, args=(role,), name=f"watch-{role}", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True
        for sampler in self._samplers():
            sampler.stop()

    def seen_once(self) -> bool:
        """Whether both nodes were asked at least once, whatever came of it."""
        return all(look.last(1e9) is not None or look.problem is not None for look in self.looks.values())

    def stuck(self, limit_s: float) -> str | None:
        """The name of a sampler that has asked for longer than the limit beyond its own; None when none has."""
        own = {"canary": self._settings.canary_timeout_s}
        late = [s.name for s in self._samplers() if s.busy_s() > limit_s + own.get(s.name, _LOOK_TIMEOUT_S * 2)]
        return late[0] if late else None

    def looked_since(self, role: Role, moment_s: float) -> bool:
        """Whether a look at the node began after the moment (monotonic) and has ended."""
        sample = self.looks[role].last(1e9)
        return sample is not None and sample.began_s >= moment_s

    def hurry(self, *, nodes: bool, engine: bool) -> None:
        """Look every second where the pair is down and its restart waits for what is seen; else as configured."""
        often_s, usual_s = min(_HURRIED_S, self._settings.probe_s), self._settings.probe_s
        for look in self.looks.values():
            look.ask_every(often_s if nodes else usual_s)
        self._engine.ask_every(often_s if engine else usual_s)

    def want_canary(self, wanted: bool) -> None:
        """Whether canaries are sent now: not while the pair starts, and not beside the gate."""
        self._canary_wanted = wanted

    def note_refusal(self, refusal: StartRefusal) -> None:
        with self._lock:
            self._refusals.append(refusal)

    def note_gate(self, seen: GateSight) -> None:
        with self._lock:
            self._gate = seen

    def note_evidence(self, seen: EvidenceSight) -> None:
        with self._lock:
            self._evidence = seen

    def observe(self, *, state_saved: bool) -> Observation:
        """The observation of now. What was heard since the last one is in this one and in no other."""
        nodes = {}
        for role, look in self.looks.items():
            sample = look.last(self._settings.gap_s)
            nodes[role] = NodeSight() if sample is None else sample.value
        asked = self._engine.last(self._settings.gap_s)
        answered = asked is not None and asked.value.health in ("ok", "dead")
        seen = self.looks["head"].last(self._settings.gap_s)
        if answered and asked is not None and seen is not None and asked.began_s > seen.began_s:
            # Who answered was listening, whatever a look before that saw.
            nodes["head"] = replace(nodes["head"], api_listening=True)
        with self._lock:
            events, self._events = tuple(self._events), []
            refusals, self._refusals = tuple(self._refusals), []
            canary, pending, gate, evidence = self._canary, self._canary_pending_s, self._gate, self._evidence
        release = self._config.release
        wanted = None
        if release is not None:
            wanted = Wanted(release=release, site=self._config.site, run=self._config.wanted == "serving")
        return Observation(
            wall_s=self._clock.wall(),
            monotonic_s=self._clock.boot(),
            boot_id=self._boot_id,
            head=nodes["head"],
            worker=nodes["worker"],
            wanted=wanted,
            engine=EngineSight() if asked is None else asked.value,
            canary=canary,
            canary_pending_s=pending,
            gate=gate,
            evidence=evidence,
            events=events,
            refusals=refusals,
            state_saved=state_saved,
        )

    def _samplers(self) -> list[Sampler[Any]]:
        return [*self.looks.values(), self._engine, self._fabric, self._asking]

    def _look_head(self) -> NodeSight:
        slow = self._slow_due("head")
        raw = sight.look_here(ports=self._config.head_ports, slow=slow, gone_id=self._gone["head"])
        return self._made("head", raw, slow, by_management=True, by_fabric=None)

    def _look_worker(self) -> NodeSight:
        slow = self._slow_due("worker")
        try:
            raw = self._ask_worker(slow)
            if not slow and raw.get("boot_id") != self._worker_boot:
                # How that boot came about must be known with the look that first tells of it.
                slow, raw = True, self._ask_worker(slow=True)
            self._worker_boot = raw.get("boot_id")
        except LinkError as error:
            paths = self._link.reachable()
            return unreachable(paths) if not error.reached else NodeSight(by_management=paths.get("management"))
        paths = self._link.reachable()
        return self._made("worker", raw, slow, by_management=paths.get("management"), by_fabric=paths.get("fabric"))

    def _ask_worker(self, slow: bool) -> dict[str, Any]:
        """Raises: LinkError."""
        raw = self._link.ask("look", timeout_s=_LOOK_TIMEOUT_S, slow=slow, gone_id=self._gone["worker"])
        if not isinstance(raw, dict):
            raise LinkError("worker: a look that is not an object", reached=True)
        return raw

    def _made(
        self, role: Role, raw: dict[str, Any], slow: bool, *, by_management: bool | None, by_fabric: bool | None
    ) -> NodeSight:
        """The sight of a raw look, with what only a slow look tells kept from the last one."""
        if slow:
            self._slow_at[role] = time.monotonic()
            self._slow[role] = {key: raw.get(key) for key in ("clock_synced", "gpu", "ended_in_order")}
        found = raw.get("container")
        if isinstance(found, dict):
            self._gone[role] = str(found.get("id"))
        made = node_sight(role, {**raw, **self._slow[role]}, self._config.site, self._config.api_port)
        return replace(made, by_management=by_management, by_fabric=by_fabric)

    def _slow_due(self, role: Role) -> bool:
        return time.monotonic() - self._slow_at.get(role, -1e9) >= _SLOW_EVERY_S

    def _try_fabric(self) -> bool:
        """Keeps the fabric path known: while the management path answers nobody else tries it."""
        return self._link.probe("fabric", timeout_s=6.0)

    def _ask_canary(self) -> None:
        """Send a canary when one is due; the sampler's own rhythm is only how often that is asked."""
        last = self._canary
        due = last is None or self._clock.boot() - last.sent_s >= self._settings.canary_s
        if not (self._canary_wanted and due):
            return
        with self._lock:
            self._canary_pending_s = self._clock.boot()
        seen = engine.send_canary(self._config.api, limit_s=self._settings.canary_timeout_s, clock=self._clock.boot)
        with self._lock:
            self._canary, self._canary_pending_s = seen, None
        self.news()

    def _watch(self, role: Role) -> None:
        """Hear of deaths at once; while they cannot be heard, the looks see them."""
        while not self._stopped:
            try:
                if role == "head":
                    died = rank.watch_for_death(_WATCH_S)
                else:
                    answer = self._link.ask("watch", timeout_s=_WATCH_S + 10.0, limit_s=_WATCH_S)
                    died = answer.get("died") if isinstance(answer, dict) else None
            except (LinkError, ContainerError):
                time.sleep(2.0)
                continue
            if isinstance(died, dict) and died.get("site") == self._config.site and died.get("epoch"):
                code = died.get("exit_code")
                event = Event(
                    kind="died",
                    role=role,
                    epoch=str(died["epoch"]),
                    exit_code=code if isinstance(code, int) else None,
                )
                with self._lock:
                    self._events.append(event)
                self.looks[role].poke()
                self.news()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
