"""Processes that matter beside the rank: engines, servers of other models, builds, and secrets in argument lists.

Of an argument list nothing is kept but what it was recognised by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from dspark_ops.facts.model import Fact
from dspark_ops.facts.processes import parse_cmdline
from dspark_ops.transport.base import Files, NodeReading, Probe

PROBES: tuple[Probe, ...] = (
    Files("noted.stat", ("/proc/[0-9]*/stat",), max_bytes=512),
    Files("noted.cmdline", ("/proc/[0-9]*/cmdline",), max_bytes=4096),
    Files("noted.cgroup", ("/proc/[0-9]*/cgroup",), max_bytes=2048),
)

ProcessKind = Literal["engine", "server", "build", "other"]

_ENGINE = re.compile(r"^(VLLM::|sglang::)")
_SERVERS = (
    ("ollama", re.compile(r"^(\S*/)?ollama(\s|$)")),
    ("llama.cpp", re.compile(r"^(\S*/)?llama-server(\s|$)")),
    ("vLLM", re.compile(r"^(\S*/)?(python[\d.]*\s+(\S*/)?)?(vllm\s+serve\b|-m\s+vllm\.entrypoints\b)|^vllm$")),
    ("SGLang", re.compile(r"^(\S*/)?python[\d.]*\s+-m\s+sglang\.(launch_server|srt)\b")),
    ("TensorRT-LLM", re.compile(r"^(\S*/)?(python[\d.]*\s+(\S*/)?)?trtllm-serve\b")),
    ("ComfyUI", re.compile(r"^(\S*/)?python[\d.]*\s.{0,200}ComfyUI\S*main\.py")),
    ("LM Studio", re.compile(r"^(\S*/)?(lm-studio|lmstudio|llmster)(\s|$)")),
    ("Ray", re.compile(r"^ray::|^(\S*/)?(raylet|gcs_server)(\s|$)")),
)
_BUILDS = re.compile(
    r"^(\S*/)?(docker(-buildx)?\s+(buildx\s+)?(build|bake)|docker-buildx\s+buildx|nvcc|cicc|ptxas|ninja|bazel)(\s|$)"
)
_SECRETS = (
    ("--api-key", re.compile(r"--api[-_]key[= ][^\s$<]")),
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{20}")),
    ("an API key", re.compile(r"\bsk-[A-Za-z0-9_-]{20}")),
)
#: Parents that adopt a process whose own parent died.
_ADOPTERS = frozenset({"systemd", "init", "tini", "docker-init", "dumb-init", "catatonit", "sleep"})
_CONTAINER = re.compile(r"[/-]([0-9a-f]{64})(?![0-9a-f])")
_PID = re.compile(r"^/proc/(\d{1,10})/")
_STAT = re.compile(r"^\d{1,10} \((.{0,64})\) \S (\d{1,10}) ", re.DOTALL)
_READ_CHARS = 600


class NotedProcess(Fact):
    """One process. what: the server's name, the engine's title, the builder. container: the id of the one it is in.

    orphan: an engine whose own parent is gone. secret: what kind of secret its arguments show to every user.
    """

    pid: int
    kind: ProcessKind
    what: str
    container: str | None = None
    orphan: bool = False
    secret: str | None = None


def parse_noted(
    stats: Mapping[str, str], cmdlines: Mapping[str, str], cgroups: Mapping[str, str]
) -> tuple[NotedProcess, ...]:
    """The processes that are recognised, by pid. One whose state ended before it could be read is not there."""
    parents = {pid: parent for pid, parent in (_parentage(path, text) for path, text in stats.items()) if pid}
    found = []
    for path, text in cmdlines.items():
        pid = _pid(path)
        words = parse_cmdline(text)
        if pid is None or not words or pid not in parents:
            continue
        line = " ".join(words)
        kind, what = recognise(line)
        secret = secret_in(line)
        if kind == "other" and secret is None:
            continue
        ids = _CONTAINER.findall(cgroups.get(path.removesuffix("cmdline") + "cgroup", ""))
        parent = parents[pid]
        above = parents.get(parent[0])
        orphan = kind == "engine" and (parent[0] <= 1 or above is None or above[1] in _ADOPTERS)
        within = ids[-1] if ids else None
        found.append(NotedProcess(pid=pid, kind=kind, what=what, container=within, orphan=orphan, secret=secret))
    return tuple(sorted(found, key=lambda process: process.pid))


def recognise(line: str) -> tuple[ProcessKind, str]:
    """What an argument list, joined by blanks, runs."""
    front = line[:_READ_CHARS]
    if _ENGINE.match(front):
        return "engine", front.split()[0][:40]
    for name, pattern in _SERVERS:
        if pattern.search(front):
            return "server", name
    built = _BUILDS.match(front)
    if built:
        return "build", built[0].split()[0].rsplit("/", 1)[-1]
    return "other", front.split()[0].rsplit("/", 1)[-1][:40] if front.split() else ""


def secret_in(line: str) -> str | None:
    """The kind of secret that an argument list shows, never the secret."""
    return next((name for name, pattern in _SECRETS if pattern.search(line)), None)


def _pid(path: str) -> int | None:
    found = _PID.match(path)
    return int(found[1]) if found else None


def _parentage(path: str, text: str) -> tuple[int | None, tuple[int, str]]:
    found = _STAT.match(text)
    return (_pid(path), (int(found[2]), found[1])) if found else (None, (0, ""))


def read_noted(reading: NodeReading) -> tuple[NotedProcess, ...] | None:
    """The processes of a reading; None when they could not be read."""
    stats, cmdlines, cgroups = (reading.get(f"noted.{part}").files for part in ("stat", "cmdline", "cgroup"))
    if not stats or cmdlines is None or cgroups is None:
        return None
    return parse_noted(stats, cmdlines, cgroups)
