"""What runs, read back from the processes of both ranks and compared with what was asked.

Two round trips a node, since the process ids are only known after the first. Only the first process of a container is
compared: it was started with the argument list and the environment that the container was given. The engine renames
the others and overwrites their memory as it does so; they are listed with their titles.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspark_ops.config.models import ROLES, Role
from dspark_ops.facts import docker_engine, gpu, memory, rank, system
from dspark_ops.facts.rank import HIDDEN, RankFacts
from dspark_ops.releases.model import Difference, EffectiveRank, EngineProcess, HostOfRelease, hide_argv, hide_env
from dspark_ops.transport.base import Command, Files, NodeReading, Probe
from dspark_ops.transport.ssh import SshRunner, read_nodes

_INSPECT, _TOP = (probe for probe in rank.PROBES if probe.id in ("rank.inspect", "rank.top"))
_ENGINE = next(probe for probe in docker_engine.PROBES if probe.id == "docker.info")
_IDENTITY = next(probe for probe in gpu.PROBES if probe.id == "gpu.identity")

#: The first round trip: the containers, and the hosts as a release remembers them.
PROBES: tuple[Probe, ...] = (_INSPECT, _TOP, _ENGINE, _IDENTITY, *system.PROBES, *memory.PROBES)

_AGAIN = Command(
    "rank.again",
    ("docker", "container", "inspect", rank.RANK_CONTAINER),
    root=True,
    timeout_s=rank.DOCKER_TIMEOUT_S,
    late=True,
)
_PROC = "effective.proc"
_IMAGE = "effective.image"
_MAX_BYTES = 1 << 18
# The Engine gives these to every container by itself, where the image does not.
_OF_DOCKER = frozenset({"HOSTNAME", "HOME", "TERM", "PATH"})
# And these to one with the GPU: the Engine's own driver, or the device description of the NVIDIA toolkit.
_OF_GPU = re.compile(r"NVIDIA_(?:VISIBLE_DEVICES|DRIVER_CAPABILITIES|CTK_[A-Z_]+)")
_INTERPRETER = re.compile(r"python(?:3(?:\.\d+)?)?")


@dataclass(frozen=True)
class ReadBack:
    """Both ranks as they run, and both hosts. A rank is None when it does not run or could not be read back: `why`."""

    effective: Mapping[Role, EffectiveRank | None]
    hosts: Mapping[Role, HostOfRelease]
    images: Mapping[Role, str | None]
    why: Mapping[Role, str]


def read_back(runners: Mapping[Role, SshRunner]) -> ReadBack:
    """Read both ranks back from their processes; two round trips a node, nothing is changed, nothing raises."""
    first = read_nodes(runners, dict.fromkeys(runners, PROBES))
    follow = {role: follow_up(first[role]) for role in runners}
    second = read_nodes(
        {role: runners[role] for role in runners if follow[role]}, {role: follow[role] for role in runners}
    )
    merged = {role: merge(first[role], second.get(role)) for role in runners}
    hosts = {role: host_of(merged[role], runners[role].target.alias) for role in runners}
    ranks = {role: rank.parse_inspect(merged[role].get("rank.inspect").text()) for role in runners}
    return ReadBack(
        effective=effective(merged),
        hosts=hosts,
        images={role: found.image_id if (found := ranks[role]) is not None else None for role in runners},
        why={role: reason for role in runners if (reason := why_not(merged[role])) is not None},
    )


def follow_up(reading: NodeReading) -> tuple[Probe, ...]:
    """What the second round trip asks, from what the first one saw; empty when no rank runs."""
    found = rank.parse_inspect(reading.get("rank.inspect").text())
    main = main_pid(reading)
    if found is None or not found.running or main is None:
        return ()
    pids = sorted({main, *(rank.parse_top(reading.get("rank.top").text()) or ())})
    patterns = [f"/proc/{pid}/cmdline" for pid in pids] + [f"/proc/{pid}/cgroup" for pid in pids]
    # The environment of the first process alone: nobody else's secrets leave the node.
    probes: list[Probe] = [Files(_PROC, (*patterns, f"/proc/{main}/environ"), max_bytes=_MAX_BYTES, root=True)]
    if found.image_id is not None:
        probes.append(Command(_IMAGE, ("docker", "image", "inspect", found.image_id), root=True))
    # Again, so that a container that was replaced in between is not mixed with the new one.
    return (*probes, _AGAIN)


def merge(first: NodeReading, second: NodeReading | None) -> NodeReading:
    """One reading of both round trips; a node that was lost in between has only the first."""
    if second is None or not second.reachable:
        return first
    return first.model_copy(update={"results": {**first.results, **second.results}})


def main_pid(reading: NodeReading) -> int | None:
    """The container's first process as the node counts it; None when it does not run."""
    state = _document(reading.get("rank.inspect").text()).get("State")
    pid = state.get("Pid") if isinstance(state, dict) else None
    return pid if isinstance(pid, int) and pid > 0 else None


