"""Pairs that another recipe runs, as the two round trips of `doctor HEAD WORKER` would read them. Reconstructed."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from dspark_ops.config.models import NODE_RANK, ROLES, Role
from dspark_ops.doctor.foreign.facts import PROCESS
from dspark_ops.doctor.foreign.look import FIRST, ForeignRequest, Look, combine, prepare
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.facts.captures import FIXTURES

FOREIGN = FIXTURES / "foreign"
NAMES = sorted(path.stem for path in FOREIGN.glob("*.json"))
REQUEST = ForeignRequest("gx10-a", "gx10-b")
HEAD_IP, WORKER_IP = "10.77.0.1", "10.77.0.2"
PID = 4242
_IDENTITY = {"head": "a" * 64, "worker": "b" * 64}
_IMAGE = "sha256:" + "c" * 64
_DGX = (
    'DGX_NAME="DGX Spark"\nDGX_SWBUILD_VERSION="7.2.3"\nDGX_OTA_VERSION="7.5.0"\nDGX_SERIAL_NUMBER="1983925000{n}17"\n'
)


@cache
def recipe(name: str) -> dict[str, Any]:
    """One recipe's file."""
    document: dict[str, Any] = json.loads((FOREIGN / f"{name}.json").read_text(encoding="utf-8"))
    assert document["kind"] == "reconstructed"
    assert document["source"]
    return document


def first_readings(document: dict[str, Any]) -> dict[Role, NodeReading]:
    """What the first round trip would bring."""
    return {role: _node(role, document, _searched(role, document)) for role in ROLES}


def second_readings(document: dict[str, Any]) -> dict[Role, NodeReading]:
    """What the second round trip would bring."""
    return {role: _node(role, document, _judged(role, document)) for role in ROLES}


def look_at_recipe(document: dict[str, Any], *, request: ForeignRequest = REQUEST) -> Look:
    """The whole look, without a node."""
    first = first_readings(document)
    found = prepare(request, first)
    second = second_readings(document)
    placed = {role: second[found.order[role]] for role in ROLES}
    return combine(
        found.loaded, found.pair, {r: first[found.order[r]] for r in ROLES}, placed, found.probes(active=False)
    )


def argv_of(role: Role, document: dict[str, Any]) -> list[str]:
    """The process's argument list on one node."""
    return [*document["interpreter"], *(w for word in document["argv"] if (w := _filled(role, word)) is not None)]


def env_of(role: Role, document: dict[str, Any], *, declared: bool = False) -> dict[str, str]:
    """The variables of the process; declared: as the container was told, before its shell changed them."""
    names = {**document["env"], **(document.get("declared_env", {}) if declared else {})}
    return {name: _filled(role, value) or "" for name, value in names.items()}


def _filled(role: Role, word: str) -> str | None:
    for other in ROLES:
        if word.startswith(f"{other}:"):
            return word.removeprefix(f"{other}:") if other == role else None
    address = HEAD_IP if role == "head" else WORKER_IP
    return word.replace("{ip}", address).replace("{head_ip}", HEAD_IP).replace("{rank}", str(NODE_RANK[role]))


def _serves(role: Role, document: dict[str, Any]) -> bool:
    return role in document.get("on", ROLES)


@cache
def _base(role: Role) -> NodeReading:
    return NodeReading.model_validate_json((FIXTURES / f"rehearsal/{role}.json").read_text(encoding="utf-8"))


def _node(role: Role, document: dict[str, Any], results: dict[str, ProbeResult]) -> NodeReading:
    host = "gx10-a" if role == "head" else "gx10-b"
    return _base(role).model_copy(update={"node": role, "hostname": host, "user": "nvidia", "results": results})


def _hardware(role: Role) -> dict[str, ProbeResult]:
    """The recorded node without its marker, as a Spark would say it."""
    base = dict(_base(role).results)
    kept = {name: r for name, r in base.items() if not name.startswith(("rank.", "docker.", "service.", "jumbo."))}
    files = dict(kept["system.files"].files or {})
    files.pop("/etc/dspark-lab.json", None)
    files["/etc/dgx-release"] = _DGX.replace("{n}", str(NODE_RANK[role]))
    return kept | {
        "system.files": ProbeResult(id="system.files", files=files),
        "system.uname": _said("system.uname", "Linux 6.17.0-1014-nvidia aarch64\n"),
        "gpu.identity": _said("gpu.identity", "NVIDIA GB10, 580.142, 12.1\n"),
        "gpu.processes": _said("gpu.processes", f"{PID + 1}, VLLM::Worker_TP{NODE_RANK[role]}, 95245 MiB\n"),
    }


