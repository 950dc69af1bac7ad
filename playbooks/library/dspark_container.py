#!/usr/bin/python
"""Ansible module: one rank's container through the node's own docker command line."""

from __future__ import annotations

import json
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dspark_container_rules import (
    Container,
    decide,
    describe,
    parse_inspect,
    predict,
    spec_problems,
)
from ansible.module_utils.dspark_container_rules import create_arguments as arguments_of

DOCUMENTATION = r"""
module: dspark_container
short_description: Keeps the container of one rank as its spec says
description:
  - Compares the container of the spec's name with the spec by its labels (spec, epoch, release), its image and state.
  - Only touches a container whose label io.dspark-ops.site is the spec's; any other of that name is a failure.
  - Needs the docker command on the node, no Python library.
options:
  spec:
    description: The container as deploy/spec.py renders it.
    type: dict
    required: true
  state:
    description:
      - V(started) creates and starts it, in place of one that differs or has ended.
      - V(stopped) ends it and keeps it.
      - V(absent) ends and removes it.
      - V(matching) removes one that differs or does not run; never starts.
    type: str
    choices: [started, stopped, absent, matching]
    default: started
  stop_timeout_s:
    description: How long a container may take to end before it is killed.
    type: int
    default: 30
author: dspark-ops
"""

EXAMPLES = r"""
- name: Start the rank
  dspark_container:
    spec: "{{ rank_service_spec }}"
    state: started
"""

RETURN = r"""
container:
  description: The container after the call, state absent when there is none.
  type: dict
  returned: always
steps:
  description: What was done, or would be done under check mode.
  type: list
  elements: str
  returned: always
"""


_REMOVAL_WAIT_S = 30


def docker(module: AnsibleModule, *args: str) -> tuple[int, str, str]:
    """Run the docker command with an argument list."""
    rc, out, err = module.run_command(["docker", *args])
    return int(rc), str(out), str(err).strip()


def inspect(module: AnsibleModule, name: str) -> Container | None:
    """The container of that name, or None; fails the task when the Engine does not answer."""
    rc, out, err = docker(module, "container", "inspect", name)
    if rc == 0:
        return parse_inspect(json.loads(out)[0])
    if "no such container" in err.lower():
        return None
    module.fail_json(msg=f"the Docker Engine does not answer: {err} [host.docker_down]")
    return None


def must(module: AnsibleModule, what: str, *args: str) -> None:
    """Run docker and fail the task with one sentence when it does not succeed."""
    rc, out, err = docker(module, *args)
    if rc != 0:
        text = err or out.strip()
        check_id = "image.absent" if "no such image" in text.lower() else "service.container"
        module.fail_json(msg=f"{what} failed: {text} [{check_id}]")


def start(module: AnsibleModule, name: str) -> None:
    """Start a container that this task created; one that cannot start is removed again, its reason is kept."""
    rc, out, err = docker(module, "start", name)
    if rc != 0:
        remove(module, name)
        module.fail_json(
            msg=f"container {name} could not be started and was removed again: {err or out.strip()} [service.container]"
        )


def remove(module: AnsibleModule, name: str) -> None:
    """Remove the container by force: an Engine that was killed in between leaves containers half dead."""
    rc, out, err = docker(module, "rm", "--force", "--volumes", name)
    if rc == 0 or "no such container" in err.lower():
        return
    if "in progress" not in err.lower():
        module.fail_json(msg=f"removing container {name} failed: {err or out.strip()} [service.container]")
    for _ in range(_REMOVAL_WAIT_S * 2):
        if inspect(module, name) is None:
            return
        time.sleep(0.5)
    module.fail_json(msg=f"container {name} is still being removed after {_REMOVAL_WAIT_S} s [service.container]")


def perform(module: AnsibleModule, step: str, spec: dict[str, Any], timeout_s: int) -> None:
    """Do one step of a decision."""
    name = spec["name"]
    if step == "stop":
        must(module, f"stopping container {name}", "stop", "--time", str(timeout_s), name)
    elif step == "remove":
        remove(module, name)
    elif step == "create":
        must(module, f"creating container {name}", *arguments_of(spec))
    else:
        start(module, name)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "spec": {"type": "dict", "required": True},
            "state": {
                "type": "str",
                "choices": ["started", "stopped", "absent", "matching"],
                "default": "started",
            },
            "stop_timeout_s": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    spec, state = module.params["spec"], module.params["state"]
    problems = spec_problems(spec)
    if problems:
        module.fail_json(msg="; ".join(problems))
    found = inspect(module, spec["name"])
    decision = decide(state, spec, found)
    if decision.foreign:
        module.fail_json(
            msg=f"container {spec['name']!r} exists and is not ours: {decision.reason}; it was not touched. "
            f"Rename or remove it by hand [tenant.foreign_name]"
        )
    before, after = describe(found), predict(found, spec, decision.steps)
    if not module.check_mode:
        for step in decision.steps:
            perform(module, step, spec, module.params["stop_timeout_s"])
        if decision.steps:
            found = inspect(module, spec["name"])
            after = describe(found)
    verbs = " and ".join(decision.steps)
    module.exit_json(
        changed=bool(decision.steps),
        steps=list(decision.steps),
        reason=decision.reason,
        container=after | ({"id": found.id, "exit_code": found.exit_code} if found else {}),
        diff={"before": json.dumps(before, indent=1) + "\n", "after": json.dumps(after, indent=1) + "\n"},
        dspark_summary={
            "what": f"container {spec['name']}: {verbs or 'nothing to do'} ({decision.reason})",
            "before": str(before["state"]),
            "after": str(after["state"]),
        },
    )


if __name__ == "__main__":
    main()
