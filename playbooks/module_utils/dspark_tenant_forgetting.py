"""Tenants: what is not owed any more by the operator's word. Our own changes go first, nothing is started."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils import dspark_tenant_records as records
from ansible.module_utils.dspark_tenant_rules import TenantError, lines
from ansible.module_utils.dspark_tenant_transactions import OWNERS, Limits, Result


def forget_named(names: list[str], limits: Limits) -> list[Result]:
    """Forget the records of these file names that are still owed; never another one, and none for an empty list."""
    return [forget(record, limits) for record in records.owed(limits.folder) if Path(record["path"]).name in names]


def forget(record: records.Record, limits: Limits) -> Result:
    """Take back what keeps the tenant from starting, then settle its record. Never raises for what is wrong with it.

    What could not be taken back leaves the record owed, and says so.
    """
    result = Result(record["key"], record["kind"], "left", "", run=record["run"])
    try:
        _forget(record, limits, result)
    except TenantError as error:
        result.outcome, result.sentence = "left", str(error)
    return result


def _forget(record: records.Record, limits: Limits, result: Result) -> None:
    owner, recorded = OWNERS[record["kind"]], record["recorded"]
    result.before = lines({**owner.describe(recorded), "record": record["state"]})
    result.changed = True
    if limits.check:
        result.outcome = "forgotten"
        result.after = lines({**owner.freed(recorded), "record": "forgotten"})
        return
    steps = owner.hold(recorded)
    result.changed = bool(steps)
    owner.let_go(recorded)
    left = [f"{verb} {name} did not take effect [tenant.owner]" for verb, name in owner.hold(recorded)]
    if left:
        result.after = lines({**owner.describe(recorded), "record": record["state"]})
        raise TenantError("left", "; ".join(left))
    # Of a process, it may hold secrets, and nothing needs it any more; the record that needed it is owed until then.
    records.forget_environment(record)
    taken = [f"{verb} {name}" for verb, name in steps]
    records.advance(record, "forgotten", taken_back=taken)
    result.outcome, result.changed = "forgotten", True
    result.sentence = "; ".join(owner.stays(recorded))
    result.after = lines({**owner.describe(recorded), "record": "forgotten"})
