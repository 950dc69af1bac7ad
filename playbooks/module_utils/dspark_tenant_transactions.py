"""Tenants: one eviction and one restore, step by step, each step safe to be the last one before a power cut."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils import dspark_tenant_containers as containers
from ansible.module_utils import dspark_tenant_processes as bare
from ansible.module_utils import dspark_tenant_records as records
from ansible.module_utils import dspark_tenant_units as units
from ansible.module_utils.dspark_tenant_node import available_kib, held_kib
from ansible.module_utils.dspark_tenant_rules import TenantError, lines, returned, tolerance_kib

OWNERS: dict[str, Any] = {
    "container": containers,
    "compose": containers,
    "unit": units,
    "user-unit": units,
    "desktop": units,
    "process": bare,
    "orphan": bare,
}
_ORPHAN_GRACE_S = 10.0
_POLL_S = 0.5
_SETTLE_S = 1.0
_STEADY_KIB = 64 * 1024


@dataclass
class Result:
    """What became of one tenant. outcome of an eviction: evicted, gone, changed, refused, still-runs, respawned,
    not-returned, failed; of a restore: restored, back, left; of a word that it is not owed any more: forgotten, left.
    consent: it is left for want of a consent alone."""

    key: str
    kind: str
    outcome: str
    sentence: str
    changed: bool = False
    consent: bool = False
    run: str | None = None
    freed_kib: int | None = None
    held_kib: int | None = None
    before: str = ""
    after: str = ""

    @property
    def failed(self) -> bool:
        """Whether the caller must not go on."""
        return self.outcome not in ("evicted", "gone", "restored", "back", "left", "forgotten")


@dataclass
class Limits:
    """How long an owner may take to end, how long the memory may take to come back, and the consent to SIGKILL."""

    timeout_s: float
    return_timeout_s: float
    kill: bool = False
    start_processes: bool = False
    check: bool = False
    folder: Path = field(default_factory=lambda: records.FOLDER)


def evict(tenant: dict[str, Any], run: str, limits: Limits) -> Result:
    """Check, record, stop, and see the memory come back. Never raises for what is wrong with the tenant."""
    result = Result(tenant["key"], tenant["kind"], "failed", "", run=run)
    try:
        _evict(tenant, run, limits, result)
    except TenantError as error:
        result.outcome, result.sentence = error.outcome, str(error)
    return result


def _evict(tenant: dict[str, Any], run: str, limits: Limits, result: Result) -> None:
    owner = OWNERS[tenant["kind"]]
    result.outcome, why = owner.look(tenant)
    if result.outcome == "changed":
        raise TenantError(
            "changed", f"{why}; it was not touched; look again with `dspark-ops tenants list` [tenant.changed]"
        )
    if result.outcome == "gone":
        result.sentence = f"{why}; there is nothing to stop"
        return
    known = [record for record in records.owed(limits.folder) if record["key"] == tenant["key"]]
    recorded = owner.record(tenant, known[-1]["recorded"] if known else None)
    # One of the same key may be of another: what is owed to that one stays owed.
    earlier = [record for record in known if owner.same(recorded, record["recorded"])]
    # What the driver tells may be beside a process's own memory or a part of it: the larger one is certain.
    parts = [kib for kib in (held_kib(owner.pids(recorded)), tenant.get("gpu_kib")) if kib is not None]
    result.held_kib = max(parts) if parts else tenant.get("memory_kib")
    result.before = lines(owner.describe(recorded))
    if limits.check:
        result.outcome, result.changed = "evicted", True
        result.after = lines(owner.stopped(recorded))
        return
    available = available_kib()
    record = _write(tenant, run, recorded, limits, held=result.held_kib, available=available)
    for old in earlier:
        records.forget_environment(old)
        records.advance(old, "superseded", by=Path(record["path"]).name)
    result.changed = True
    _stop(tenant["kind"], recorded, limits, record)
    records.advance(record, "stopped")
    result.after = lines(owner.describe(recorded))
    _see_memory_return(result, available, limits)
    if tenant.get("on_gpu") is not False and tenant.get("gpu_kib") is None:
        # How much of the driver's memory it held is not known: what still comes back is waited for.
        _see_memory_settle(result, limits)
    records.advance(record, "stopped", freed_kib=result.freed_kib)
    result.outcome = "evicted"
    result.sentence = f"stopped, {_gib(result.freed_kib)} of memory came back"
    if tenant["kind"] == "orphan":
        result.sentence += "; an orphan is not brought back"
        records.advance(record, "ended")


def _write(
    tenant: dict[str, Any],
    run: str,
    recorded: dict[str, Any],
    limits: Limits,
    *,
    held: int | None,
    available: int | None,
) -> records.Record:
    """The record, on disk before anything is done."""
    path, n = records.free_path(limits.folder, run)
    record: records.Record = {
        "schema": records.SCHEMA,
        "run": run,
        "n": n,
        "key": tenant["key"],
        "kind": tenant["kind"],
        "what": tenant.get("what") or tenant["key"],
        "state": "intended",
        "intended_at": records.stamp(),
        "held_kib": held,
        "available_before_kib": available,
        "recorded": recorded,
        "path": str(path),
    }
    if tenant["kind"] == "process":
        records.store_environment(record, bare.environment(recorded))
    records.store(record)
    return record


def _stop(kind: str, recorded: dict[str, Any], limits: Limits, record: records.Record) -> None:
    owner = OWNERS[kind]
    if owner is units:
        units.stop(recorded, limits.timeout_s, limits.kill, record["path"])
    elif kind == "orphan":
        # Nobody is served by it and nobody can have it back: what SIGTERM does not end is killed.
        bare.stop(recorded, min(limits.timeout_s, _ORPHAN_GRACE_S), kill=True)
    elif owner is bare:
        bare.stop(recorded, limits.timeout_s, limits.kill)
    else:
        containers.stop(recorded)


def _see_memory_return(result: Result, before: int | None, limits: Limits) -> None:
    """An end is not believed, MemAvailable is. The memory may take minutes to come back."""
    if before is None or result.held_kib is None:
        raise TenantError(
            "not-returned",
            "it was stopped, but how much memory it held could not be read: look at MemAvailable yourself "
            "[tenant.memory_returned]",
        )
    until = time.monotonic() + limits.return_timeout_s
    while True:
        now = available_kib()
        result.freed_kib = None if now is None else now - before
        if now is not None and returned(result.held_kib, before, now):
            break
        if time.monotonic() >= until:
            raise TenantError(
                "not-returned",
                f"it was stopped and held {_gib(result.held_kib)}, but MemAvailable grew by "
                f"{_gib(result.freed_kib)} within {limits.return_timeout_s:g} s (expected that much less "
                f"{_gib(tolerance_kib(result.held_kib))}); look for a process that outlived it: "
                "`dspark-ops tenants list` [tenant.memory_returned]",
            )
        time.sleep(_POLL_S)


def _see_memory_settle(result: Result, limits: Limits) -> None:
    """Wait until MemAvailable does not grow any more."""
    until = time.monotonic() + limits.return_timeout_s
    last = available_kib()
    while last is not None and time.monotonic() < until:
        time.sleep(_SETTLE_S)
        now = available_kib()
        grown = 0 if now is None else now - last
        result.freed_kib = (result.freed_kib or 0) + max(grown, 0)
        if grown < _STEADY_KIB:
            return
        last = now


def _gib(kib: int | None) -> str:
    return "an unknown amount" if kib is None else f"{kib / 1024**2:.2f} GiB"


def restore(record: records.Record, limits: Limits) -> Result:
    """Bring one tenant back to what its record says, and see that it is so. Never raises for what is wrong with it."""
    result = Result(record["key"], record["kind"], "left", "", run=record["run"])
    try:
        if OWNERS[record["kind"]] is bare:
            _restore_process(record, limits, result)
        else:
            _restore(record, limits, result)
    except TenantError as error:
        result.outcome, result.sentence = "left", str(error)
    return result


def _restore(record: records.Record, limits: Limits, result: Result) -> None:
    owner, recorded = OWNERS[record["kind"]], record["recorded"]
    steps, left = owner.missing(recorded)
    result.before = lines(owner.describe(recorded))
    started = any(verb == "start" for verb, _ in steps)
    result.outcome = "restored" if started else "back"
    result.changed = bool(steps)
    if limits.check:
        result.after = "".join(f"{verb} {name}\n" for verb, name in steps)
        result.sentence = "; ".join(left)
        result.outcome = "left" if left else result.outcome
        return
    if steps:
        owner.put_back(recorded, steps)
    steps, left = owner.missing(recorded)
    result.after = lines(owner.describe(recorded))
    left += [f"{verb} {name} did not take effect [tenant.owner]" for verb, name in steps]
    if left:
        result.outcome, result.sentence = "left", "; ".join(left)
        return
    told = "as before" if started else "it ran already"
    notes = units.enablement_differs(recorded) if owner is units else []
    result.sentence = "; ".join([told, *notes])
    records.advance(record, "restored", how=result.outcome)


def _restore_process(record: records.Record, limits: Limits, result: Result) -> None:
    recorded = record["recorded"]
    words = " ".join(recorded["argv"])
    result.before = lines(bare.describe(recorded))
    if record["kind"] == "orphan":
        # Interrupted before its end was seen; it is owed to nobody.
        result.outcome, result.sentence = "back", "an orphan is not brought back"
        if not limits.check:
            records.advance(record, "ended")
        return
    pid = bare.again(recorded)
    if pid is not None:
        result.outcome, result.sentence = "back", f"it runs already as pid {pid}"
    elif not limits.start_processes:
        result.consent = True
        result.sentence = (
            f"it was started by hand in {recorded['cwd']} as {bare.name_of(recorded['uid'])}: {words}; start it there, "
            "or consent with --start-processes [tenant.start_consent]"
        )
        return
    else:
        result.outcome, result.changed = "restored", True
        result.sentence = "started by its recorded command"
    if limits.check:
        result.after = lines({words[:200]: "runs"})
        return
    if result.changed:
        environ = records.load_environment(record)
        if environ is None:
            raise TenantError("left", f"the recorded environment is gone; start it by hand: {words} [tenant.record]")
        pid = bare.start(recorded, environ)
        result.sentence += f", pid {pid}"
    result.after = lines(bare.describe(recorded))
    records.advance(record, "restored", how=result.outcome, pid=pid)
    records.forget_environment(record)
