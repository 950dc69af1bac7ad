#!/usr/bin/python3
"""The packet filter of a node: loads it, arms the revert of a change, puts back what nobody confirmed.

Runs in the module dspark_exposure and, installed alone on the node, without Ansible: only the standard library.

usage: dspark_exposure_node.py load | timer TOKEN | operator

load: at boot; a change that nobody confirmed is put back first. timer: the revert that a change armed; only the timer
that the journal names has a say. operator: now. Prints one JSON object. exit status: 0 done; 1 incomplete; 2 usage
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FAMILY, TABLE = "inet", "dspark_exposure"
UNIT = "dspark-exposure.service"
TIMER = "dspark-exposure-revert"
PROGRAM = "/usr/local/lib/dspark-ops/dspark_exposure_node.py"
RULES = Path("/etc/dspark/exposure.nft")
JOURNAL = Path("/var/lib/dspark/journal/exposure.json")
SCHEMA = "dspark-ops/exposure-journal/v1"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REPLACE = f"table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n"
# `nft list` in the same run shows the rules before they are in force, so it takes two.
_NORMAL = f'nft -f "$1" && nft -s list table {FAMILY} {TABLE}'

Entry = dict[str, Any]


class NftError(Exception):
    """nft is missing or said no; in its own words."""


def run(*argv: str, stdin: str | None = None) -> tuple[int, str, str]:
    """Exit code, output and error of a program. Raises NftError where it cannot be started or does not end."""
    env = {"PATH": os.environ.get("PATH", "") + ":" + _PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            env=env,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NftError(f"{argv[0]}: {error}") from error
    return done.returncode, done.stdout, done.stderr.strip()


def live() -> str | None:
    """The table that is in force, without its counters; None when there is none."""
    rc, out, err = run("nft", "-s", "list", "table", FAMILY, TABLE)
    if rc == 0:
        return out
    if "No such file" in err:
        return None
    raise NftError(f"nft cannot list the table: {err}")


def normal(rules: str) -> str:
    """How nft itself would list these rules: loaded in a network namespace of their own, which ends with the question.

    It is the check as well: rules that the kernel refuses raise NftError and nothing was changed.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".nft") as file:
        file.write(rules)
        file.flush()
        rc, out, err = run("unshare", "--net", "sh", "-c", _NORMAL, "sh", file.name)
    if rc != 0:
        raise NftError(f"nft refuses the rules: {err}")
    return out


def put(table: str | None) -> None:
    """Replace the table that is in force in one step; None takes it away. Other tables are not touched."""
    rc, _, err = run("nft", "-f", "-", stdin=_REPLACE + (table or ""))
    if rc != 0:
        raise NftError(f"nft refuses the rules: {err}")


