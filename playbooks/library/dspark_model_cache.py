#!/usr/bin/python
"""Ansible module: makes a snapshot, its ref and our record of blobs that are whole, in the layout of a hub cache."""

from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dspark_model_layout import LayoutError, alone, completed, settle

DOCUMENTATION = r"""
module: dspark_model_cache
short_description: Makes the snapshot of a pinned revision once all its blobs are whole
description:
  - Relative links of the snapshot, refs/main without a newline, a record of names, sizes and digests for root alone.
  - A blob that is absent or has another size fails the module before anything is linked.
options:
  cache:
    description: The hub cache.
    type: path
    required: true
  records:
    description: Where this node keeps what the files of a revision are.
    type: path
    default: /var/lib/dspark-ops/weights
  document:
    description: Repository, revision and files, each with name, size, blob and sha256.
    type: dict
    required: true
  fetched:
    description: Files whose sha256 a download has learnt, for those of which O(document) does not know it.
    type: list
    elements: dict
    default: []
author: dspark-ops
"""

EXAMPLES = r"""
- name: Make the snapshot
  dspark_model_cache:
    cache: /var/lib/dspark/hub
    document: "{{ model_sync_document }}"
"""

RETURN = r"""
dspark_summary:
  description: What was changed.
  type: dict
  returned: always
"""

_BUSY_S = 60.0


def main() -> None:
    os.umask(0o022)  # a rank of any user reads what is made here
    module = AnsibleModule(
        argument_spec={
            "cache": {"type": "path", "required": True},
            "records": {"type": "path", "default": "/var/lib/dspark-ops/weights"},
            "document": {"type": "dict", "required": True},
            "fetched": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    given, check = module.params, module.check_mode
    try:
        document = completed(given["document"], given["fetched"])
        if check:
            changes = settle(Path(given["cache"]), Path(given["records"]), document, check=True)
        else:
            with alone(Path(given["records"]), _BUSY_S):
                changes = settle(Path(given["cache"]), Path(given["records"]), document, check=False)
    except LayoutError as error:
        module.fail_json(msg=str(error))
    except (OSError, KeyError) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error} [weights.node]")
    before = "\n".join(f"{what}: {old}" for what, old, _ in changes if old is not None)
    after = "\n".join(f"{what}: {new}" for what, _, new in changes if new is not None)
    summary = {
        "what": "; ".join(what for what, _, _ in changes) or "the snapshot",
        "before": before or None,
        "after": after or None,
    }
    diff = {"before": before + "\n" if before else "", "after": after + "\n" if after else ""}
    module.exit_json(changed=bool(changes), dspark_summary=summary, diff=diff)


if __name__ == "__main__":
    main()
