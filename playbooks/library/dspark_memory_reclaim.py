#!/usr/bin/python
"""Ansible module: drops this node's page cache and asks the kernel to compact memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dspark_memory_rules import decide, figures, told

DOCUMENTATION = r"""
module: dspark_memory_reclaim
short_description: Drops the page cache and compacts memory
description:
  - Writes dirty pages back (sync), drops the page cache (drop_caches=1) and asks for compaction (compact_memory=1).
  - A page cache smaller than O(at_least_mib) is left alone, and so is a node whose kernel settings are not its own.
  - A kernel that refuses is reported in RV(refused), not a failure; nothing depends on it.
options:
  at_least_mib:
    description: The page cache in MiB from which dropping it is worth the reading again.
    type: int
    default: 1024
author: dspark-ops
"""

EXAMPLES = r"""
- name: Drop the page cache
  dspark_memory_reclaim:
    at_least_mib: 1024
"""

RETURN = r"""
reason:
  description: Why the page cache was dropped, or why not.
  type: str
  returned: always
refused:
  description: What the kernel did not let be written, in words; empty when it did all.
  type: list
  elements: str
  returned: always
"""

PROC = Path("/proc")
#: Page cache only. 2 and 3 also drop dentries and inodes: little memory, and every path has to be looked up again.
_STEPS = (("sys/vm/drop_caches", "1"), ("sys/vm/compact_memory", "1"))


def read() -> dict[str, int]:
    """The figures of now; empty when they cannot be read."""
    try:
        return figures((PROC / "meminfo").read_text(encoding="ascii"))
    except OSError:
        return {}


def is_own() -> bool:
    """Whether /proc/sys/vm is the kernel's: a rehearsal node has a copy on another file system there."""
    try:
        return (PROC / "sys/vm").stat().st_dev == PROC.stat().st_dev
    except OSError:
        return False


def drop() -> tuple[bool, list[str]]:
    """(whether the cache was dropped, what was refused)."""
    os.sync()
    dropped, refused = False, []
    for name, value in _STEPS:
        try:
            (PROC / name).write_text(value, encoding="ascii")
        except OSError as error:
            refused.append(f"/proc/{name}: {error.strerror or error}")
        else:
            dropped = dropped or name.endswith("drop_caches")
    return dropped, refused


def main() -> None:
    module = AnsibleModule(
        argument_spec={"at_least_mib": {"type": "int", "default": 1024}},
        supports_check_mode=True,
    )
    before = read()
    wanted, reason = decide(before, module.params["at_least_mib"], is_own())
    changed, refused, after = wanted, list[str](), before
    if wanted and not module.check_mode:
        changed, refused = drop()
        after = read()
    done: dict[str, Any] = {
        "what": f"page cache: {'dropped' if changed else 'left alone'} ({reason})",
        "before": told(before),
        "after": "not known before it is done" if module.check_mode and wanted else told(after),
        "reason": reason,
        "refused": refused,
        "available_kib": after.get("MemAvailable"),
    }
    module.exit_json(
        changed=changed,
        reason=reason,
        refused=refused,
        diff={"before": f"{done['before']}\n", "after": f"{done['after']}\n"},
        dspark_summary=done,
    )


if __name__ == "__main__":
    main()
