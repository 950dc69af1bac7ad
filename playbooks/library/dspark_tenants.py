#!/usr/bin/python
"""Ansible module: stops tenants at their owner, records them first, brings them back exactly, or forgets them."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils import dspark_tenant_records as records
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dspark_tenant_forgetting import forget_named
from ansible.module_utils.dspark_tenant_rules import TenantError
from ansible.module_utils.dspark_tenant_transactions import OWNERS, Limits, Result, evict, restore

DOCUMENTATION = r"""
module: dspark_tenants
short_description: Stops programs that hold memory, and gives them back
description:
  - V(evict) stops exactly the tenants that were shown, at their owner, in order, and ends with the first that fails.
  - Each is recorded on the node before it is touched, and is done when MemAvailable has grown by what it held.
  - V(restore) brings back what the records say is owed; what cannot be is told and stays owed.
  - V(forget) takes back what keeps the tenants of the named records from starting, starts none, settles the records.
options:
  state:
    description: What to do.
    type: str
    choices: [evict, restore, forget]
    required: true
  tenants:
    description: The tenants of this node, as `tenants list` tells them; with V(evict).
    type: list
    elements: dict
    default: []
  run:
    description: The id of the run; of V(restore), only what this run has evicted, empty for all.
    type: str
    default: ""
  keys:
    description: With V(restore), only these; empty for all that is owed.
    type: list
    elements: str
    default: []
  records:
    description: With V(forget), the names of the records that were shown, as V(RUN-1.json); empty for none.
    type: list
    elements: str
    default: []
  timeout_s:
    description: How long an owner may take to end its tenant.
    type: int
    default: 30
  return_timeout_s:
    description: How long the memory may take to come back.
    type: int
    default: 120
  kill_consent:
    description: Consent to SIGKILL for a process or a unit that has not ended in that time.
    type: bool
    default: false
  start_processes:
    description: Consent to start recorded commands of bare processes.
    type: bool
    default: false
  folder:
    description: Where the records are.
    type: path
    default: /var/lib/dspark-ops/tenants
author: dspark-ops
"""

EXAMPLES = r"""
- name: Bring back all that is owed
  dspark_tenants:
    state: restore
"""

RETURN = r"""
tenants:
  description: What became of each, with key, outcome, sentence and freed_kib.
  type: list
  elements: dict
  returned: always
"""

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def evict_all(module: AnsibleModule, limits: Limits) -> list[Result]:
    """One after the other, until one fails."""
    run = module.params["run"]
    if not _RUN.fullmatch(run):
        module.fail_json(msg=f"the run {run!r} is no name of a file: expected letters, digits, dots and dashes")
    results: list[Result] = []
    for tenant in module.params["tenants"]:
        if tenant.get("kind") not in OWNERS:
            module.fail_json(msg=f"a tenant of kind {tenant.get('kind')!r} is not known; nothing was stopped")
        results.append(evict(tenant, run, limits))
        if results[-1].failed:
            break
    return results


def restore_all(module: AnsibleModule, limits: Limits) -> list[Result]:
    """What was evicted last comes back first."""
    run, keys = module.params["run"], module.params["keys"]
    return [
        restore(record, limits)
        for record in reversed(records.owed(limits.folder))
        if (not run or record["run"] == run) and (not keys or record["key"] in keys)
    ]


def forget_all(module: AnsibleModule, limits: Limits) -> list[Result]:
    """The records that were shown and are still owed."""
    return forget_named(module.params["records"], limits)


WORK = {"evict": evict_all, "restore": restore_all, "forget": forget_all}


def told(results: list[Result]) -> dict[str, Any]:
    """The results as the answer of the module: the tenants, one line, and the diff."""
    changed = [result for result in results if result.changed]
    diff = [
        {"before_header": result.key, "after_header": result.key, "before": result.before, "after": result.after}
        for result in changed
    ]
    documents = [asdict(result) for result in results]
    what = ", ".join(f"{result.key} {result.outcome}" for result in changed) or "no tenant was touched"
    return {"tenants": documents, "diff": diff, "dspark_summary": {"what": what, "tenants": documents}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(WORK), "required": True},
            "tenants": {"type": "list", "elements": "dict", "default": []},
            "run": {"type": "str", "default": ""},
            "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "records": {"type": "list", "elements": "str", "default": []},
            "timeout_s": {"type": "int", "default": 30},
            "return_timeout_s": {"type": "int", "default": 120},
            "kill_consent": {"type": "bool", "default": False},
            "start_processes": {"type": "bool", "default": False},
            "folder": {"type": "path", "default": str(records.FOLDER)},
        },
        supports_check_mode=True,
    )
    asked = module.params
    limits = Limits(
        timeout_s=asked["timeout_s"],
        return_timeout_s=asked["return_timeout_s"],
        kill=asked["kill_consent"],
        start_processes=asked["start_processes"],
        check=module.check_mode,
        folder=Path(asked["folder"]),
    )
    work = WORK[asked["state"]]
    try:
        if module.check_mode:
            results = work(module, limits)
        else:
            with records.locked(limits.folder):
                results = work(module, limits)
                records.prune(limits.folder)
    except TenantError as error:
        module.fail_json(msg=str(error), dspark_summary={"what": "tenants", "tenants": []})
        return
    failures = [f"{result.key}: {result.sentence}" for result in results if result.failed]
    answer = told(results)
    if failures:
        module.fail_json(msg="; ".join(failures), changed=any(r.changed for r in results), **answer)
    module.exit_json(changed=any(result.changed for result in results), **answer)


if __name__ == "__main__":
    main()
