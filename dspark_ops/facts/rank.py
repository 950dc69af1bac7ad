"""The rank's container: what the running process was really given, and how it ended."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import Field

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading, Probe

RANK_CONTAINER = "dspark-rank"
LABEL = "io.dspark-ops."
# An Engine that is started by its first caller takes its time. Where `docker info` is asked as well, as by the doctor,
# its shorter limit tells an Engine that hangs, and these end with it.
DOCKER_TIMEOUT_S = 20.0

PROBES: tuple[Probe, ...] = (
    Command("rank.inspect", ("docker", "container", "inspect", RANK_CONTAINER), root=True, timeout_s=DOCKER_TIMEOUT_S),
    Command(
        "rank.top", ("docker", "container", "top", RANK_CONTAINER, "-eo", "pid"), root=True, timeout_s=DOCKER_TIMEOUT_S
    ),
    # Shared pages are divided among those who share them, so that the sum is what ends with the container.
    Command(
        "rank.memory",
        ("docker", "container", "top", RANK_CONTAINER, "-ww", "-eo", "pid,pss,args"),
        root=True,
        timeout_s=DOCKER_TIMEOUT_S,
    ),
    Command("rank.tail", ("docker", "logs", "--tail", "200", RANK_CONTAINER), root=True, timeout_s=DOCKER_TIMEOUT_S),
)

# vLLM 0.32 writes the first when its API server was asked to stop, the second when a headless rank was. The second
# also follows a death, which says so before it; an engine that died exits with 0 all the same.
_ORDERLY = re.compile(r"\[shutdown\] API server: |\[shutdown\] Executor: waiting for worker exit")
_ENGINE_DEAD = re.compile(
    r"EngineCore encountered a fatal error|EngineDeadError|AsyncLLM output_handler failed|died unexpectedly"
    r"|WorkerProc failed to start|Engine core initialization failed"
)
_SECRET = re.compile(r"token|secret|password|passwd|api_?key|credential", re.IGNORECASE)
HIDDEN = "<hidden>"


class RankMount(Fact):
    """One mount of the container. kind: bind, volume or tmpfs. source: a path of the node, or the volume's name."""

    kind: str
    source: str
    target: str
    read_only: bool | None = None


class RankFacts(Fact):
    """The container named dspark-rank. env holds what was defined; a value may be the empty string, which is not unset.

    state: running, exited, created, paused, dead … as Docker says. pids: of its processes, as the node counts them;
    None when it does not run or they could not be read. memory_kib: what they hold in resident memory, without what a
    GPU driver gave them. ended_in_order: it exited and its log says it was asked to;
    None when it did not exit, or its log could not be read. last_line: of its log, for evidence. main_pid: its first
    process as the node counts. made_from: the image by the words it was started with, a name or an id.
    """

    id: str
    state: str | None = None
    exit_code: int | None = None
    oom_killed: bool | None = None
    error: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    restart_count: int | None = None
    image_id: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    args: tuple[str, ...] = ()
    restart_policy: str | None = None
    network_mode: str | None = None
    ipc_mode: str | None = None
    shm_size_bytes: int | None = None
    gpu_requested: bool | None = None
    pids: tuple[int, ...] | None = None
    memory_kib: int | None = None
    ended_in_order: bool | None = None
    engine_died: bool | None = None
    last_line: str | None = None
    main_pid: int | None = None
    made_from: str | None = None
    mounts: tuple[RankMount, ...] | None = None

    def label(self, name: str) -> str | None:
        """One of our labels by its short name (site, role, release, epoch, spec)."""
        return self.labels.get(LABEL + name) or None

    @property
    def running(self) -> bool | None:
        return None if self.state is None else self.state == "running"


