"""Releases and readings for the tests: small ones that are whole, and arbitrary ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from dspark_ops.config.models import ROLES, Role
from dspark_ops.releases.model import (
    CacheOfRelease,
    Difference,
    EffectiveRank,
    EngineProcess,
    GateResult,
    HostOfRelease,
    ImageOfRelease,
    ModelOfRelease,
    Release,
    ReleaseStatus,
    StartOfRelease,
)
from dspark_ops.transport.base import NodeReading, ProbeResult

IMAGE = "sha256:" + "1" * 64
BEGAN = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
CONTAINER = "c" * 64
MAIN_PID = 4711


def at(minutes: float) -> datetime:
    return BEGAN + timedelta(minutes=minutes)


def start(
    epoch: str, minutes: float, status: ReleaseStatus = "served", gate: GateResult | None = None
) -> StartOfRelease:
    ready = at(minutes + 1) if status != "failed" else None
    return StartOfRelease(epoch=epoch, status=status, started_at=at(minutes), ready_at=ready, gate=gate)


def document(role: Role, **changes: Any) -> dict[str, Any]:
    base = {
        "name": "dspark-rank",
        "image_id": IMAGE,
        "command": ["vllm", "serve", "/models/m", "--max-num-seqs=4", f"--node-rank={ROLES.index(role)}"],
        "env": {"NCCL_DEBUG": "WARN", "VLLM_HOST_IP": "10.77.0.1", "EMPTY": ""},
        "mounts": [],
        "volumes": [{"name": "dspark-cache-111111111111", "target": "/var/cache/dspark"}],
        "devices": [],
        "shm_size_bytes": 1 << 30,
        "gpus": False,
        "labels": {"io.dspark-ops.role": role, "io.dspark-ops.release": "r-000000000001"},
    }
    return {**base, **changes}


def release(identity: str = "r-000000000001", minutes: float = 0, **changes: Any) -> Release:
    values: dict[str, Any] = {
        "id": identity,
        "site": "desk",
        "profile": "rehearsal",
        "image": ImageOfRelease(id=IMAGE, reference="engine:abc", per_rank=dict.fromkeys(ROLES, IMAGE)),
        "model": ModelOfRelease(path="/models/m", served_name="m"),
        "documents": {role: document(role) for role in ROLES},
        "cache": CacheOfRelease(volume="dspark-cache-111111111111", root="/var/cache/dspark"),
        "site_digest": "0" * 64,
        "tool_version": "0.1.0",
        "hosts": {role: HostOfRelease(host=f"spark-{role}", kernel="6.17", mem_total_kib=1 << 27) for role in ROLES},
        "start": start(f"{identity}-{minutes}", minutes),
    }
    return Release(**{**values, **changes})


def inspect_text(*, running: bool = True, image: str = IMAGE, started: str = "2026-11-27T12:00:00.5Z") -> str:
    return json.dumps(
        [
            {
                "Id": CONTAINER,
                "Image": image,
                "State": {
                    "Status": "running" if running else "exited",
                    "Pid": MAIN_PID if running else 0,
                    "ExitCode": 0,
                    "StartedAt": started,
                },
                "Config": {"Labels": {"io.dspark-ops.epoch": "e1"}, "Env": []},
            }
        ]
    )


def reading(role: Role, results: dict[str, ProbeResult]) -> NodeReading:
    return NodeReading(node=role, reachable=True, user="nvidia", sudo=True, hostname=f"host-{role}", results=results)


def whole_reading(
    role: Role,
    argv: list[str],
    env: dict[str, str],
    *,
    image_env: tuple[str, ...] = ("PATH=/opt/bin:/bin", "LANG=C.UTF-8"),
    again: str | None = None,
) -> NodeReading:
    """Both round trips of a rank that runs, as a node answers them."""
    told = {
        "rank.inspect": inspect_text(),
        "rank.again": inspect_text() if again is None else again,
        "rank.top": f"PID\n{MAIN_PID}\n4800\n",
        "effective.image": json.dumps([{"Id": IMAGE, "Config": {"Env": list(image_env)}}]),
    }
    results = {name: ProbeResult(id=name, rc=0, stdout=text) for name, text in told.items()}
    files = {
        f"/proc/{MAIN_PID}/cmdline": "".join(f"{word}\0" for word in argv),
        f"/proc/{MAIN_PID}/environ": "".join(f"{name}={value}\0" for name, value in env.items()),
        f"/proc/{MAIN_PID}/cgroup": f"0::/system.slice/docker-{CONTAINER}.scope\n",
        "/proc/4800/cmdline": "VLLM::EngineCore\0\0\0",
    }
    results["effective.proc"] = ProbeResult(id="effective.proc", files=files)
    return reading(role, results)


_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_NAMES = st.from_regex(r"[A-Z][A-Z_]{0,8}", fullmatch=True)
_OPTIONS = st.one_of(
    _WORDS,
    st.builds("--{}={}".format, st.sampled_from(["max-num-seqs", "api-key", "kv", "tensor-parallel-size"]), _WORDS),
)
_TIMES = st.datetimes(timezones=st.just(UTC), min_value=datetime(2026, 1, 1), max_value=datetime(2030, 1, 1))
_SECONDS = st.floats(0, 1e6, allow_nan=False)
_GATES = st.builds(
    GateResult,
    command=st.lists(_WORDS, min_size=1, max_size=3).map(tuple),
    outcome=st.sampled_from(["passed", "failed", "timed-out", "not-startable"]),
    rc=st.none() | st.integers(-15, 255),
    started_at=_TIMES,
    elapsed_s=_SECONDS,
    message=_WORDS,
    tail=st.lists(_WORDS, max_size=3).map(tuple),
)
_STARTS = st.builds(
    StartOfRelease,
    epoch=st.uuids().map(lambda u: u.hex),
    status=st.sampled_from(["served", "failed", "rolled-back"]),
    reason=st.none() | _WORDS,
    started_at=_TIMES,
    ready_at=st.none() | _TIMES,
    ended_at=st.none() | _TIMES,
    phases_s=st.dictionaries(_WORDS, _SECONDS, max_size=3),
    gate=st.none() | _GATES,
)
_RANKS = st.builds(
    EffectiveRank,
    container=_WORDS,
    image_id=st.none() | _WORDS,
    epoch=st.none() | _WORDS,
    argv=st.lists(_OPTIONS, min_size=1, max_size=4).map(tuple),
    env=st.dictionaries(_NAMES, _WORDS, max_size=4),
    image_env=st.none() | st.dictionaries(_NAMES, _WORDS, max_size=4),
    processes=st.lists(st.builds(EngineProcess, pid=st.integers(1, 1 << 22), title=_WORDS), max_size=2).map(tuple),
)
_HOSTS = st.builds(
    HostOfRelease, host=_WORDS, kernel=st.none() | _WORDS, mem_total_kib=st.none() | st.integers(0, 1 << 40)
)


@st.composite
def releases(draw: st.DrawFn) -> Release:
    """Any release that the model allows."""
    documents = {
        role: document(
            role,
            command=draw(st.lists(_OPTIONS, max_size=6)),
            env=draw(st.dictionaries(_NAMES | st.just("HF_TOKEN"), _WORDS, max_size=4)),
            shm_size_bytes=draw(st.integers(0, 1 << 40)),
        )
        for role in ROLES
    }
    roles = st.sampled_from(ROLES)
    return release(
        "r-" + draw(st.text("0123456789abcdef", min_size=6, max_size=12)),
        image=ImageOfRelease(
            id=draw(_WORDS), reference=draw(_WORDS), per_rank=draw(st.dictionaries(roles, st.none() | _WORDS))
        ),
        model=ModelOfRelease(path=draw(_WORDS), served_name=draw(_WORDS), revision=draw(st.none() | _WORDS)),
        documents=documents,
        effective=draw(st.dictionaries(roles, st.none() | _RANKS)),
        differences=draw(
            st.none()
            | st.lists(st.builds(Difference, role=roles, what=st.just("argv"), name=_WORDS), max_size=2).map(tuple)
        ),
        hosts=draw(st.dictionaries(roles, _HOSTS)),
        start=draw(_STARTS),
        earlier=tuple(draw(st.lists(_STARTS, max_size=2))),
        profile=draw(_WORDS),
    )
