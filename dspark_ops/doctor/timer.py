"""The doctor as a systemd timer on this machine: what its units are told, and the verbs that install and remove it."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dspark_ops.ansible_run.events import PlayResult, TaskEvent
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.selection import expand
from dspark_ops.errors import ConfigError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.report.files import check_targets
from dspark_ops.report.models import Change, Report
from dspark_ops.report.recorder import Progress, Recorder

PLAYBOOK = "doctor_timer.yml"
SYSTEMD = Path("/run/systemd/system")
LINGER = Path("/var/lib/systemd/linger")
TEXTFILES = Path("/var/lib/prometheus/node-exporter")

# What a run needs of the operator's environment to find the site, the state and the keys that the operator finds.
_PASSED_ON = ("HOME", "PATH", "XDG_STATE_HOME", "XDG_CONFIG_HOME")


@dataclass(frozen=True)
class Owner:
    """Who runs the doctor. root's units are the system's; another user's are the user's own and need no rights."""

    name: str
    home: Path
    root: bool

    @property
    def scope(self) -> str:
        return "system" if self.root else "user"

    @property
    def unit_dir(self) -> Path:
        return Path("/etc/systemd/system") if self.root else self.home / ".config/systemd/user"


@dataclass(frozen=True)
class TimerWish:
    """What is wanted. textfile: None is the exporter's usual directory. every_s: from the end of a run to the next."""

    textfile: Path | None = None
    every_s: int = 300
    ignore: tuple[str, ...] = ()


def present_owner() -> Owner:
    """The user of this process."""
    entry = pwd.getpwuid(os.geteuid())
    return Owner(entry.pw_name, Path(entry.pw_dir), root=os.geteuid() == 0)