def _searched(role: Role, document: dict[str, Any]) -> dict[str, ProbeResult]:
    container, serves = document.get("container"), _serves(role, document)
    path = (
        f"/system.slice/docker-{_IDENTITY[role]}.scope" if container else "/user.slice/user-1000.slice/session-3.scope"
    )
    table = {1: (0, "systemd", ["/sbin/init"], "/init.scope"), 900: (1, "SCREEN", ["SCREEN", "-dmS", "v"], path)}
    if container:
        table[900] = (1, "containerd-shim", ["/usr/bin/containerd-shim-runc-v2"], "/system.slice/docker.service")
    if document.get("ray"):
        table[3000] = (900, "raylet", ["/usr/local/bin/raylet"], path)
    if serves:
        above = 900
        if container and "own_command" in container:
            table[4000] = (900, "sleep", container["own_command"], path)
        table[PID] = (above, "vllm", argv_of(role, document), path)
        table[PID + 1] = (PID, "VLLM::Worker", [f"VLLM::Worker_TP{NODE_RANK[role]}"], path)
    results = {name: result for name, result in _hardware(role).items() if not name.startswith("gpu.")}
    for part in ("stat", "status", "cgroup", "cmdline"):
        files = {f"/proc/{pid}/{part}": _proc(part, pid, *row) for pid, row in table.items()}
        results[f"proc.{part}"] = ProbeResult(id=f"proc.{part}", files=files)
    results["proc.users"] = ProbeResult(
        id="proc.users",
        files={"/etc/passwd": "root:x:0:0::/root:/bin/bash\nnvidia:x:1000:1000::/home/nvidia:/bin/bash\n"},
    )
    results["init.machine_id"] = ProbeResult(
        id="init.machine_id", files={"/etc/machine-id": str(NODE_RANK[role]) * 32 + "\n"}
    )
    results["find.ps"] = _said("find.ps", _ps(role, document))
    results["find.images"] = _said("find.images", _images(document))
    return results


def _proc(part: str, pid: int, ppid: int, name: str, argv: list[str], cgroup: str) -> str:
    if part == "stat":
        return f"{pid} ({name[:15]}) S {ppid} {pid} {pid} 0 -1 4194560 " + "0 " * 12 + "5000 0 0\n"
    if part == "status":
        return f"Name:\t{name}\nUid:\t1000\t1000\t1000\t1000\nVmRSS:\t 1048576 kB\n"
    return f"0::{cgroup}\n" if part == "cgroup" else "".join(word + "\0" for word in argv)


def _ps(role: Role, document: dict[str, Any]) -> str:
    container = document.get("container")
    if container is None:
        return ""
    row = {
        "ID": _IDENTITY[role],
        "Names": container["name"],
        "Image": container["image"],
        "State": container.get("state", "running"),
        "Status": "Up 3 hours",
        "Command": json.dumps(_command(role, document))[1:-1].join('""'),
        "Labels": f"com.docker.compose.project={container['project']},com.docker.compose.service=vllm-dspark"
        if "project" in container
        else "",
    }
    return json.dumps(row) + "\n"


def _command(role: Role, document: dict[str, Any]) -> str:
    container = document["container"]
    if "own_command" in container:
        return " ".join(container["own_command"])
    words = " ".join(f"'{w}'" if "{" in w else w for w in argv_of(role, document)[len(document["interpreter"]) :])
    return f"bash -lc 'export CUDA_HOME=/usr/local/cuda; exec {words.replace(chr(39), chr(34))}'"


def _images(document: dict[str, Any]) -> str:
    container = document.get("container")
    if container is None:
        return ""
    repository, _, tag = container["image"].rpartition(":")
    row = {"ID": _IMAGE, "Repository": repository or container["image"], "Tag": tag if repository else "latest"}
    return json.dumps(row) + "\n"


