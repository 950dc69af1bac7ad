"""Tenants that are containers, alone or as a compose project: through the node's own docker command line."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.dspark_tenant_node import attempt, must, processes, tree, wait
from ansible.module_utils.dspark_tenant_rules import TenantError, parse_depends_on, restart_argument, start_order

_RUNS = ("running", "paused", "restarting")
_HEALTH_WAIT_S = 60
# What docker gives a container that was created without a time of its own.
_STOP_S = 10


def inspect(name: str) -> dict[str, Any] | None:
    """A container by id or name; None when there is none.

    Raises:
        TenantError: the Engine does not answer.
    """
    done = attempt("docker", "container", "inspect", name)
    if done.returncode == 0:
        document: dict[str, Any] = json.loads(done.stdout)[0]
        return document
    if "no such container" in (done.stderr + done.stdout).lower():
        return None
    raise TenantError("failed", f"the Docker Engine does not answer: {done.stderr.strip()} [host.docker_down]")


def _state(found: dict[str, Any]) -> str:
    return str(found["State"]["Status"])


def _policy(found: dict[str, Any]) -> tuple[str, int]:
    told = found["HostConfig"].get("RestartPolicy") or {}
    return told.get("Name") or "no", int(told.get("MaximumRetryCount") or 0)


def look(tenant: dict[str, Any]) -> tuple[str, str]:
    """Whether what was shown is still there: as-shown, gone or changed, with a sentence."""
    runs = 0
    for member in tenant["members"]:
        found = inspect(member["id"])
        if found is not None and _state(found) in _RUNS:
            runs += 1
            continue
        other = inspect(member["name"])
        if other is not None and other["Id"] != (found or {}).get("Id") and _state(other) in _RUNS:
            return "changed", f"container {member['name']} is another one now ({other['Id'][:12]})"
    return ("as-shown", "") if runs else ("gone", "it does not run any more")


def record(tenant: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """All that it takes to bring the containers back as they are. before: what an unfinished eviction recorded.

    Raises:
        TenantError: one was started with --rm: stopping it would remove it for good.
    """
    known = {member["id"]: member for member in (before or {}).get("members", ())}
    members = []
    for shown in tenant["members"]:
        found = inspect(shown["id"])
        if found is None:
            continue
        if found["HostConfig"].get("AutoRemove"):
            raise TenantError(
                "refused",
                f"container {shown['name']} was started with --rm: stopping it would remove it for good; stop it by "
                "hand, or start it without --rm [tenant.not_restorable]",
            )
        policy, retries = _policy(found)
        old = known.get(found["Id"])
        if old is not None and policy == "no":
            # The unfinished eviction has taken the policy away already.
            policy, retries = old["policy"], old["retries"]
        labels = found["Config"].get("Labels") or {}
        members.append(
            {
                "id": found["Id"],
                "name": found["Name"].lstrip("/"),
                "image": found["Image"],
                "state": _state(found),
                "started_at": found["State"].get("StartedAt") or "",
                "policy": policy,
                "retries": retries,
                "service": labels.get("com.docker.compose.service"),
                "depends_on": parse_depends_on(labels.get("com.docker.compose.depends_on")),
            }
        )
    # What an unfinished eviction has stopped already does not run, so it was not shown, and is owed all the same.
    shown_ids = {member["id"] for member in members}
    members += [member for identity, member in known.items() if identity not in shown_ids]
    # As they came up, which knows what an older compose does not say, corrected by what it does say.
    return {"members": start_order(sorted(members, key=lambda member: member["started_at"]))}


def pids(recorded: dict[str, Any]) -> set[int]:
    """Every process of the containers."""
    roots = set()
    for member in recorded["members"]:
        found = inspect(member["id"])
        if found is not None and found["State"].get("Pid"):
            roots.add(int(found["State"]["Pid"]))
    return tree(roots, processes())


def describe(recorded: dict[str, Any]) -> dict[str, Any]:
    """How they are now, for the diff."""
    told = {}
    for member in recorded["members"]:
        found = inspect(member["id"])
        how = "removed" if found is None else f"{_state(found)}, restart {restart_argument(*_policy(found))}"
        told[f"container {member['name']}"] = how
    return told


def stopped(recorded: dict[str, Any]) -> dict[str, Any]:
    """How they will be, for the diff under check mode."""
    return {f"container {member['name']}": "exited, restart no" for member in recorded["members"]}


def stop(recorded: dict[str, Any]) -> None:
    """Take the restart policies away first, then stop what depends on others before what they need.

    Each gets the time that it was created with, as from `docker stop` by hand.
    """
    for member in recorded["members"]:
        found = inspect(member["id"])
        if found is not None and _policy(found)[0] != "no":
            must("docker", "update", "--restart=no", member["id"])
    for member in reversed(recorded["members"]):
        found = inspect(member["id"])
        if found is None or _state(found) not in _RUNS:
            continue
        if _state(found) == "paused":
            must("docker", "unpause", member["id"])
        own_s = found["Config"].get("StopTimeout")
        must("docker", "stop", member["id"], timeout_s=(_STOP_S if own_s is None else own_s) + 30)
    for member in recorded["members"]:
        other = inspect(member["name"])
        if other is not None and _state(other) in _RUNS:
            raise TenantError(
                "respawned",
                f"container {member['name']} was stopped and runs again as {other['Id'][:12]}: somebody starts it, "
                "as a unit or a scheduler; stop that first [tenant.respawned]",
            )


def missing(recorded: dict[str, Any]) -> tuple[list[tuple[str, str]], list[str]]:
    """What is still to be done until they are as recorded, as steps (verb, id), and what cannot be."""
    steps: list[tuple[str, str]] = []
    left = []
    for member in recorded["members"]:
        found = inspect(member["id"])
        if found is None:
            left.append(
                f"container {member['name']} ({member['id'][:12]}) was removed by somebody meanwhile; create it again "
                "by its own means if it is still wanted, then `dspark-ops tenants forget KEY`, as nothing else is owed "
                "to it [tenant.removed]"
            )
            continue
        if _policy(found)[0] == "no" and member["policy"] != "no":
            # Another policy than ours is somebody's word, and stays.
            steps.append(("policy", member["id"]))
        if member["state"] in _RUNS and _state(found) not in _RUNS:
            steps.append(("start", member["id"]))
        if member["state"] == "paused" and _state(found) != "paused":
            steps.append(("pause", member["id"]))
    return steps, left


def put_back(recorded: dict[str, Any], steps: list[tuple[str, str]]) -> None:
    """Do the steps, in the order of their dependencies."""
    members = {member["id"]: member for member in recorded["members"]}
    by_service = {member["service"]: member for member in recorded["members"] if member["service"]}
    for verb, identity in steps:
        member = members[identity]
        if verb == "policy":
            restart = restart_argument(member["policy"], member["retries"])
            must("docker", "update", f"--restart={restart}", identity)
        elif verb == "pause":
            must("docker", "pause", identity)
        else:
            for service, condition in member["depends_on"].items():
                if condition == "service_healthy" and service in by_service:
                    _wait_healthy(by_service[service])
            must("docker", "start", identity)


def hold(recorded: dict[str, Any]) -> list[tuple[str, str]]:
    """What is left of our own changes, as steps that take them back and start nothing."""
    return [step for step in missing(recorded)[0] if step[0] == "policy"]


def let_go(recorded: dict[str, Any]) -> None:
    """Give each container that is still there its policy back; `docker update` starts nothing."""
    put_back(recorded, hold(recorded))


def freed(recorded: dict[str, Any]) -> dict[str, Any]:
    """How they will be without our changes, for the diff under check mode."""
    ours = {identity for _verb, identity in hold(recorded)}
    told = describe(recorded)
    for member in recorded["members"]:
        found = inspect(member["id"])
        if found is not None and member["id"] in ours:
            policy = restart_argument(member["policy"], member["retries"])
            told[f"container {member['name']}"] = f"{_state(found)}, restart {policy}"
    return told


def stays(recorded: dict[str, Any]) -> list[str]:
    """How each is left when nothing is owed to it any more, in words."""
    told = []
    for member in recorded["members"]:
        found = inspect(member["id"])
        if found is None:
            told.append(f"container {member['name']} was removed, so nothing of ours is on it")
            continue
        policy = restart_argument(*_policy(found))
        later = ", which Docker starts when the machine or the Engine starts" if policy == "always" else ""
        told.append(
            f"container {member['name']} is {_state(found)} and was not started; restart policy {policy}{later}"
        )
    return told


def _wait_healthy(member: dict[str, Any]) -> None:
    def healthy() -> bool:
        found = inspect(member["id"])
        health = ((found or {}).get("State") or {}).get("Health") or {}
        return found is None or health.get("Status") in (None, "none", "healthy")

    if not wait(healthy, _HEALTH_WAIT_S):
        raise TenantError(
            "failed",
            f"container {member['name']} did not become healthy within {_HEALTH_WAIT_S} s, and others wait for it "
            "[tenant.owner]",
        )


def same(recorded: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two records tell of the same containers."""
    mine, theirs = ({member["id"] for member in document["members"]} for document in (recorded, other))
    return bool(mine & theirs)
