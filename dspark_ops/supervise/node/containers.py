"""The rank's container on this node through the docker command line: only ever ours, by name and label of the site."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspark_ops.supervise.node.commands import Finished, run
from dspark_ops.supervise.node.places import LABEL, RANK_CONTAINER
from dspark_ops.supervise.node.rules import rules

#: An Engine that is started by its first caller takes its time; one that hangs must not be waited for longer.
LOOK_TIMEOUT_S = 8.0
_CREATE_TIMEOUT_S = 60.0
_REMOVAL_WAIT_S = 30.0
_TAKEN_PAUSE_S = 0.5


class ContainerError(Exception):
    """Docker did not do it, or what is there is not ours. The text says what was observed."""


@dataclass(frozen=True)
class Seen:
    """The container of our name. exit_code: None while it runs or when it never did. pid: of its first process."""

    id: str
    state: str
    running: bool
    exit_code: int | None
    site: str | None
    role: str | None
    epoch: str | None
    release: str | None
    pid: int | None
    started_at: str | None
    finished_at: str | None
    oom_killed: bool | None

    def document(self) -> dict[str, Any]:
        return dict(vars(self))


def look() -> Seen | None:
    """The container of our name, whoever's it is; None when Docker says that there is none.

    Raises:
        ContainerError: Docker did not answer, so that it is not known.
    """
    raw = _inspect()
    return None if raw is None else parse(raw)


def parse(raw: dict[str, Any]) -> Seen:
    """One element of `docker inspect`.

    Raises:
        ContainerError: it is not what Docker prints.
    """
    try:
        found = rules.parse_inspect(raw)
        state = raw["State"]
        return Seen(
            id=found.id,
            state=found.state,
            running=found.running,
            exit_code=found.exit_code if found.state in ("exited", "dead") else None,
            site=found.labels.get(f"{LABEL}site"),
            role=found.labels.get(f"{LABEL}role"),
            epoch=found.labels.get(f"{LABEL}epoch"),
            release=found.labels.get(f"{LABEL}release"),
            pid=state.get("Pid") or None,
            started_at=state.get("StartedAt"),
            finished_at=state.get("FinishedAt"),
            oom_killed=state.get("OOMKilled"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContainerError(f"docker inspect printed something else than a container: {error!r}") from None


def start(spec: dict[str, Any]) -> str:
    """Make the container of this spec run, and say what was done. Called again, it finishes what was begun.

    What is ours and of another epoch is removed first. A container of this very epoch that has ended is left: an epoch
    is started once. The same request may be under way already, where the connection that brought it broke: the name can
    be taken only once, and what the other one makes is waited for.

    Raises:
        ContainerError: it could not be started, or something of our name is not ours.
    """
    problems = rules.spec_problems(spec)
    if problems or spec["name"] != RANK_CONTAINER:
        raise ContainerError("; ".join(problems) or f"the spec's name is {spec['name']!r}, expected {RANK_CONTAINER!r}")
    done: list[str] = []
    deadline = time.monotonic() + _CREATE_TIMEOUT_S
    while (runs := _runs_or_made(spec, done)) is None:
        if time.monotonic() > deadline:
            raise ContainerError(f"the name {RANK_CONTAINER} is taken for {_CREATE_TIMEOUT_S:g} s and nobody has it")
        time.sleep(_TAKEN_PAUSE_S)
    if runs:
        return "it runs already"
    started = _docker(["start", RANK_CONTAINER], _CREATE_TIMEOUT_S)
    if not started.ok:
        with suppress(ContainerError):
            remove(spec["labels"][f"{LABEL}site"])
        raise ContainerError(f"starting {RANK_CONTAINER} failed and it was removed again: {started.said()}")
    return " and ".join([*done, "started"])


def _runs_or_made(spec: dict[str, Any], done: list[str]) -> bool | None:
    """Whether the container of this spec runs; where not, it is there now. None: its name is taken, look again.

    done: what was done is added. Raises: ContainerError.
    """
    raw = _inspect()
    if raw is not None:
        found = rules.parse_inspect(raw)
        _refuse_foreign(found.site, spec["labels"][f"{LABEL}site"])
        differs = rules.differences(found, spec)
        if not differs and found.state in ("exited", "dead"):
            raise ContainerError(f"the rank of this epoch has ended already, with exit code {found.exit_code}")
        if not differs:
            return bool(found.running)
        _remove(found.id)
        done.append(f"removed another ({'; '.join(differs)})")
    if not _created(spec):
        return None
    done.append("created")
    return False


def _created(spec: dict[str, Any]) -> bool:
    """Create it; False where the name is taken just now. Raises: ContainerError."""
    made = _docker(rules.create_arguments(spec), _CREATE_TIMEOUT_S)
    if made.ok:
        return True
    if "container name" in made.err and "already in use" in made.err:
        return False
    raise ContainerError(f"creating {RANK_CONTAINER} failed: {made.said()}")


def stop(site: str, grace_s: int, epoch: str | None = None) -> str:
    """End the container in order, within the grace. epoch: one of another is left. Raises: ContainerError."""
    seen = _ours(site)
    if seen is None or not seen.running:
        return "it does not run"
    if epoch is not None and seen.epoch != epoch:
        return f"it is of another epoch: {seen.epoch}"
    _must(f"stopping {RANK_CONTAINER}", ["stop", "--time", str(grace_s), RANK_CONTAINER], grace_s + 20.0)
    return "stopped"


def kill(site: str, epoch: str | None = None) -> str:
    """End the container at once, a paused one too. epoch: one of another is left. Raises: ContainerError."""
    seen = _ours(site)
    if seen is None or not (seen.running or seen.state == "paused"):
        return "it does not run"
    if epoch is not None and seen.epoch != epoch:
        return f"it is of another epoch: {seen.epoch}"
    done = _docker(["kill", RANK_CONTAINER], 20.0)
    if not done.ok and "is not running" not in done.err.lower():
        raise ContainerError(f"killing {RANK_CONTAINER} failed: {done.said()}")
    return "killed"


def remove(site: str, epoch: str | None = None) -> str:
    """End and remove the container. epoch: one of another is left. Raises: ContainerError."""
    seen = _ours(site)
    if seen is None:
        return "there is none"
    if epoch is not None and seen.epoch != epoch:
        return f"it is of another epoch: {seen.epoch}"
    _remove(seen.id)
    return "removed"


def _remove(container_id: str) -> None:
    """Remove the one of this id and no other that has its name since. Raises: ContainerError."""
    done = _docker(["rm", "--force", "--volumes", container_id], _REMOVAL_WAIT_S)
    if not done.ok and "no such container" not in done.err.lower() and "in progress" not in done.err.lower():
        raise ContainerError(f"removing {RANK_CONTAINER} failed: {done.said()}")
    deadline = time.monotonic() + _REMOVAL_WAIT_S
    while (left := look()) is not None and left.id == container_id:
        if time.monotonic() > deadline:
            raise ContainerError(f"{RANK_CONTAINER} is still being removed after {_REMOVAL_WAIT_S:g} s")
        time.sleep(0.25)


def logs(*, tail: int = 2000, max_bytes: int = 1 << 20) -> str:
    """The end of both streams of the container's log by Docker's time stamps, and why when it is not to be had."""
    done = run(
        ["docker", "logs", "--timestamps", "--tail", str(tail), RANK_CONTAINER], timeout_s=15.0, max_bytes=8 << 20
    )
    text = "\n".join(sorted((done.out + "\n" + done.err).splitlines()))
    if not done.ok:
        text += f"\n-- {done.said()}"
    return text.encode()[-max_bytes:].decode("utf-8", "replace")


def left_of(container_id: str, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """The processes that are still in the control group of a container: an engine that died may leave some."""
    found = []
    for name in os.listdir(proc):  # noqa: PTH208 - thousands of entries, every few seconds
        if name.isdecimal():
            with suppress(OSError):
                if container_id in (proc / name / "cgroup").read_text(errors="replace"):
                    found.append(int(name))
    return tuple(found)


def _ours(site: str) -> Seen | None:
    seen = look()
    if seen is not None:
        _refuse_foreign(seen.site, site)
    return seen


def _refuse_foreign(found: str | None, site: str) -> None:
    if found != site:
        owner = f"site {found!r}" if found else "nobody we know: it has no label of ours"
        raise ContainerError(
            f"container {RANK_CONTAINER!r} belongs to {owner}, expected site {site!r}; it was not touched"
        )


def _inspect() -> dict[str, Any] | None:
    done = _docker(["container", "inspect", RANK_CONTAINER], LOOK_TIMEOUT_S)
    if not done.ok:
        if "no such container" in done.err.lower():
            return None
        raise ContainerError(f"the Docker Engine does not answer: {done.said()}")
    try:
        found = json.loads(done.out)[0]
    except (ValueError, IndexError, KeyError, TypeError, RecursionError):
        raise ContainerError("docker inspect printed something else than a list of containers") from None
    if not isinstance(found, dict):
        raise ContainerError("docker inspect printed something else than a list of containers")
    return found


def inspect_text() -> str:
    """What `docker inspect` says, for evidence; the values of the environment are left out: they may be secrets."""
    try:
        raw = _inspect()
    except ContainerError as error:
        return f"-- {error}"
    if raw is None:
        return "-- there is no container"
    config = raw.get("Config")
    if isinstance(config, dict) and isinstance(config.get("Env"), list):
        config["Env"] = [str(item).partition("=")[0] + "=..." for item in config["Env"]]
    return json.dumps(raw, indent=1)


def _must(what: str, argv: Sequence[str], timeout_s: float) -> None:
    done = _docker(argv, timeout_s)
    if not done.ok:
        raise ContainerError(f"{what} failed: {done.said()}")


def _docker(argv: Sequence[str], timeout_s: float) -> Finished:
    return run(["docker", *argv], timeout_s=timeout_s)
