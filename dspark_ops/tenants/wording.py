"""How a holder would be stopped and how it would come back, in one line each. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dspark_ops.facts.units import UnitFacts
from dspark_ops.tenants.model import ContainerIdentity

_STAY = ("no", None)


def container_held_by(member: ContainerIdentity) -> str | None:
    """What would start a stopped or killed container again."""
    if member.restart_policy in _STAY:
        return None
    tries = f":{member.restart_retries}" if member.restart_policy == "on-failure" and member.restart_retries else ""
    return f"Docker, restart policy {member.restart_policy}{tries}"


def members_held_by(members: Sequence[ContainerIdentity]) -> str | None:
    """The same of a project: each policy once."""
    policies = dict.fromkeys(held for member in members if (held := container_held_by(member)))
    return "; ".join(policies) or None


def container_words(member: ContainerIdentity) -> tuple[str, str]:
    """(stops by, comes back by) of one container."""
    if member.auto_remove:
        return f"docker stop {member.name}", "nothing: it was started with --rm, so stopping it removes it"
    if member.restart_policy in _STAY:
        return f"docker stop {member.name}", f"docker start {member.name}, the same container"
    return (
        f"restart policy no, docker stop {member.name}",
        f"docker start {member.name}, the same container, restart policy {member.restart_policy} again",
    )


def project_words(members: Sequence[ContainerIdentity]) -> tuple[str, str]:
    """(stops by, comes back by) of a compose project."""
    count = f"{len(members)} container{'' if len(members) == 1 else 's'}"
    removed = [member.name for member in members if member.auto_remove]
    back = f"docker start of the same {count}, with their restart policies"
    if removed:
        back += f"; but not {', '.join(removed)}, started with --rm"
    return f"docker stop of its {count}, the last started first", back


def unit_held_by(unit: UnitFacts | None) -> str | None:
    """What would start a stopped or killed unit again."""
    if unit is None:
        return None
    found = [f"systemd, Restart={unit.restart}"] if unit.restart not in (None, "no") else []
    return "; ".join([*found, *unit.triggered_by]) or None


def unit_words(name: str, unit: UnitFacts | None, user: str | None) -> tuple[str, str]:
    """(stops by, comes back by) of a unit. user: of whose own manager it is."""
    control = "systemctl" if user is None else "systemctl --user"
    whose = "" if user is None else f" as {user}"
    also = "".join(f" {trigger}" for trigger in (unit.triggered_by if unit is not None else ()))
    stops = f"{control} stop {name}{also}{whose}"
    enablement = unit.enablement if unit is not None else None
    if enablement == "transient":
        return stops, "nothing: systemd forgets a transient unit when it stops"
    if enablement is None:
        return stops, f"{control} start {name}{whose}; whether a boot starts it could not be read"
    return stops, f"{control} start {name}{whose}; {enablement} again"


def process_words(pid: int, children: int) -> tuple[str, str]:
    """(stops by, comes back by) of a bare process."""
    below = f" and {children} below it" if children else ""
    return f"SIGTERM to pid {pid}{below}", "its recorded command, only with --start-processes"


def orphan_words(pids: Sequence[int]) -> tuple[str, str]:
    """(stops by, comes back by) of an engine process that lost its server."""
    return (
        f"SIGTERM, then SIGKILL, to pid {', '.join(map(str, pids))}",
        "nothing: the server that it belonged to is gone",
    )


def desktop_words(display_unit: str | None, user: str) -> tuple[str, str]:
    """(stops by, comes back by) of a desktop; only ever when it is named."""
    if display_unit is None:
        return f"loginctl terminate-user {user}: it ends what is open on the screen", "logging in again"
    return (
        f"systemctl stop {display_unit}: it ends what is open on the screen",
        f"systemctl start {display_unit}, and logging in again",
    )
