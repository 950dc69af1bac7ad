"""The daemon on the head: look, decide, save, act, tell; again and again. One owner of the pair.

The memory is saved before anything is done about it, and everything that is done can be done again: whoever ends this
process, the next one goes on from the saved state and finishes or repeats what was begun.
"""

from __future__ import annotations

import fcntl
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from dspark_ops.supervise.core import explain, machine
from dspark_ops.supervise.core.model import DocumentError, Instant, Memory, Observation, Settings, needs_saving
from dspark_ops.supervise.node import control
from dspark_ops.supervise.node.config import Config, load_config
from dspark_ops.supervise.node.evidence import Bundles
from dspark_ops.supervise.node.eyes import Clock, Eyes
from dspark_ops.supervise.node.hands import Hands
from dspark_ops.supervise.node.journal import Journal
from dspark_ops.supervise.node.link import Link
from dspark_ops.supervise.node.notify import Notifier
from dspark_ops.supervise.node.places import Places
from dspark_ops.supervise.node.publish import status_document
from dspark_ops.supervise.node.status_port import StatusPort
from dspark_ops.supervise.node.store import Store

_USAGE, _BUSY = 2, 4
_FIRST_LOOK_S = 15.0
_CONTROL_S = 20.0
#: A source that has not come back for this long beyond its limit is a fault of ours: systemd starts us anew.
_STUCK_S = 30.0


