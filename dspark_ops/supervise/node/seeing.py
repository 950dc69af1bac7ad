"""From a node's raw look (`sight.look_here`, perhaps over the link) to the words of `core`. Pure; trusts no field."""

from __future__ import annotations

from typing import Any

from dspark_ops.supervise.core.model import FatalLine, NodeSight, RankSight, RankState, Role

_GIB = 1 << 30


def unreachable(paths: dict[str, bool | None]) -> NodeSight:
    """A node that no path led to. A path that was not tried in this round is as good as tried: all are, in turn."""
    return NodeSight(by_management=False if "management" in paths else None, by_fabric=False)


def node_sight(role: Role, raw: dict[str, Any], site: str, api_port: int | None) -> NodeSight:
    """What a look tells. How the node was reached is not in it."""
    boot_id = _text(raw.get("boot_id"))
    taken = raw.get("taken")
    gpu = raw.get("gpu")
    available = raw.get("mem_available_bytes")
    listening = None
    if role == "head" and api_port is not None and isinstance(taken, list):
        listening = api_port in taken
    return NodeSight(
        boot_id=boot_id,
        ended_in_order=_flag(raw.get("ended_in_order")),
        mem_available_gib=available / _GIB if type(available) is int else None,
        clock_synced=_flag(raw.get("clock_synced")),
        up_s=_number(raw.get("boot_s")),
        fatal=fatal_of(role, boot_id, raw.get("kernel")),
        port_holders=_texts(raw.get("port_holders")),
        memory_holders=_texts(raw.get("memory_holders")),
        left=_texts(raw.get("left")),
        api_listening=listening,
        gpu_power_w=_number(gpu.get("power_w")) if isinstance(gpu, dict) else None,
        gpu_util_percent=_number(gpu.get("util_pct")) if isinstance(gpu, dict) else None,
        rank=rank_sight(raw.get("container"), raw.get("container_known") is True, site),
    )


def rank_sight(found: object, known: bool, site: str) -> RankSight:
    """The rank of a look. known: whether Docker answered."""
    if not known:
        return RankSight()
    if found is None:
        return RankSight(state="absent")
    if not isinstance(found, dict):
        return RankSight()
    if found.get("site") != site:
        return RankSight(state="foreign")
    states: dict[str, RankState] = {"running": "running", "exited": "exited", "dead": "exited", "created": "created"}
    # A paused container does not end by itself, and one that is restarting or being removed is between two states.
    code = found.get("exit_code")
    return RankSight(
        state=states.get(str(found.get("state")), "unknown"),
        epoch=_text(found.get("epoch")),
        release=_text(found.get("release")),
        exit_code=code if type(code) is int else None,
        oom_killed=_flag(found.get("oom_killed")),
        main_pid=found.get("pid") if type(found.get("pid")) is int else None,
        started_at=_text(found.get("started_at")),
    )


def fatal_of(role: Role, boot_id: str | None, kernel: object) -> tuple[FatalLine, ...]:
    """Lines about broken hardware, each named by node, boot and its time in the boot; which are fatal, `core` knows."""
    lines = []
    for line in kernel if isinstance(kernel, list) else []:
        if not isinstance(line, dict):
            continue
        code = line.get("code") if type(line.get("code")) is int else None
        at = _number(line.get("boot_s"))
        what = "aer" if code is None else f"xid{code}"
        lines.append(
            FatalLine(
                key=f"{role}:{(boot_id or 'unknown')[:8]}:{'' if at is None else at}:{what}",
                kind="aer" if code is None else "xid",
                code=code,
                text=f"{role}: {line.get('text')}"[:300],
            )
        )
    return tuple(lines)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item)[:200] for item in value) if isinstance(value, list) else ()
