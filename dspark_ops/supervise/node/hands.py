"""What the daemon does: each action in a thread of its own, bounded in time, begun once however often it is wished."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

from dspark_ops.supervise.core.model import (
    Action,
    Alert,
    EvidenceSight,
    GateSight,
    Role,
    Settings,
    StartRefusal,
)
from dspark_ops.supervise.node import engine, rank
from dspark_ops.supervise.node.config import Config
from dspark_ops.supervise.node.evidence import Bundles, pack
from dspark_ops.supervise.node.eyes import Clock, Eyes
from dspark_ops.supervise.node.journal import Journal
from dspark_ops.supervise.node.link import Link, LinkError

_MOST_UNDER_WAY = 12
_START_TIMEOUT_S = 200.0
_WEBHOOK_S = 10.0
#: Whatever the settings say: a pair that is down must not wait longer to be told why.
_EVIDENCE_MOST_S = 60.0
#: How much of the limit the nodes have to gather; the rest is for writing it down.
_GATHER_SHARE = 0.8


class Hands:
    """Acts for one configuration."""

    def __init__(
        self,
        config: Config,
        settings: Settings,
        link: Link,
        eyes: Eyes,
        bundles: Bundles,
        journal: Journal,
        clock: Clock,
        told: Callable[[], dict[str, Any]],
    ) -> None:
        """told: the status document, which is part of the evidence."""
        self._config = config
        self._settings = settings
        self._link = link
        self._eyes = eyes
        self._bundles = bundles
        self._journal = journal
        self._clock = clock
        self._told = told
        self._lock = threading.Lock()
        self._under_way: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._drained: bool | None = None

    def adopt(self, config: Config, settings: Settings) -> None:
        """Act by another configuration of the same site from now on."""
        self._config, self._settings = config, settings

    def tell_again(self, alerts: Iterable[Alert]) -> None:
        """The alerts that a process before this one may not have got to."""
        self._alert([Action(kind="alert", reason=a.text, alert=a.key, page=a.page) for a in alerts])

    def busy(self) -> frozenset[str]:
        """The keys of what is under way."""
        with self._lock:
            return frozenset(self._under_way)

    def begin(self, actions: Iterable[Action], busy: frozenset[str]) -> None:
        """Begin what is wished and not under way. busy: what was under way when the observation was made."""
        wished = list(actions)
        self._alert([action for action in wished if action.kind == "alert"])
        for action in wished:
            if action.kind in ("drain", "undrain"):
                self._note_drain(action)
            elif action.kind != "alert" and action.key not in busy and self._may_begin(action):
                thread = threading.Thread(target=self._do, args=(action,), name=action.key, daemon=True)
                thread.start()

    def _may_begin(self, action: Action) -> bool:
        """Take a place. What has ended is not begun again before a look that is younger than its end."""
        role = _role_of(action)
        with self._lock:
            ended = self._ended.get(action.key)
            seen = ended is None or role is None or self._eyes.looked_since(role, ended)
            if action.key in self._under_way or not seen or len(self._under_way) >= _MOST_UNDER_WAY:
                return False
            self._under_way[action.key] = time.monotonic()
            return True

    def _do(self, action: Action) -> None:
        began = time.monotonic()
        said, failed, lost = "", False, False
        try:
            said = self._perform(action)
        except LinkError as error:
            said, failed, lost = str(error), True, not error.reached
        except (rank.RankError, OSError, ValueError) as error:
            said, failed = str(error), True
        except Exception as error:
            said, failed = f"unexpected: {error!r}", True
        if failed and not (lost and action.kind == "start_worker"):
            # A start whose answer was lost was not refused: the next look tells whether it runs, else it is asked.
            self._note_failure(action, said)
        self._journal.write(
            "action",
            self._clock.wall(),
            action=action.kind,
            role=action.role,
            epoch=action.epoch,
            reason=action.reason,
            result=said,
            failed=failed,
            took_s=round(time.monotonic() - began, 2),
        )
        role = _role_of(action)
        with self._lock:
            if len(self._ended) > 200:
                self._ended.clear()
            self._ended[action.key] = time.monotonic()
            self._under_way.pop(action.key, None)
        if role is not None:
            self._eyes.looks[role].poke()
        else:
            self._eyes.news()

    def _perform(self, action: Action) -> str:
        """Do it and say what was done. Raises: LinkError, RankError, OSError, ValueError."""
        role, settings = _role_of(action), self._settings
        if action.kind in ("start_worker", "start_head"):
            spec = self._config.spec(str(role), str(action.epoch))
            return self._ask(role, "start", _START_TIMEOUT_S, spec=spec)
        site, epoch = self._config.site, action.epoch
        if action.kind in ("stop_head", "stop_worker"):
            grace = max(1, round(settings.stop_grace_s if action.limit_s is None else action.limit_s))
            return self._ask(role, "stop", grace + 40.0, site=site, epoch=epoch, grace_s=grace)
        if action.kind in ("kill_head", "kill_worker"):
            return self._ask(role, "kill", 40.0, site=site, epoch=epoch)
        if action.kind == "remove_orphan":
            return self._ask(role, "remove", 80.0, site=site, epoch=epoch)
        if action.kind == "run_gate":
            return self._gate(action)
        return self._collect(action)

    def _ask(self, role: Role | None, verb: str, timeout_s: float, **fields: Any) -> str:
        if role == "head":
            return str(rank.perform({"v": rank.VERSION, "verb": verb, **fields}))
        return str(self._link.ask(verb, timeout_s=timeout_s, **fields))

    def _gate(self, action: Action) -> str:
        limit_s = action.limit_s or self._settings.gate_limit_s
        verdict, detail = engine.run_gate(self._config.api, self._config.gate, limit_s=limit_s, clock=self._clock.boot)
        self._eyes.note_gate(
            GateSight(epoch=str(action.epoch), verdict=verdict, ended_s=self._clock.boot(), detail=detail)
        )
        return f"{verdict}: {detail}"

    def _collect(self, action: Action) -> str:
        """Evidence of both nodes at once; a node that does not answer is told of in its place."""
        incident = str(action.incident)
        self._eyes.note_evidence(EvidenceSight(incident=incident, state="running"))
        limit_s = min(action.limit_s or self._settings.evidence_limit_s, _EVIDENCE_MOST_S)
        gather_s = max(1.0, limit_s * _GATHER_SHARE)
        parts: dict[str, dict[str, str] | str] = {
            "supervisor": {"status.json": pack(json.dumps(self._told(), indent=1, sort_keys=True))}
        }
        threads = [threading.Thread(target=self._gather, args=(role, gather_s, parts), daemon=True) for role in _ROLES]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + gather_s + 1.0
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for role in _ROLES:
            parts.setdefault(role, f"nothing within {gather_s:g} s\n")
        path = self._bundles.write(re.sub(r"[^A-Za-z0-9._-]", "-", incident), dict(parts))
        self._eyes.note_evidence(EvidenceSight(incident=incident, state="done", detail=str(path)))
        return str(path)

    def _gather(self, role: Role, limit_s: float, parts: dict[str, dict[str, str] | str]) -> None:
        request: dict[str, Any] = {"v": rank.VERSION, "verb": "evidence", "limit_s": max(1.0, limit_s - 0.5)}
        try:
            if role == "head":
                found = rank.perform(request)
            else:
                found = self._link.ask("evidence", timeout_s=limit_s, limit_s=max(1.0, limit_s - 1.5))
        except (LinkError, rank.RankError) as error:
            parts[role] = f"{error}\n"
            return
        parts[role] = {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else "no texts\n"

    def _note_failure(self, action: Action, said: str) -> None:
        if action.kind in ("start_worker", "start_head"):
            role: Role = "head" if action.kind == "start_head" else "worker"
            self._eyes.note_refusal(StartRefusal(role=role, epoch=str(action.epoch), reason=said))
        elif action.kind == "run_gate":
            now = self._clock.boot()
            self._eyes.note_gate(GateSight(epoch=str(action.epoch), verdict="unknown", ended_s=now, detail=said))
        elif action.kind == "collect_evidence":
            self._eyes.note_evidence(EvidenceSight(incident=str(action.incident), state="failed", detail=said))

    def _note_drain(self, action: Action) -> None:
        """The route follows from the state; that it changed is told once."""
        drained = action.kind == "drain"
        if drained != self._drained:
            self._drained = drained
            self._journal.write("action", self._clock.wall(), action=action.kind, reason=action.reason)

    def _alert(self, alerts: list[Action]) -> None:
        """Tell them; each comes once, when it begins."""
        for action in alerts:
            self._journal.write("alert", self._clock.wall(), alert=action.alert, text=action.reason, page=action.page)
        if alerts and self._config.webhook is not None:
            threading.Thread(target=self._post, args=(alerts,), name="webhook", daemon=True).start()

    def _post(self, alerts: list[Action]) -> None:
        body = {
            "source": "dspark-supervisor",
            "site": self._config.site,
            "alerts": [{"key": alert.alert, "text": alert.reason, "page": alert.page} for alert in alerts],
        }
        asked = urllib.request.Request(  # noqa: S310 - the configuration takes http and https only
            str(self._config.webhook), json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=_WEBHOOK_S) as answer:  # noqa: S310
                answer.read(1024)
        except (OSError, ValueError) as error:
            # The address may hold a token: it is not told.
            self._journal.write("webhook", self._clock.wall(), failed=True, result=type(error).__name__)


_ROLES: tuple[Role, ...] = ("head", "worker")


def _role_of(action: Action) -> Role | None:
    """The node that an action is for; None for the gate and the evidence."""
    by_kind: dict[str, Role] = {
        "start_worker": "worker",
        "stop_worker": "worker",
        "kill_worker": "worker",
        "start_head": "head",
        "stop_head": "head",
        "kill_head": "head",
    }
    return by_kind.get(action.kind, action.role if action.kind == "remove_orphan" else None)