class Daemon:
    """The loop and what it needs. Everything that decides is done in one thread, `run`."""

    def __init__(self, places: Places, config: Config, *, clock: Clock | None = None) -> None:
        """Raises: DocumentError (settings), OSError (ports, sockets, directories)."""
        self._places = places
        self._clock = clock or Clock()
        self._config = config
        self._settings = Settings.from_document(dict(config.settings))
        self._notifier = Notifier()
        self._store = Store(places.state)
        self._journal = Journal(places.journal)
        self._memory = self._remember()
        self._saved: Memory | None = None
        self._began = self._clock.wall()
        self._stepped_s = -1e9
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._requests: queue.Queue[tuple[Callable[[Observation], Any], Future[Any]]] = queue.Queue(maxsize=16)
        self._observation = Observation(wall_s=self._clock.wall(), monotonic_s=self._clock.boot(), boot_id="")
        self._route = 503
        self._document: dict[str, Any] = {}
        self._install(config)
        self._document = self._described()
        self._port = StatusPort(config.status_port, self._status, self._routed)
        self._control = control.ControlServer(places.socket, self._answer)

    @property
    def port(self) -> int:
        """Of the status port."""
        return self._port.port

    def stop(self) -> None:
        """Leave the loop after the present round; the pair goes on as it is."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """The loop, until `stop`."""
        self._eyes.start()
        self._journal.write("begin", self._clock.wall(), state=self._memory.state, epoch=self._memory.epoch)
        self._hands.tell_again(self._memory.alerts)
        first = time.monotonic()
        while not self._eyes.seen_once() and time.monotonic() - first < _FIRST_LOOK_S and not self._stopping.is_set():
            self._wait(0.2)
        ready = False
        while not self._stopping.is_set():
            self._round()
            if not ready:
                self._notifier.ready(self._line())
                ready = True
            stuck = self._eyes.stuck(_STUCK_S)
            if stuck is None:
                self._notifier.progress()
            else:
                self._journal.write("stuck", self._clock.wall(), source=stuck)
            self._notifier.status(self._line())
            self._wait(min(1.0, self._settings.probe_s))
        self._notifier.stopping()
        self._save(self._memory, always=True)
        self._control.close()
        self._port.close()
        self._eyes.stop()
        self._link.close()

    def _wait(self, limit_s: float) -> None:
        self._wake.wait(limit_s)
        self._wake.clear()

    def _round(self) -> None:
        """Observe, do what was asked for, decide, save, act, publish."""
        busy = self._hands.busy()
        observation = self._eyes.observe(state_saved=self._store.problem is None)
        self._observation = observation
        self._serve_requests(observation)
        memory, actions, transitions = machine.step(self._settings, self._memory, observation)
        saved = self._save(memory)
        self._memory = memory
        self._stepped_s = self._clock.boot()
        for change in transitions:
            self._note(change)
        if not saved:
            actions = tuple(action for action in actions if action.kind not in ("start_worker", "start_head"))
        self._eyes.want_canary(machine.wants_canary(memory, observation))
        self._eyes.hurry(nodes=machine.wants_looks(memory, observation), engine=memory.state == "starting")
        # Published first: what is begun takes it into the evidence.
        self._route = machine.route(self._settings, memory, 0.0)
        self._document = self._described()
        self._hands.begin(actions, busy)

    def _note(self, change: Any) -> None:
        self._journal.write(
            "transition",
            self._clock.wall(),
            source=change.source,
            target=change.target,
            reason=change.reason,
            witnesses=[f"{witness.kind}: {witness.text}" for witness in change.witnesses],
            epoch=self._memory.epoch,
        )

    def _save(self, memory: Memory, *, always: bool = False) -> bool:
        """Write the memory down where it tells something new; False when it could not be."""
        if self._saved is not None and not always and not needs_saving(self._saved, memory):
            return self._store.problem is None
        before = self._store.problem
        done = self._store.save(memory.document())
        if done:
            self._saved = memory
        if self._store.problem != before:
            self._journal.write("state", self._clock.wall(), problem=self._store.problem)
        return done

    def _remember(self) -> Memory:
        """The memory of the process before this one. What cannot be trusted is not guessed: it waits for a person."""
        loaded = self._store.load()
        memory, problem = None, loaded.problem
        if loaded.document is not None:
            try:
                memory = Memory.from_document(loaded.document)
            except DocumentError as error:
                problem = problem or f"{self._places.state}: {error}"
        if memory is None:
            memory = Memory(seed=os.urandom(16).hex())
        if problem is None:
            return memory
        self._journal.write("state", self._clock.wall(), problem=problem)
        reason = f"{problem}; look at the pair, then `supervise resume`"
        now = Instant(monotonic_s=self._clock.boot(), wall_s=self._clock.wall())
        return replace(memory, state="failed", latched=reason, latched_for="state", reason=reason, since=now)

    def _install(self, config: Config) -> None:
        """Look and act by this configuration."""
        self._config = config
        self._settings = Settings.from_document(dict(config.settings))
        self._link = Link(config.worker, self._places.run_dir)
        self._eyes = Eyes(config, self._settings, self._link, self._clock, self._wake.set)
        self._hands = Hands(
            config,
            self._settings,
            self._link,
            self._eyes,
            Bundles(self._places.evidence, config.evidence_keep),
            self._journal,
            self._clock,
            lambda: {**self._document, "journal": list(self._journal.recent)},
        )

    # What others ask. Reading is answered from what was published; what changes something goes through the loop.

    def _status(self) -> dict[str, Any]:
        age_s = self._clock.boot() - self._stepped_s
        now = {"step_age_s": round(age_s, 1) if age_s < 1e8 else None, "route": self._routed(), "port": self.port}
        return {**self._document, **now}

    def _routed(self) -> int:
        return machine.route(self._settings, self._memory, self._clock.boot() - self._stepped_s)

    def _answer(self, verb: str, fields: dict[str, Any]) -> Any:
        if verb == "status":
            return self._status()
        if verb == "explain":
            return {"text": explain.explain(self._settings, self._memory, self._observation), "status": self._status()}
        done: Future[Any] = Future()
        works: dict[str, Callable[..., None]] = {"hold": self._hold, "resume": self._resume, "adopt": self._adopt}
        work = works[verb]
        try:
            self._requests.put((lambda observation: work(observation, **fields), done), timeout=1.0)
        except queue.Full:
            raise control.ControlError("too many requests wait already; ask again") from None
        self._wake.set()
        try:
            done.result(_CONTROL_S)
        except TimeoutError:
            done.cancel()  # what is said to have failed must not be done later
            raise control.ControlError(f"the supervisor did not do it within {_CONTROL_S:g} s") from None
        return self._status()

    def _serve_requests(self, observation: Observation) -> None:
        while True:
            try:
                work, done = self._requests.get_nowait()
            except queue.Empty:
                return
            if not done.set_running_or_notify_cancel():
                continue
            try:
                work(observation)
                # Whoever asked may rely on it once it is answered: it is on disk by then, or in the problems.
                self._save(self._memory, always=True)
                self._document = self._described()
                done.set_result(None)
            except (ValueError, OSError, control.ControlError) as error:
                done.set_exception(control.ControlError(str(error)))

    def _hold(self, observation: Observation, reason: str, owner: str, for_s: float, drain: bool) -> None:
        self._memory = machine.hold(self._memory, observation, reason=reason, owner=owner, for_s=for_s, drain=drain)
        self._journal.write("hold", self._clock.wall(), reason=reason, owner=owner, for_s=for_s, drain=drain)

    def _resume(self, observation: Observation, owner: str | None = None) -> None:
        """owner: only a hold of this owner, and a latch stays. None: everything that waits for a person."""
        hold = self._memory.hold
        if owner is None:
            self._memory = machine.resume(self._memory, observation)
        elif hold is not None and hold.owner != owner:
            raise control.ControlError(f"the hold is of {hold.owner} ({hold.reason}), not of {owner}")
        else:
            self._memory = replace(self._memory, hold=None)
        self._journal.write("resume", self._clock.wall(), owner=owner)

    def _adopt(self, _: Observation) -> None:
        """Read the configuration again. One that is wrong is refused and the old one stays."""
        config = load_config(self._places.config)
        Settings.from_document(dict(config.settings))
        if config.status_port != self._config.status_port:
            raise control.ControlError("the status port changed: restart dspark-supervisor.service instead")
        if config.site != self._config.site:
            raise control.ControlError(f"the configuration is of site {config.site!r}, this is {self._config.site!r}")
        self._config, self._settings = config, Settings.from_document(dict(config.settings))
        # What is under way goes on, and what was seen stays seen.
        self._link.adopt(config.worker)
        self._eyes.adopt(config, self._settings)
        self._hands.adopt(config, self._settings)
        self._journal.write("adopt", self._clock.wall(), release=config.release, wanted=config.wanted)

    def _described(self) -> dict[str, Any]:
        problems = (self._store.problem, self._journal.problem)
        return status_document(
            self._config,
            self._settings,
            self._memory,
            self._observation,
            route=self._route,
            problems=tuple(problem for problem in problems if problem is not None),
            running_since=self._began,
        )

    def _line(self) -> str:
        memory = self._memory
        held = f", held by {memory.hold.owner}" if memory.hold is not None else ""
        return f"{memory.state}{held}: {memory.reason}"


def main(places: Places) -> int:
    """`supervise.pyz run`."""
    try:
        for directory, mode in ((places.state_dir, 0o700), (places.run_dir, 0o755)):
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
        lock = places.lock.open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another supervisor runs already: it holds {places.lock}", file=sys.stderr)  # noqa: T201
        return _BUSY
    except OSError as error:
        print(f"the supervisor's directories cannot be used: {error}", file=sys.stderr)  # noqa: T201
        return _USAGE
    try:
        daemon = Daemon(places, load_config(places.config))
    except (DocumentError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the unit's log
        return _USAGE
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    daemon.run()
    return 0