def effective(readings: Mapping[Role, NodeReading]) -> dict[Role, EffectiveRank | None]:
    """Each rank's first process, from readings that hold both round trips; None when it could not be read back."""
    return {role: _effective(reading) for role, reading in readings.items()}


def why_not(reading: NodeReading) -> str | None:
    """Why a rank could not be read back whole, in words; None when it was."""
    read = _effective(reading)
    if read is not None:
        return None if read.image_env is not None else "what its image gives by itself could not be read"
    if not reading.reachable:
        return f"the node was not reached: {reading.error}"
    found = rank.parse_inspect(reading.get("rank.inspect").text())
    if found is None:
        return "there is no rank container" if rank.rank_known(reading) else "the rank container could not be read"
    if not found.running:
        return f"the rank is {found.state}"
    cmdline = (reading.get(_PROC).files or {}).get(f"/proc/{main_pid(reading)}/cmdline")
    if cmdline and _renamed(split_nul(cmdline)):
        return "its first process has renamed itself, so that its arguments cannot be seen any more"
    return "its first process could not be read as root, or ended meanwhile"


def _effective(reading: NodeReading) -> EffectiveRank | None:
    found = rank.parse_inspect(reading.get("rank.inspect").text())
    pid = main_pid(reading)
    files = reading.get(_PROC).files
    if found is None or pid is None or files is None or not _same_life(reading, found):
        return None
    raw, environ = files.get(f"/proc/{pid}/cmdline"), files.get(f"/proc/{pid}/environ")
    if not raw or environ is None or found.id not in files.get(f"/proc/{pid}/cgroup", found.id):
        return None
    argv, env = split_nul(raw), parse_environ(environ)
    if _renamed(argv):
        return None
    hidden_argv, hidden_env = hide_argv(argv), hide_env(env)
    return EffectiveRank(
        container=found.id,
        image_id=found.image_id,
        epoch=found.label("epoch"),
        argv=hidden_argv,
        env=hidden_env,
        image_env=image_env(reading.get(_IMAGE).text()),
        processes=tuple(
            EngineProcess(pid=other, title=" ".join(hide_argv(split_nul(text))).strip()[:200])
            for other in rank.parse_top(reading.get("rank.top").text()) or ()
            if (text := files.get(f"/proc/{other}/cmdline"))
        ),
        digests={
            **{f"argv {i}": _digest(word) for i, word in enumerate(argv) if hidden_argv[i] != word},
            **{f"env {name}": _digest(value) for name, value in env.items() if hidden_env[name] != value},
        },
    )


def _renamed(argv: Sequence[str]) -> bool:
    """A title as vLLM gives its processes stands where the arguments were."""
    return bool(argv) and argv[0].startswith("VLLM::")


def compare(
    documents: Mapping[Role, Mapping[str, Any]], found: Mapping[Role, EffectiveRank | None]
) -> tuple[Difference, ...]:
    """Where what runs is not what the documents asked for, head first. A rank that was not read back is a difference.

    The argument list must be equal word for word. Every variable that was asked for must be there and equal; another
    one may only be what the image gives by itself or the Engine gives to a container. An empty value is a value.
    """
    differences: list[Difference] = []
    for role in ROLES:
        if role not in documents:
            continue
        document, seen = documents[role], found.get(role)
        if seen is None:
            differences.append(Difference(role=role, what="process", name="first process", asked="one that runs"))
            continue
        if seen.image_id != document["image_id"]:
            differences.append(
                Difference(role=role, what="image", name="id", asked=str(document["image_id"]), effective=seen.image_id)
            )
        differences += _compare_argv(role, [str(word) for word in document["command"]], seen)
        env = {str(name): str(value) for name, value in document["env"].items()}
        differences += _compare_env(role, env, seen, gpus=bool(document.get("gpus")))
    return tuple(differences)