def read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def write(path: Path, text: str | None, mode: int = 0o600) -> None:
    """Replace a file as a whole, or remove it; on disk on return."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.dspark-tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
        os.fchmod(out.fileno(), mode)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def locked(journal: Path) -> Iterator[None]:
    """Of a confirmation and a revert exactly one goes first, and the other one sees it."""
    journal.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(journal.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def entry_of(journal: Path) -> Entry | None:
    """The last change, or None when there is none that can be read."""
    try:
        entry = json.loads(journal.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) and entry.get("schema") == SCHEMA else None


def enabled() -> bool:
    """Whether the rules are loaded at boot."""
    return run("systemctl", "is-enabled", "--quiet", UNIT)[0] == 0


def active() -> bool:
    """Whether systemd has the unit for started: only then it follows what restarts or reloads nftables."""
    return run("systemctl", "is-active", "--quiet", UNIT)[0] == 0


def enable(wanted: bool, *, now: bool = True) -> None:
    """Have the rules loaded at boot, or not. now: and when nftables starts anew. To stop the unit unloads nothing."""
    rc, _, err = run("systemctl", "enable" if wanted else "disable", *(["--now"] if now else []), UNIT)
    if rc != 0 and wanted:
        raise NftError(f"{UNIT} cannot be enabled: {err}")


def begin(rules: str, *, revert_after_s: int, rules_path: Path, journal: Path) -> str:
    """Journal what is there, arm the revert, then write and load the rules, in this order; the token of the timer."""
    with locked(journal):
        open_one = entry_of(journal)
        before = {"file": read(rules_path), "live": live(), "enabled": enabled()}
        if open_one is not None and open_one["state"] == "open":
            # A run died before it was confirmed: what was before it is still what a revert leads to.
            before = open_one["before"]
        token = uuid.uuid4().hex[:8]
        entry = {
            "schema": SCHEMA,
            "id": token,
            "token": token,
            "state": "open",
            "began_at": time.time(),
            "revert_after_s": revert_after_s,
            "before": before,
            "wrote": rules,
        }
        write(journal, json.dumps(entry))
        arm(token, revert_after_s)
        write(rules_path, rules, 0o644)
        put(rules.removeprefix(_REPLACE))
        enable(True)
    return token


def arm(token: str, after_s: int) -> None:
    """Have the node put itself back unless confirmed in time. Raises NftError when that cannot be promised."""
    rc, _, err = run(
        "systemd-run",
        "--quiet",
        f"--unit={TIMER}-{token}",
        f"--on-active={after_s}",
        "--timer-property=AccuracySec=100ms",
        "--property=Restart=on-abnormal",
        "/usr/bin/python3",
        PROGRAM,
        "timer",
        token,
    )
    if rc != 0:
        raise NftError(f"the revert could not be armed, nothing was changed: {err}")


def disarm() -> None:
    """Stop every timer of ours; they would find nothing to do."""
    run("systemctl", "stop", f"{TIMER}-*.timer")


def revert(why: str, token: str | None, *, rules_path: Path = RULES, journal: Path = JOURNAL) -> dict[str, Any]:
    """Put an open change back and write down how it went. The first to hold the lock decides."""
    with locked(journal):
        entry = entry_of(journal)
        if entry is None or entry["state"] != "open":
            return {"changed": False, "errors": [], "message": "nothing to revert"}
        if token is not None and entry["token"] != token:
            return {"changed": False, "errors": [], "message": "another timer has taken over"}
        was, errors = entry["before"], []
        try:
            write(rules_path, was["file"], 0o644)
        except OSError as error:
            errors.append(f"{rules_path}: {error.strerror or error}")
        try:
            put(was["live"])
            if live() != was["live"]:
                errors.append("the table in force is not as it was")
        except NftError as error:
            errors.append(str(error))
        if not was["enabled"]:
            try:
                # At boot this is the unit itself: to stop it would end the revert before it is written down.
                enable(False, now=why != "boot")
            except NftError as error:
                errors.append(str(error))
        entry["state"] = "revert-incomplete" if errors else "reverted"
        entry["reverted"] = {"why": why, "at": time.time(), "errors": errors}
        write(journal, json.dumps(entry))
    return {"changed": True, "errors": errors, "message": "the revert is incomplete" if errors else "as it was before"}


def load(*, rules_path: Path = RULES, journal: Path = JOURNAL) -> dict[str, Any]:
    """Put the rules of the file in force; a change that a boot has interrupted is put back first."""
    answer = revert("boot", None, rules_path=rules_path, journal=journal) if booted_since(journal) else {"errors": []}
    rules = read(rules_path)
    if rules is None:
        return {"changed": False, "errors": answer["errors"], "message": "no rules of ours"}
    put(rules.removeprefix(_REPLACE))
    return {"changed": True, "errors": answer["errors"], "message": "the rules are in force"}


def booted_since(journal: Path) -> bool:
    """Whether an open change is older than this boot: then its timer is gone with the boot before."""
    entry = entry_of(journal)
    if entry is None or entry["state"] != "open":
        return False
    rc, _, _ = run("systemctl", "is-active", "--quiet", f"{TIMER}-{entry['token']}.timer")
    return rc != 0


def main(argv: list[str]) -> int:
    try:
        if argv == ["load"]:
            result = load()
        elif argv[:1] == ["timer"] and len(argv) == 2:
            result = revert("timer", argv[1])
        elif argv == ["operator"]:
            result = revert("operator", None)
        else:
            sys.stderr.write(__doc__ or "")
            return 2
    except (NftError, OSError) as error:
        result = {"changed": False, "errors": [str(error)], "message": "failed"}
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
