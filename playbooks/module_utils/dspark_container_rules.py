"""What a rank's container must be and whether one is it: pure functions over a spec and `docker inspect`."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

LABEL_SITE = "io.dspark-ops.site"
LABEL_SPEC = "io.dspark-ops.spec"
LABEL_EPOCH = "io.dspark-ops.epoch"
LABEL_RELEASE = "io.dspark-ops.release"
_REQUIRED = ("name", "image_id", "command", "labels")


@dataclass(frozen=True)
class Container:
    """The parts of `docker inspect` that matter here."""

    id: str
    state: str
    running: bool
    exit_code: int
    image_id: str
    labels: dict[str, str]

    @property
    def site(self) -> str | None:
        return self.labels.get(LABEL_SITE)


def parse_inspect(document: dict[str, Any]) -> Container:
    """One element of `docker inspect`'s list."""
    state = document["State"]
    return Container(
        id=document["Id"],
        state=state["Status"],
        running=bool(state["Running"]),
        exit_code=int(state["ExitCode"]),
        image_id=document["Image"],
        labels=dict(document["Config"].get("Labels") or {}),
    )


def spec_problems(spec: dict[str, Any]) -> list[str]:
    """What is missing from a spec, as sentences; empty when it can be used."""
    problems = [f"the spec has no {key!r}" for key in _REQUIRED if not spec.get(key)]
    labels = spec.get("labels") or {}
    problems += [f"the spec has no label {key!r}" for key in (LABEL_SITE, LABEL_SPEC, LABEL_EPOCH) if key not in labels]
    return problems


def differences(found: Container, spec: dict[str, Any]) -> list[str]:
    """Why a container of ours is not the one that the spec wants; empty when it is."""
    wanted = spec["labels"]
    reasons = []
    for key, name in ((LABEL_SPEC, "spec"), (LABEL_EPOCH, "epoch"), (LABEL_RELEASE, "release")):
        if key in wanted and found.labels.get(key) != str(wanted[key]):
            reasons.append(f"{name}: {found.labels.get(key) or 'none'} instead of {wanted[key]}")
    if found.image_id != spec["image_id"]:
        reasons.append(f"image: {found.image_id} instead of {spec['image_id']}")
    return reasons


def create_arguments(spec: dict[str, Any]) -> list[str]:
    """The arguments of `docker` that create the container.

    The program is given as entry point, so that an image with or without one of its own runs the same command. The
    restart policy is always "no": a rank that comes back alone would wait for a pair that is gone.
    """
    program, *words = [str(word) for word in spec["command"]]
    args = ["create", "--pull", "never", "--name", spec["name"], "--restart", "no"]
    args += ["--network", spec.get("network") or "host", "--ipc", spec.get("ipc") or "private"]
    if spec.get("shm_size_bytes") and spec.get("ipc") != "host":
        args += ["--shm-size", str(spec["shm_size_bytes"])]
    for name, value in sorted((spec.get("ulimits") or {}).items()):
        args += ["--ulimit", f"{name}={value}:{value}"]
    for name in spec.get("cap_add") or []:
        args += ["--cap-add", name]
    for device in spec.get("devices") or []:
        args += ["--device", device]
    if spec.get("gpus"):
        args += ["--gpus", "all"]
    for mount in spec.get("mounts") or []:
        args += ["--mount", _mount(mount)]
    for volume in spec.get("volumes") or []:
        args += ["--mount", _csv("type=volume", f"source={volume['name']}", f"target={volume['target']}")]
    for name, value in sorted((spec.get("env") or {}).items()):
        args += ["--env", f"{name}={value}"]
    for name, value in sorted(spec["labels"].items()):
        args += ["--label", f"{name}={value}"]
    return [*args, "--entrypoint", program, spec["image_id"], *words]


def _mount(mount: dict[str, Any]) -> str:
    """One bind mount as docker reads it."""
    fields = ["type=bind", f"source={mount['source']}", f"target={mount['target']}"]
    return _csv(*fields, *(["readonly"] if mount.get("read_only") else []))


def _csv(*fields: str) -> str:
    """A line of CSV, so that a comma in a path is quoted."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


@dataclass(frozen=True)
class Decision:
    """What to do about a container: the steps in order, and why. No steps: it is as wanted."""

    steps: tuple[str, ...]
    reason: str
    foreign: bool = False


def decide(state: str, spec: dict[str, Any], found: Container | None) -> Decision:
    """The steps (of stop, remove, create, start) from what is there to the wanted state.

    state: started | stopped | absent | matching. A container that does not carry our site's label is never touched.
    """
    if found is None:
        if state == "started":
            return Decision(("create", "start"), "there is none")
        return Decision((), "there is none")
    if found.site != spec["labels"][LABEL_SITE]:
        return Decision((), f"it belongs to {_owner(found)}", foreign=True)
    stop = ("stop",) if found.running else ()
    if state == "absent":
        return Decision((*stop, "remove"), "it is not wanted")
    if state == "stopped":
        return Decision(stop, "it runs" if stop else "it does not run")
    reasons = differences(found, spec)
    if not found.running:
        reasons.append(f"it does not run ({found.state}, exit code {found.exit_code})")
    if not reasons:
        return Decision((), "it is as wanted and runs")
    remove = (*stop, "remove")
    return Decision(remove if state == "matching" else (*remove, "create", "start"), "; ".join(reasons))


def describe(found: Container | None) -> dict[str, Any]:
    """A container as facts for the diff and the return value."""
    if found is None:
        return {"state": "absent"}
    return {
        "state": found.state,
        "image_id": found.image_id,
        "release": found.labels.get(LABEL_RELEASE),
        "spec": found.labels.get(LABEL_SPEC),
        "epoch": found.labels.get(LABEL_EPOCH),
    }


def predict(found: Container | None, spec: dict[str, Any], steps: tuple[str, ...]) -> dict[str, Any]:
    """What `describe` will say after the steps, for check mode and the diff."""
    if "create" in steps:
        labels = spec["labels"]
        return {
            "state": "running",
            "image_id": spec["image_id"],
            "release": labels.get(LABEL_RELEASE),
            "spec": labels.get(LABEL_SPEC),
            "epoch": labels.get(LABEL_EPOCH),
        }
    if "remove" in steps:
        return {"state": "absent"}
    after = describe(found)
    return after | {"state": "exited"} if "stop" in steps else after


def _owner(found: Container) -> str:
    return f"site {found.site!r}" if found.site else "somebody else: it has no label of dspark-ops"