def parse_inspect(text: str | None) -> RankFacts | None:
    """`docker container inspect NAME`; values of variables that look like secrets are hidden at once."""
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, list) or not document or not isinstance(document[0], dict):
        return None
    item: dict[str, Any] = document[0]
    if not isinstance(item.get("Id"), str):
        return None
    state, config, host = _part(item, "State"), _part(item, "Config"), _part(item, "HostConfig")
    policy = _part(host, "RestartPolicy")
    requests = host.get("DeviceRequests")
    path, arguments = item.get("Path"), item.get("Args")
    labels = config.get("Labels")
    return RankFacts(
        id=item["Id"],
        state=_text(state.get("Status")),
        exit_code=_number(state.get("ExitCode")) if state.get("Status") in ("exited", "dead") else None,
        oom_killed=state.get("OOMKilled") if isinstance(state.get("OOMKilled"), bool) else None,
        error=_text(state.get("Error")),
        started_at=_text(state.get("StartedAt")),
        finished_at=_text(state.get("FinishedAt")),
        restart_count=_number(item.get("RestartCount")),
        image_id=_text(item.get("Image")),
        labels={str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {},
        env=parse_env(config.get("Env")),
        args=(*((path,) if isinstance(path, str) else ()), *map(str, arguments if isinstance(arguments, list) else ())),
        restart_policy=_text(policy.get("Name")) or ("no" if policy else None),
        network_mode=_text(host.get("NetworkMode")),
        ipc_mode=_text(host.get("IpcMode")),
        shm_size_bytes=_number(host.get("ShmSize")),
        gpu_requested=bool(requests) if isinstance(requests, list) or requests is None else None,
        main_pid=_number(state.get("Pid")) or None,
        made_from=_text(config.get("Image")),
        mounts=parse_mounts(item.get("Mounts")),
    )


def parse_mounts(entries: object) -> tuple[RankMount, ...] | None:
    """`Mounts` of an inspection; None when it is not a list. A volume is named, not placed."""
    if not isinstance(entries, list):
        return None
    found = []
    for item in entries:
        if not isinstance(item, dict) or not isinstance(item.get("Destination"), str):
            continue
        kind = str(item.get("Type") or "bind")
        source = item.get("Name") if kind == "volume" else item.get("Source")
        writable = item.get("RW")
        found.append(
            RankMount(
                kind=kind,
                source=str(source or ""),
                target=item["Destination"],
                read_only=not writable if isinstance(writable, bool) else None,
            )
        )
    return tuple(found)


def parse_env(entries: object) -> dict[str, str]:
    """`NAME=value` entries; a name alone is a variable that is defined and empty."""
    env = {}
    for entry in entries if isinstance(entries, list) else []:
        name, _, value = str(entry).partition("=")
        if name:
            env[name] = HIDDEN if value and _SECRET.search(name) else value
    return env


def parse_top(text: str | None) -> tuple[int, ...] | None:
    """The process ids of `docker container top NAME -eo pid`."""
    if text is None:
        return None
    return tuple(int(word) for word in text.split() if _is_count(word))


def parse_top_memory(text: str | None) -> int | None:
    """The sum in KiB of `docker container top NAME -eo pid,pss,args`; None unless every process has a figure."""
    rows = [line.split()[:2] for line in (text or "").splitlines()[1:] if line.strip()]
    if not rows or not all(len(row) == 2 and all(_is_count(cell) for cell in row) for row in rows):
        return None
    return sum(int(kib) for _, kib in rows)


def _is_count(cell: str) -> bool:
    return cell.isascii() and cell.isdecimal() and len(cell) < 16


def orderly_end(log: str | None) -> bool | None:
    """True when the log says the engine was asked to stop and did not die of something before; None without a log."""
    return None if log is None else bool(_ORDERLY.search(log)) and not _ENGINE_DEAD.search(log)


def _part(item: dict[str, Any], key: str) -> dict[str, Any]:
    value = item.get(key)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_rank(reading: NodeReading) -> RankFacts | None:
    """The rank's container of a reading; None when there is none or it could not be read: `rank_known` tells which."""
    rank = parse_inspect(reading.get("rank.inspect").text())
    if rank is None:
        return None
    tail = reading.get("rank.tail")
    log = None if tail.text() is None else (tail.stdout or "") + (tail.stderr or "")
    lines = [line.strip() for line in (log or "").splitlines() if line.strip()]
    return rank.model_copy(
        update={
            "pids": parse_top(reading.get("rank.top").text()) if rank.running else None,
            "memory_kib": parse_top_memory(reading.get("rank.memory").text()) if rank.running else None,
            "ended_in_order": orderly_end(log) if rank.state in ("exited", "dead") else None,
            "engine_died": bool(_ENGINE_DEAD.search(log)) if log is not None else None,
            "last_line": lines[-1][:300] if lines else None,
        }
    )


def rank_known(reading: NodeReading) -> bool:
    """True when it is known whether the container exists: it was seen, or Docker said that there is none."""
    result = reading.get("rank.inspect")
    return parse_inspect(result.text()) is not None or (
        result.rc == 1 and "no such container" in (result.stderr or "").lower()
    )
