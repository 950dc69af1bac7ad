"""Tenants that are systemd units, of the system or of a user: kept from starting while evicted, enablement untouched.

A drop-in with a condition that does not hold keeps a unit down whoever asks, also its sockets and timers and the next
boot. It is removed when the unit comes back, and what `systemctl is-enabled` says is the same all the time.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ansible.module_utils.dspark_fabric_journal import remove_durably, write_durably
from ansible.module_utils.dspark_tenant_node import attempt, in_control_group, must, wait
from ansible.module_utils.dspark_tenant_rules import ACTIVE, TenantError, drop_in, parse_show

SYSTEM_FOLDER = Path("/etc/systemd/system")
USER_FOLDER = Path("/etc/systemd/user")
DISPLAY_MANAGER = "display-manager.service"
_RESTARTABLE = (".service", ".socket", ".timer", ".path")
_PROPERTIES = "Id,LoadState,ActiveState,UnitFileState,FragmentPath,ControlGroup,TriggeredBy"
_START_WAIT_S = 60


def _systemctl(user: str | None, uid: int | None) -> list[str]:
    """The command line that reaches the unit's manager."""
    if user is None:
        return ["systemctl"]
    bus = [f"XDG_RUNTIME_DIR=/run/user/{uid}", f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"]
    return ["runuser", "-u", user, "--", "env", *bus, "systemctl", "--user"]


class Manager:
    """The system's manager, or a user's."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        self.user, self.uid = recorded.get("user"), recorded.get("uid")
        self._command = _systemctl(self.user, self.uid)

    @property
    def runs(self) -> bool:
        """A user's manager needs a session or lingering."""
        if self.user is None:
            return True
        return attempt("systemctl", "is-active", f"user@{self.uid}.service").returncode == 0

    def ask(self, *words: str, timeout_s: float = 60) -> str:
        return must(*self._command, *words, timeout_s=timeout_s)

    def attempt(self, *words: str) -> None:
        attempt(*self._command, *words)

    def show(self, name: str) -> dict[str, str]:
        return parse_show(self.ask("show", f"--property={_PROPERTIES}", "--", name))

    def enablement(self, name: str) -> str | None:
        done = attempt(*self._command, "is-enabled", "--", name)
        return done.stdout.strip() or None

    def drop_in_path(self, name: str) -> Path:
        """Of root, also for a user's unit: nothing is written into anybody's home."""
        if self.user is None:
            return SYSTEM_FOLDER / f"{name}.d" / "zz-dspark-evicted.conf"
        return USER_FOLDER / f"{name}.d" / f"zz-dspark-evicted-{self.uid}.conf"


def _identity(tenant: dict[str, Any]) -> dict[str, Any]:
    """The unit to act on: of a desktop, the display manager that starts it."""
    unit = tenant.get("unit")
    if unit:
        return dict(unit)
    found = parse_show(must("systemctl", "show", "--property=Id,LoadState", "--", DISPLAY_MANAGER))
    if found.get("LoadState") != "loaded":
        raise TenantError(
            "refused", "no display manager starts this desktop session; log out by hand [tenant.not_restorable]"
        )
    return {"name": found["Id"]}


def look(tenant: dict[str, Any]) -> tuple[str, str]:
    """Whether what was shown is still there: as-shown, gone or changed, with a sentence."""
    shown = _identity(tenant)
    manager = Manager(shown)
    if not manager.runs:
        return "gone", f"the manager of user {manager.user} does not run any more"
    found = manager.show(shown["name"])
    if found.get("ActiveState") not in ACTIVE:
        return "gone", "it is not active any more"
    if shown.get("fragment") and found.get("FragmentPath") != shown["fragment"]:
        return "changed", f"the unit comes from {found.get('FragmentPath')} now, not from {shown['fragment']}"
    return "as-shown", ""


def record(tenant: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """All that it takes to bring the unit and what triggers it back as they are.

    before: what an unfinished eviction recorded; of a unit that it keeps from starting, that is what was there.

    Raises:
        TenantError: the unit is of a kind that nobody can start, as a scope.
    """
    shown = _identity(tenant)
    manager = Manager(shown)
    if not shown["name"].endswith(_RESTARTABLE):
        raise TenantError(
            "refused", f"{shown['name']} could not be started again; stop it by hand [tenant.not_restorable]"
        )
    main = manager.show(shown["name"])
    units = [_record_unit(manager, main)]
    units += [_record_unit(manager, manager.show(name)) for name in main.get("TriggeredBy", "").split()]
    known = {unit["name"]: unit for unit in (before or {}).get("units", ()) if Path(unit["drop_in"]).exists()}
    units = [known.get(unit["name"], unit) for unit in units]
    return {"user": manager.user, "uid": manager.uid, "units": units}


def _record_unit(manager: Manager, found: dict[str, str]) -> dict[str, Any]:
    name, fragment = found["Id"], found.get("FragmentPath") or None
    path = manager.drop_in_path(name)
    kept = {}
    if fragment and "/systemd/transient/" in fragment:
        # Such a unit vanishes with its end: its files are what it is.
        for file in (Path(fragment), *sorted(Path(f"{fragment}.d").glob("*.conf"))):
            kept[str(file)] = file.read_text(encoding="utf-8")
    return {
        "name": name,
        "active": found.get("ActiveState"),
        "enablement": manager.enablement(name),
        "fragment": fragment,
        "transient": kept,
        "drop_in": str(path),
        "folder_was_there": path.parent.is_dir(),
    }


def pids(recorded: dict[str, Any]) -> set[int]:
    """Every process of the unit."""
    path = Manager(recorded).show(recorded["units"][0]["name"]).get("ControlGroup")
    return in_control_group(path) if path else set()


def describe(recorded: dict[str, Any]) -> dict[str, Any]:
    """How they are now, for the diff."""
    return {name: f"{how}, {_may(held)}" for name, how, held in _now(recorded)}


def _now(recorded: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Name, state and whether our drop-in is there, of each unit; one that is not loaded may still be held."""
    manager = Manager(recorded)
    runs = manager.runs
    found = []
    for unit in recorded["units"]:
        how = manager.show(unit["name"]).get("ActiveState") if runs else "its manager does not run"
        found.append((unit["name"], str(how), Path(unit["drop_in"]).exists()))
    return found


def stopped(recorded: dict[str, Any]) -> dict[str, Any]:
    """How they will be, for the diff under check mode."""
    return {unit["name"]: f"inactive, {_may(held=True)}" for unit in recorded["units"]}


def _may(held: bool) -> str:
    return "kept from starting" if held else "may start"


def stop(recorded: dict[str, Any], timeout_s: float, kill: bool, record_path: str) -> None:
    """Keep all of them from starting, then stop what triggers the unit, and the unit."""
    manager = Manager(recorded)
    for unit in recorded["units"]:
        write_durably(Path(unit["drop_in"]), drop_in(manager.user, record_path).encode(), 0o644)
    manager.ask("daemon-reload")
    for unit in reversed(recorded["units"]):
        name = unit["name"]
        manager.ask("stop", "--no-block", "--", name)
        if _wait_down(manager, name, timeout_s):
            continue
        if not kill:
            raise TenantError(
                "still-runs",
                f"{name} was asked to stop and has not after {timeout_s:g} s; wait for it, or consent to end it with "
                "--kill [tenant.still_runs]",
            )
        manager.ask("kill", "--signal=SIGKILL", "--", name)
        if not _wait_down(manager, name, timeout_s):
            raise TenantError("still-runs", f"{name} does not even end when it is killed [tenant.still_runs]")


def _wait_down(manager: Manager, name: str, timeout_s: float) -> bool:
    return wait(lambda: manager.show(name).get("ActiveState") in ("inactive", "failed"), timeout_s)


def missing(recorded: dict[str, Any]) -> tuple[list[tuple[str, str]], list[str]]:
    """What is still to be done until they are as recorded, as steps (verb, unit), and what cannot be."""
    manager = Manager(recorded)
    if not manager.runs:
        why = (
            f"the systemd of user {manager.user} does not run (no session, no lingering): log in as {manager.user}, "
            "then run `dspark-ops tenants restore` again [tenant.user_manager]"
        )
        return [], [why]
    steps: list[tuple[str, str]] = []
    left = []
    # What triggers it comes up first, as at a boot.
    for unit in reversed(recorded["units"]):
        name, found = unit["name"], manager.show(unit["name"])
        if Path(unit["drop_in"]).exists():
            steps.append(("allow", name))
        if found.get("LoadState") == "not-found":
            if not unit["transient"]:
                left.append(
                    f"the file of {name} was removed by somebody meanwhile; put it there again, or say with "
                    "`dspark-ops tenants forget KEY` that it is not to come back [tenant.removed]"
                )
                continue
            steps.append(("define", name))
        if unit["active"] in ACTIVE and found.get("ActiveState") not in ACTIVE:
            steps.append(("start", name))
    return steps, left


def put_back(recorded: dict[str, Any], steps: list[tuple[str, str]]) -> None:
    """Do the steps: first everything may start again, then it starts."""
    manager = Manager(recorded)
    units = {unit["name"]: unit for unit in recorded["units"]}
    for verb, name in steps:
        unit = units[name]
        if verb == "allow":
            _allow(unit)
        elif verb == "define":
            _define(manager, unit)
    manager.ask("daemon-reload")
    for name in [name for verb, name in steps if verb == "start"]:
        # Where it has failed often enough, it may not start; one that is not loaded has not.
        manager.attempt("reset-failed", "--", name)
        manager.ask("start", "--", name, timeout_s=_START_WAIT_S)


def _allow(unit: dict[str, Any]) -> None:
    """Remove our drop-in, and its folder where it was not there before and holds nothing else."""
    path = Path(unit["drop_in"])
    remove_durably(path)
    if not unit["folder_was_there"]:
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def hold(recorded: dict[str, Any]) -> list[tuple[str, str]]:
    """What is left of our own changes, as steps that take them back and start nothing."""
    return [("allow", unit["name"]) for unit in recorded["units"] if Path(unit["drop_in"]).exists()]


def let_go(recorded: dict[str, Any]) -> None:
    """Remove the drop-ins; a manager that runs is told each time, also of what a killed run has removed unsaid."""
    for unit in recorded["units"]:
        if Path(unit["drop_in"]).exists():
            _allow(unit)
    manager = Manager(recorded)
    if manager.runs:
        manager.ask("daemon-reload")


def freed(recorded: dict[str, Any]) -> dict[str, Any]:
    """How they will be without our changes, for the diff under check mode."""
    return {name: f"{how}, {_may(held=False)}" for name, how, _held in _now(recorded)}


def stays(recorded: dict[str, Any]) -> list[str]:
    """How each is left when nothing is owed to it any more, in words."""
    told = []
    enablement = {unit["name"]: unit["enablement"] for unit in recorded["units"]}
    for name, how, _held in _now(recorded):
        later = f"; its enablement ({enablement[name]}) was never touched" if enablement[name] else ""
        told.append(f"{name}: {how}; it may start again and was not started{later}")
    return told


def _define(manager: Manager, unit: dict[str, Any]) -> None:
    """Write the files of a transient unit again, as its manager had them."""
    for path, text in unit["transient"].items():
        if manager.user is None:
            write_durably(Path(path), text.encode(), 0o644)
        else:
            _write_as(manager.user, path, text)


def _write_as(user: str, path: str, text: str) -> None:
    """In a user's own directory, as this user."""
    script = 'mkdir -p "$(dirname "$1")" && printf %s "$2" > "$1"'
    must("runuser", "-u", user, "--", "sh", "-c", script, "sh", path, text)


def enablement_differs(recorded: dict[str, Any]) -> list[str]:
    """Units whose enablement is not the recorded one: it was never touched here, so somebody else changed it."""
    manager = Manager(recorded)
    found = [(unit, manager.enablement(unit["name"])) for unit in recorded["units"]]
    return [
        f"{unit['name']} is {now} now and was {unit['enablement']}: somebody changed that, it was left so"
        for unit, now in found
        if now != unit["enablement"]
    ]


def same(recorded: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two records tell of one unit."""
    return bool(recorded["user"] == other["user"] and recorded["units"][0]["name"] == other["units"][0]["name"])