def own_argv(asked: Sequence[str], argv: Sequence[str]) -> tuple[str, ...]:
    """The argument list without what the kernel puts before a script: its interpreter, and the script's whole path."""
    words = list(argv)
    while words and len(words) > 1 and _INTERPRETER.fullmatch(posixpath.basename(words[0])):
        if asked and _INTERPRETER.fullmatch(posixpath.basename(asked[0])):
            break
        words.pop(0)
        # Options of the interpreter, which stand in the script's first line, as `-I`.
        while len(words) > 1 and re.fullmatch(r"-[A-Za-z]+", words[0]):
            words.pop(0)
    if words and asked and "/" not in asked[0] and posixpath.basename(words[0]) == asked[0]:
        words[0] = asked[0]
    return tuple(words)


def _compare_argv(role: Role, asked: Sequence[str], seen: EffectiveRank) -> list[Difference]:
    wanted, got = hide_argv(asked), own_argv(asked, seen.argv)
    before = len(seen.argv) - len(got)
    differences = []
    for place in range(max(len(wanted), len(got))):
        want = wanted[place] if place < len(wanted) else None
        have = got[place] if place < len(got) else None
        equal = want == have
        if equal and want is not None and want != asked[place]:
            equal = seen.digests.get(f"argv {place + before}") == _digest(asked[place])
        if not equal:
            differences.append(Difference(role=role, what="argv", name=str(place), asked=want, effective=have))
    return differences


def _compare_env(role: Role, asked: Mapping[str, str], seen: EffectiveRank, *, gpus: bool) -> list[Difference]:
    wanted = hide_env(asked)
    differences = []
    for name in sorted({*asked, *seen.env}):
        want, have = wanted.get(name), seen.env.get(name)
        if name not in asked and (have is None or _given(name, have, seen.image_env, gpus=gpus)):
            continue
        equal = want == have
        if equal and want == HIDDEN and asked[name] != HIDDEN:
            equal = seen.digests.get(f"env {name}") == _digest(asked[name])
        if not equal:
            differences.append(Difference(role=role, what="env", name=name, asked=want, effective=have))
    return differences


def _given(name: str, value: str, of_image: Mapping[str, str] | None, *, gpus: bool) -> bool:
    """Whether a variable that nobody asked for comes from the image or the Engine. An image that was not read may."""
    if of_image is None or of_image.get(name) == value:
        return True
    return (name in _OF_DOCKER and name not in of_image) or (gpus and _OF_GPU.fullmatch(name) is not None)


def split_nul(text: str) -> tuple[str, ...]:
    """The words of /proc/PID/cmdline: each ends with a NUL; an empty word is a word."""
    return tuple(text.removesuffix("\0").split("\0")) if text else ()


def parse_environ(text: str) -> dict[str, str]:
    """The variables of /proc/PID/environ. The first of a name counts, as for the C library."""
    env: dict[str, str] = {}
    for entry in text.split("\0"):
        name, equals, value = entry.partition("=")
        if name and equals:
            env.setdefault(name, value)
    return env


def image_env(text: str | None) -> dict[str, str] | None:
    """The variables that an image gives by itself, secrets hidden; None when it could not be read."""
    config = _document(text).get("Config")
    if not isinstance(config, dict):
        return None
    return rank.parse_env(config.get("Env"))


def host_of(reading: NodeReading, host: str) -> HostOfRelease:
    """A node as a release remembers it."""
    software, card = system.read_system(reading), gpu.read_gpu(reading)
    engine, available = docker_engine.read_engine(reading), memory.read_memory(reading)
    return HostOfRelease(
        host=host,
        hostname=reading.hostname,
        kernel=software.kernel if software else None,
        driver=card.driver if card else None,
        docker=engine.version if engine else None,
        mem_total_kib=available.mem_total_kib if available else None,
    )


def _same_life(reading: NodeReading, found: RankFacts) -> bool:
    """Whether both round trips saw the same container in the same life."""
    again = rank.parse_inspect(reading.get("rank.again").text())
    return again is not None and (again.id, again.started_at, again.running) == (found.id, found.started_at, True)


def _document(text: str | None) -> dict[str, Any]:
    try:
        parsed = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return {}
    first = parsed[0] if isinstance(parsed, list) and parsed else None
    return first if isinstance(first, dict) else {}


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