def _judged(role: Role, document: dict[str, Any]) -> dict[str, ProbeResult]:
    results = _hardware(role)
    container, serves = document.get("container"), _serves(role, document)
    results["docker.info"] = _said("docker.info", json.dumps({"ServerVersion": "28.5.1", "Driver": "overlay2"}))
    results["docker.ps"] = _said("docker.ps", _ps(role, document))
    results["docker.images"] = _said("docker.images", _images(document))
    if container and serves:
        results["rank.inspect"] = _said("rank.inspect", json.dumps([_inspected(role, document)]))
        results["rank.tail"] = _said(
            "rank.tail", "INFO 11-27 10:00:00 [launcher.py:44] Application startup complete.\n"
        )
        results["rank.top"] = _said("rank.top", f"PID\n{PID}\n{PID + 1}\n")
    else:
        results["rank.inspect"] = ProbeResult(
            id="rank.inspect",
            rc=1,
            stdout="[]\n",
            stderr="Error response from daemon: No such container: dspark-rank\n",
        )
    if serves and (container is None or container.get("state", "running") == "running"):
        environ = "".join(f"{name}={value}\0" for name, value in env_of(role, document).items())
        cmdline = "".join(word + "\0" for word in argv_of(role, document))
        results[PROCESS] = ProbeResult(
            id=PROCESS, files={f"/proc/{PID}/cmdline": cmdline, f"/proc/{PID}/environ": environ}
        )
    if role == "head":
        results |= _api(document)
    return results


def _inspected(role: Role, document: dict[str, Any]) -> dict[str, Any]:
    container = document["container"]
    own = container.get("own_command") or ["bash", "-lc", _command(role, document).removeprefix("bash -lc ")]
    state, locked = container.get("state", "running"), container.get("memlock", False)
    return {
        "Id": _IDENTITY[role],
        "Name": "/" + container["name"],
        "Path": own[0],
        "Args": own[1:],
        "Image": _IMAGE,
        "State": {
            "Status": state,
            "Pid": PID if state == "running" else 0,
            "ExitCode": 0,
            "StartedAt": "2026-11-27T09:00:00Z",
        },
        "Config": {
            "Image": container["image"],
            "Env": [f"{name}={value}" for name, value in env_of(role, document, declared=True).items()],
            "Labels": {"com.docker.compose.project": container["project"]} if "project" in container else {},
        },
        "HostConfig": {
            "RestartPolicy": {"Name": container["restart"]},
            "NetworkMode": "host",
            "IpcMode": "host",
            "ShmSize": 64 << 30,
            "DeviceRequests": [{"Capabilities": [["gpu"]]}],
            "Privileged": container.get("privileged", False),
            "Devices": [{"PathOnHost": "/dev/infiniband", "PathInContainer": "/dev/infiniband"}] if locked else [],
            "Ulimits": [{"Name": "memlock", "Soft": -1, "Hard": -1}] if locked else [],
        },
    }


def _api(document: dict[str, Any]) -> dict[str, ProbeResult]:
    expected = document["expect"]
    argv = document["argv"]
    name = argv[argv.index("--served-model-name") + 1] if "--served-model-name" in argv else None
    model = argv[argv.index("--model") + 1] if "--model" in argv else argv[argv.index("serve") + 1]
    models = {"object": "list", "data": [{"id": name or model, "max_model_len": expected["length"]}]}
    host = argv[argv.index("--host") + 1] if "--host" in argv else "0.0.0.0"
    listening = f'LISTEN 0 2048 {host}:{expected["port"]} 0.0.0.0:* users:(("vllm",pid={PID},fd=30))\n'
    shut = ProbeResult(id="service.models", rc=401, stdout='{"error":"Unauthorized"}')
    return {
        "service.health": ProbeResult(id="service.health", rc=200, stdout=""),
        "service.models": shut if document.get("api_key") else _said("service.models", json.dumps(models), 200),
        "service.version": _said("service.version", json.dumps({"version": "0.25.2.dev0+g752a3a504"}), 200),
        "listeners.tcp": _said("listeners.tcp", listening),
    }


def _said(identity: str, text: str, rc: int = 0) -> ProbeResult:
    return ProbeResult(id=identity, rc=rc, stdout=text)


__all__ = ["FIRST", "NAMES", "Path", "look_at_recipe", "recipe"]
