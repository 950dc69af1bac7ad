"""Tenants that are bare processes: ended as a tree, started again by their recorded command when somebody consents."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import signal
import stat
from pathlib import Path
from typing import Any

from ansible.module_utils.dspark_tenant_node import (
    PROC,
    command_line,
    is_alive,
    processes,
    send,
    tree,
    wait,
)
from ansible.module_utils.dspark_tenant_rules import TenantError, parse_environ, parse_limits, restarts_children

# A second look, for a parent that starts it again.
_RESPAWN_WAIT_S = 2.0
_SETTLE_S = 1.0


def look(tenant: dict[str, Any]) -> tuple[str, str]:
    """Whether what was shown is still there; a reused pid is another process, and nobody's to end."""
    shown = tenant["process"]
    if is_alive(shown["pid"], shown["start_ticks"]):
        return "as-shown", ""
    return "gone", f"process {shown['pid']} has ended by itself"


def record(tenant: dict[str, Any], _before: dict[str, Any] | None) -> dict[str, Any]:
    """All that it takes to start it again; the owner's, when a shell's script would start it again by itself.

    Raises:
        TenantError: it is a process of the kernel, or has ended.
    """
    shown = tenant["process"]
    pid = shown["pid"]
    table = processes()
    parent = table.get(table[pid]["ppid"]) if pid in table else None
    owner = pid
    while parent is not None and parent["pid"] > 1 and restarts_children(command_line(parent["pid"])):
        owner = parent["pid"]
        parent = table.get(parent["ppid"])
    if owner in _ancestors(os.getpid(), table):
        raise TenantError("refused", "it is what this very command runs in; stop it by hand [tenant.not_restorable]")
    try:
        found = {"shown": [pid, shown["start_ticks"]], **_definition(owner, table)}
    except (OSError, KeyError, ValueError) as error:
        if look(tenant)[0] == "gone":
            raise TenantError("gone", f"process {owner} has ended meanwhile; there is nothing to stop") from error
        raise TenantError(
            "refused", f"what process {owner} was started with cannot be read: {error} [tenant.not_restorable]"
        ) from error
    ours = tree({owner}, table)
    # Others of the same command are not it, now or later.
    found["twins"] = [[twin, table[twin]["start_ticks"]] for twin in _alike(found, table) if twin not in ours]
    return found


def _ancestors(pid: int, table: dict[int, dict[str, Any]]) -> set[int]:
    found = set()
    while pid in table and pid not in found:
        found.add(pid)
        pid = table[pid]["ppid"]
    return found


def _definition(pid: int, table: dict[int, dict[str, Any]]) -> dict[str, Any]:
    folder = PROC / str(pid)
    told = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
    argv = command_line(pid)
    if not argv:
        raise OSError("it has no command line")
    return {
        "pid": pid,
        "start_ticks": table[pid]["start_ticks"],
        "argv": argv,
        "program": str((folder / "exe").readlink()),
        "cwd": str((folder / "cwd").readlink()),
        "uid": int(told["Uid"].split()[0]),
        "gid": int(told["Gid"].split()[0]),
        "groups": [int(group) for group in told.get("Groups", "").split()],
        "umask": int(told.get("Umask", "0022").strip(), 8),
        "limits": parse_limits((folder / "limits").read_text()),
        "stdout": _file_behind(folder / "fd/1"),
        "stderr": _file_behind(folder / "fd/2"),
    }


def _file_behind(descriptor: Path) -> str | None:
    """The regular file that it writes to; None for a pipe, a terminal, or one that was removed."""
    with contextlib.suppress(OSError):
        target = str(descriptor.readlink())
        if target.startswith("/") and stat.S_ISREG(Path(target).stat().st_mode):
            return target
    return None


def environment(recorded: dict[str, Any]) -> dict[str, str]:
    """What it was started with."""
    return parse_environ((PROC / str(recorded["pid"]) / "environ").read_bytes())


def pids(recorded: dict[str, Any]) -> set[int]:
    """The process, its owner and all their descendants."""
    table = processes()
    roots = {pid for pid, ticks in _roots(recorded) if pid in table and table[pid]["start_ticks"] == ticks}
    return tree(roots, table)


def _roots(recorded: dict[str, Any]) -> list[tuple[int, int]]:
    return [(recorded["pid"], recorded["start_ticks"]), (recorded["shown"][0], recorded["shown"][1])]


def describe(recorded: dict[str, Any]) -> dict[str, Any]:
    """How it is now, for the diff."""
    now = again(recorded)
    return {_words(recorded): f"runs as {now}" if now else "does not run"}


def stopped(recorded: dict[str, Any]) -> dict[str, Any]:
    """How it will be, for the diff under check mode."""
    return {_words(recorded): "does not run"}


def _words(recorded: dict[str, Any]) -> str:
    return " ".join(recorded["argv"])[:200].strip()