def unit_name(site: str) -> str:
    """Name of both units without their ending. A site whose name has to be changed for it gets a mark of its own."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", site)
    mark = "" if plain == site else "-" + hashlib.sha256(site.encode()).hexdigest()[:6]
    return f"dspark-doctor-{plain}{mark}"


def textfile_of(site: str, wish: TimerWish) -> Path:
    """Where the metrics go, absolute."""
    return (wish.textfile or TEXTFILES / f"{unit_name(site).replace('-', '_')}.prom").absolute()


def unit_word(word: str) -> str:
    """One word of a unit file's command line or environment: quoted, and with nothing that systemd would replace.

    Raises:
        ValueError: it holds a line end or NUL, which a unit file cannot hold.
    """
    if re.search(r"[\n\r\0]", word):
        raise ValueError(f"a unit file cannot hold {word!r}")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def timer_variables(
    loaded: LoadedSite, wish: TimerWish, owner: Owner, environ: Mapping[str, str], *, python: str = sys.executable
) -> dict[str, object]:
    """What the role is told. Pure."""
    textfile = textfile_of(loaded.site.name, wish)
    words = [python, "-m", "dspark_ops", "doctor", "--site", str(loaded.path.absolute()), "--textfile", str(textfile)]
    for pattern in wish.ignore:
        words += ["--ignore", pattern]
    passed = [f"{key}={environ[key]}" for key in _PASSED_ON if environ.get(key)]
    return {
        "doctor_timer_name": unit_name(loaded.site.name),
        "doctor_timer_site": loaded.site.name.replace("%", "%%"),
        "doctor_timer_scope": owner.scope,
        "doctor_timer_unit_dir": str(owner.unit_dir),
        # In a command line $ is replaced too; in Environment= it is not.
        "doctor_timer_command": " ".join(unit_word(word).replace("$", "$$") for word in words),
        "doctor_timer_environment": [unit_word(item) for item in passed],
        "doctor_timer_user": owner.name if owner.root else "",
        "doctor_timer_every_s": wish.every_s,
        "doctor_timer_textfile": str(textfile),
    }


def install(
    loaded: LoadedSite,
    wish: TimerWish,
    *,
    consent: Callable[[str], None],
    progress: Progress,
    check: bool = False,
    owner: Owner | None = None,
) -> Report:
    """Install the timer, or bring it up to date; a second run changes nothing.

    Raises:
        ConfigError: an id to ignore is none, or the file of metrics could not be written.
        RefusedError: this machine does not run systemd, or declined.
    """
    expand(load_catalogue(), wish.ignore)
    check_targets([textfile_of(loaded.site.name, wish)])
    return _change(loaded, wish, "present", consent, progress, check, owner or present_owner())


def remove(
    loaded: LoadedSite,
    wish: TimerWish,
    *,
    consent: Callable[[str], None],
    progress: Progress,
    check: bool = False,
    owner: Owner | None = None,
) -> Report:
    """Remove the timer and its file of metrics, which the installed unit names unless the wish does.

    Raises:
        ConfigError: what is named is there and is no file; a directory would go with all that is in it.
        RefusedError: this machine does not run systemd, or declined.
    """
    who = owner or present_owner()
    if wish.textfile is None:
        unit = who.unit_dir / f"{unit_name(loaded.site.name)}.service"
        wish = replace(wish, textfile=installed_textfile(unit))
    metrics = textfile_of(loaded.site.name, wish)
    if metrics.exists() and not metrics.is_file():
        raise ConfigError(f"{metrics} is there and is no file; it is not removed", hint="name the file of metrics")
    return _change(loaded, wish, "absent", consent, progress, check, who)


def _change(
    loaded: LoadedSite,
    wish: TimerWish,
    state: str,
    consent: Callable[[str], None],
    progress: Progress,
    check: bool,
    owner: Owner,
) -> Report:
    if not SYSTEMD.is_dir():
        raise RefusedError(
            "this machine does not run systemd, so it can have no timer",
            hint="run `dspark-ops doctor --textfile FILE` from what runs commands here, as cron",
        )
    variables = timer_variables(loaded, wish, owner, os.environ) | {"doctor_timer_state": state}
    verb = "monitor timer install" if state == "present" else "monitor timer remove"
    recorder = Recorder(verb, loaded.site.name, progress)
    with recorder.phase("plan") as note:
        result, planned = _play(loaded, variables, check=True)
        note.detail = f"{len(planned)} changes" if result.ok else "failed"
    if not result.ok:
        return _failed(recorder, result, left=())
    if check:
        recorder.changes.extend(planned)
        return recorder.report("planned", ExitCode.OK, f"{len(planned)} changes would be made; nothing was changed")
    if not planned:
        return recorder.report("unchanged", ExitCode.OK, _state_words(state, owner, variables))
    lines = [f"plan for the machine that dspark-ops runs on ({owner.scope} units of {owner.name}):"]
    consent("\n".join([*lines, *(f"  {change.what}" for change in planned)]))
    with recorder.phase("apply"):
        result, made = _play(loaded, variables, check=False)
    recorder.changes.extend(made)
    if not result.ok:
        return _failed(recorder, result, left=(f"units {variables['doctor_timer_name']}.* in {owner.unit_dir}",))
    return recorder.report("changed", ExitCode.OK, _state_words(state, owner, variables))


def _play(loaded: LoadedSite, variables: Mapping[str, object], *, check: bool) -> tuple[PlayResult, list[Change]]:
    """Run the playbook. Its one host is no node, so its changes are heard here."""
    changes: list[Change] = []

    def hear(event: TaskEvent) -> None:
        if event.kind == "changed":
            what = f"{event.task} ({event.item})" if event.item else event.task or "a task without a name"
            changes.append(Change(node="control", what=what, diff=event.diff))

    result = run_playbook(PLAYBOOK, loaded, variables=variables, check=check, diff=True, on_event=hear, timeout_s=120)
    return result, changes


def _failed(recorder: Recorder, result: PlayResult, *, left: tuple[str, ...]) -> Report:
    reason = result.failures[0].message if result.failures else f"ansible-playbook ended with {result.rc}"
    again = "run it again when the reason is gone, or `dspark-ops monitor timer remove`"
    if not left:
        return recorder.report("failed", ExitCode.NO_VERDICT, f"nothing was changed: {reason}", next_step=again)
    return recorder.report("restore-incomplete", ExitCode.RESTORE_INCOMPLETE, reason, next_step=again, left=left)


def _state_words(state: str, owner: Owner, variables: Mapping[str, object]) -> str:
    if state == "absent":
        return "no timer, and no file of metrics"
    told = "the doctor runs every {doctor_timer_every_s} s and writes {doctor_timer_textfile}".format(**variables)
    if owner.root or (LINGER / owner.name).exists():
        return told
    return f"{told}; only while {owner.name} is logged in, until `loginctl enable-linger {owner.name}`"


def installed_textfile(unit: Path) -> Path | None:
    """The file of metrics that an installed service writes, or None where there is none or it cannot be told."""
    try:
        lines = unit.read_text(encoding="utf-8").splitlines()
        (command,) = [line.partition("=")[2] for line in lines if line.startswith("ExecStart=")]
        words = shlex.split(command)
        return Path(words[words.index("--textfile") + 1].replace("%%", "%").replace("$$", "$"))
    except (OSError, ValueError, IndexError):
        return None
