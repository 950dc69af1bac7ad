"""A node as the two readings show it, made of processes that a test names; texts as the kernel and the tools print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import Role
from dspark_ops.tenants.sight import NodeTenants, list_tenants
from dspark_ops.transport.base import NodeReading, ProbeResult

BOOTED_S = 1_795_000_000
MIB = 1024
GIB = 1 << 20
USERS = "root:x:0:0:root:/root:/bin/bash\nnvidia:x:1000:1000::/home/nvidia:/bin/bash\ngdm:x:120:120::/:/bin/false\n"
SESSION = "/user.slice/user-1000.slice/session-7.scope"
MANAGER = "/user.slice/user-1000.slice/user@1000.service"


def docker_id(letter: str) -> str:
    return letter * 64


@dataclass
class PlayedNode:
    """Texts by process and what the tools say. A tool that is None could not be run."""

    ps: list[dict[str, str]] | None = field(default_factory=list)
    apps: str | None = ""
    rollups: bool = True
    stats: dict[int, str] = field(default_factory=dict)
    statuses: dict[int, str] = field(default_factory=dict)
    cgroups: dict[int, str] = field(default_factory=dict)
    cmdlines: dict[int, str] = field(default_factory=dict)
    memory: dict[int, tuple[int, int]] = field(default_factory=dict)
    inspected: dict[str, ProbeResult] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    reader: int = 900

    def __post_init__(self) -> None:
        self.process(1, 0, "/sbin/init", cgroup="/init.scope", mib=12)
        self.process(2, 0, "", cgroup="/", mib=0, name="kthreadd")
        self.process(100, 1, "sshd: /usr/sbin/sshd -D", cgroup="/system.slice/ssh.service", mib=9000, title=True)
        self.process(110, 1, "/usr/bin/dockerd", cgroup="/system.slice/docker.service", mib=9000)
        self.process(890, 100, "sshd: nvidia@notty", cgroup=SESSION, mib=8, title=True)
        self.process(self.reader, 890, "python3 -I -", cgroup=SESSION, mib=9000)
        self.process(901, self.reader, "sudo -n python3 -c x", cgroup=SESSION, mib=9000)

    def process(
        self,
        pid: int,
        ppid: int,
        command: str,
        *,
        cgroup: str,
        mib: int,
        uid: int = 0,
        pss_mib: int | None = None,
        file_mib: int = 0,
        name: str | None = None,
        title: bool = False,
        ticks: int | None = None,
    ) -> PlayedNode:
        """A process. title: it named itself, so that its command is one argument with blanks and NULs behind."""
        short = (name or command.split(" ", 1)[0].rsplit("/", 1)[-1])[:15]
        flags = 0x208040 if short == "kthreadd" else 4194560
        start = pid * 100 if ticks is None else ticks
        self.stats[pid] = f"{pid} ({short}) S {ppid} {pid} {pid} 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 1 0 {start} 99 12\n"
        self.statuses[pid] = (
            f"Name:\t{short}\nPPid:\t{ppid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nVmRSS:\t{mib * MIB} kB\n"
        )
        self.cgroups[pid] = f"9:name=systemd:{cgroup}\n8:pids:{cgroup}\n7:blkio:/\n0::{cgroup}\n"
        words = [command + "   \0\0"] if title else command.split(" ")
        self.cmdlines[pid] = "\0".join(words) + "\0" if command else ""
        self.memory[pid] = ((mib if pss_mib is None else pss_mib) * MIB, file_mib * MIB)
        return self

    def container(
        self,
        letter: str,
        name: str,
        *,
        image: str = "some:1",
        state: str = "running",
        policy: str = "no",
        retries: int = 0,
        started: str = "2026-11-20T08:00:00.5Z",
        auto_remove: bool = False,
        labels: dict[str, str] | None = None,
    ) -> PlayedNode:
        identity = docker_id(letter)
        assert self.ps is not None
        given = labels or {}
        text = ",".join(f"{key}={value}" for key, value in given.items())
        self.ps.append({"ID": identity, "Names": name, "Image": image, "State": state, "Labels": text})
        document: list[dict[str, Any]] = [
            {
                "Id": identity,
                "Name": f"/{name}",
                "Image": "sha256:" + "1" * 64,
                "State": {"Status": state, "StartedAt": started},
                "Config": {"Image": image, "Labels": given, "Env": ["API_KEY=planted-secret"]},
                "HostConfig": {
                    "RestartPolicy": {"Name": policy, "MaximumRetryCount": retries},
                    "AutoRemove": auto_remove,
                },
            }
        ]
        self.inspected[identity] = ProbeResult(id=identity, rc=0, stdout=json.dumps(document), stderr="")
        return self

    def unit(self, name: str, uid: int | None = None, **properties: str) -> PlayedNode:
        told = {"Id": name, "LoadState": "loaded", "ActiveState": "active", **properties}
        self.units[f"unit.{'' if uid is None else uid}.{name}"] = "".join(f"{k}={v}\n" for k, v in told.items())
        return self

    def _files(self, part: str, texts: dict[int, str]) -> ProbeResult:
        return ProbeResult(id=f"proc.{part}", files={f"/proc/{pid}/{part}": text for pid, text in texts.items()})

    def first(self) -> NodeReading:
        own = {"/proc/self/stat": self.stats[self.reader]}
        rows = None if self.ps is None else "".join(json.dumps(row) + "\n" for row in self.ps)
        found = [
            self._files("stat", self.stats),
            self._files("status", self.statuses),
            self._files("cgroup", self.cgroups),
            self._files("cmdline", self.cmdlines),
            ProbeResult(id="proc.self", files=own),
            ProbeResult(id="proc.host", files={"/proc/stat": f"cpu 1 2\nintr 1\nbtime {BOOTED_S}\n"}),
            ProbeResult(id="proc.users", files={"/etc/passwd": USERS}),
            ProbeResult(id="memory.meminfo", files={"/proc/meminfo": "MemTotal: 127600748 kB\nMemAvailable: 900 kB\n"}),
            _said("docker.ps", rows, "Cannot connect to the Docker daemon"),
            _said("gpu.processes", self.apps, "NVIDIA-SMI has failed"),
        ]
        return _reading(found)

    def second(self) -> NodeReading:
        rollup = {pid: f"Rss: 1 kB\nPss: {pss} kB\nPss_File: {file} kB\n" for pid, (pss, file) in self.memory.items()}
        files = {f"/proc/{pid}/smaps_rollup": text for pid, text in rollup.items()} if self.rollups else {}
        cwds = "".join(f"'/proc/{pid}/cwd' -> '/srv/{pid}'\n" for pid in self.stats)
        found = [
            ProbeResult(id="proc.rollup", files=files),
            ProbeResult(id="proc.cwd", rc=1, stdout=cwds, stderr="stat: cannot statx"),
            *self.inspected.values(),
            *(ProbeResult(id=identity, rc=0, stdout=text) for identity, text in self.units.items()),
        ]
        return _reading(found)

    def seen(self, loaded: LoadedSite, role: Role = "head", *, has_gpu: bool = True) -> NodeTenants:
        """What is listed of this node."""
        sight = list_tenants(loaded.site, {role: (self.first(), self.second())}, has_gpu=has_gpu)
        return sight.nodes[role]


def _said(identity: str, text: str | None, trouble: str) -> ProbeResult:
    if text is None:
        return ProbeResult(id=identity, rc=1, stdout="", stderr=trouble)
    return ProbeResult(id=identity, rc=0, stdout=text, stderr="")


def _reading(results: Sequence[ProbeResult]) -> NodeReading:
    return NodeReading(node="head", reachable=True, sudo=True, results={result.id: result for result in results})