def stop(recorded: dict[str, Any], timeout_s: float, kill: bool) -> None:
    """End the tree, the owner first, so that it cannot start its children again; SIGKILL only by consent.

    Raises:
        TenantError: it still runs, or something has started it again.
    """
    ticks = {pid: found["start_ticks"] for pid, found in processes().items()}
    members = {pid: ticks[pid] for pid in pids(recorded) if pid in ticks}
    if not _end(members, recorded, signal.SIGTERM, timeout_s):
        if not kill:
            raise TenantError(
                "still-runs",
                f"{_words(recorded)} (pid {recorded['pid']}) has not ended {timeout_s:g} s after SIGTERM; consent to "
                "SIGKILL with --kill [tenant.still_runs]",
            )
        if not _end(members, recorded, signal.SIGKILL, timeout_s):
            raise TenantError("still-runs", f"pid {recorded['pid']} does not even end by SIGKILL [tenant.still_runs]")
    if wait(lambda: again(recorded) is not None, _RESPAWN_WAIT_S):
        raise TenantError(
            "respawned",
            f"{_words(recorded)} was ended and runs again as pid {again(recorded)}: something starts it that is no "
            "unit, container or script; end that first [tenant.respawned]",
        )


def _end(members: dict[int, int], recorded: dict[str, Any], number: signal.Signals, timeout_s: float) -> bool:
    """Signal all of them, also those that are born meanwhile, and wait until none is left."""
    told: set[int] = set()

    def ended() -> bool:
        table = processes()
        alive = {pid for pid, ticks in members.items() if pid in table and table[pid]["start_ticks"] == ticks}
        for pid in tree(alive, table):
            members.setdefault(pid, table[pid]["start_ticks"])
        for pid in sorted(members, key=lambda pid: pid != recorded["pid"]):
            if pid not in told:
                told.add(pid)
                send(pid, members[pid], number)
        return not any(is_alive(pid, ticks) for pid, ticks in members.items())

    return wait(ended, timeout_s)


def again(recorded: dict[str, Any]) -> int | None:
    """The pid of this process, or of one like it (same command, user and directory); None when there is none."""
    if is_alive(recorded["pid"], recorded["start_ticks"]):
        return int(recorded["pid"])
    twins = {tuple(twin) for twin in recorded["twins"]}
    table = processes()
    return next((pid for pid in _alike(recorded, table) if (pid, table[pid]["start_ticks"]) not in twins), None)


def _alike(recorded: dict[str, Any], table: dict[int, dict[str, Any]]) -> list[int]:
    """Processes of this command, user and directory."""
    found = []
    for pid in table:
        with contextlib.suppress(OSError):
            folder = PROC / str(pid)
            alike = command_line(pid) == recorded["argv"] and folder.stat().st_uid == recorded["uid"]
            if alike and str((folder / "cwd").readlink()) == recorded["cwd"]:
                found.append(pid)
    return found


def hold(_recorded: dict[str, Any]) -> list[tuple[str, str]]:
    """A process that was ended left nothing of ours behind."""
    return []


def let_go(_recorded: dict[str, Any]) -> None:
    """There is nothing to take back."""


def freed(recorded: dict[str, Any]) -> dict[str, Any]:
    """How it will be, for the diff under check mode: as it is."""
    return describe(recorded)


def stays(recorded: dict[str, Any]) -> list[str]:
    """How it is left when nothing is owed to it any more, in words."""
    now = again(recorded)
    how = f"it runs as pid {now}" if now else "it was not started; its command stays in the record"
    return [f"{how}, nothing of ours was left behind"]


def same(recorded: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two records tell of one process."""
    return _roots(recorded)[1] == _roots(other)[1] or _roots(recorded)[0] == _roots(other)[0]


def start(recorded: dict[str, Any], environ: dict[str, str]) -> int:
    """Start the recorded command as it was started: user, groups, directory, environment, limits; detached.

    Raises:
        TenantError: it cannot be started, or ends at once.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(reading)
        _become(recorded, environ, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        error = pipe.read().decode("utf-8", "replace")
    if error:
        raise TenantError("left", f"{_words(recorded)} could not be started: {error} [tenant.start]")
    found = processes().get(pid)
    if found is None or wait(lambda: not is_alive(pid, found["start_ticks"]), _SETTLE_S):
        raise TenantError(
            "left", f"{_words(recorded)} was started and ended at once; start it by hand and read why [tenant.start]"
        )
    return pid


def _become(recorded: dict[str, Any], environ: dict[str, str], told: int) -> None:
    """In the child: take everything over and become the program; never returns. Says an error if there is one."""
    try:
        for name, limits in recorded["limits"].items():
            # Root may have fewer rights now than whoever set them; the program says what it lacks.
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(getattr(resource, name), tuple(limits))
        if os.geteuid() == 0:
            os.setgroups(recorded["groups"])
            os.setgid(recorded["gid"])
            os.setuid(recorded["uid"])
        os.umask(recorded["umask"])
        os.chdir(recorded["cwd"])
        # As this user, and after that: nobody gets a file written that he may not write himself.
        nothing = os.open(os.devnull, os.O_RDWR)
        targets = [nothing] + [
            os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if path else nothing
            for path in (recorded["stdout"], recorded["stderr"])
        ]
        kept = os.dup(told)
        for number, target in enumerate(targets):
            os.dup2(os.dup(target), number)
        os.set_inheritable(kept, False)
        for number in range(3, 256):
            if number != kept:
                with contextlib.suppress(OSError):
                    os.close(number)
        told = kept
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        program = recorded["program"]
        if Path(program).is_file():
            os.execve(program, recorded["argv"], environ)  # noqa: S606
        # The file was replaced by an update meanwhile: what the path names now.
        os.execvpe(recorded["argv"][0], recorded["argv"], environ)  # noqa: S606
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(told, str(error).encode())
    finally:
        os._exit(127)


def name_of(uid: int) -> str:
    """The user, for people."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
