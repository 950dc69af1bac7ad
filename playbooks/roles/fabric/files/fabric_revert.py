#!/usr/bin/python3
"""Puts a node's network back to what the journal says it was. Runs on the node, alone.

usage: fabric_revert.py timer TOKEN | boot | boot-verify | operator  [--journal PATH]

timer: the revert that the change armed; only the timer that the entry names has a say. boot: before the network
managers start, so that they read the old files. boot-verify: once the network is up. operator: now.
Prints one JSON object. exit status: 0 reverted, or nothing to revert; 1 incomplete; 2 usage
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dspark_fabric_journal as journals
import dspark_fabric_live as live

JOURNAL = Path("/var/lib/dspark/journal/fabric.json")
APPLY_UNIT = "dspark-fabric-apply.service"
# The armed time, this patience and a few seconds for the rest stay below a minute.
PATIENCE_S = 8.0
LAST_PATIENCE_S = 40.0
VERIFY_PATIENCE_S = 3.0
BOOT_PATIENCE_S = 45.0


def revert(journal: Path, why: str, token: str | None) -> dict[str, Any]:
    """Put an open entry back and write down how it went. The first to hold the lock decides."""
    with journals.locked(journal):
        entry = journals.load(journal)
        if entry is None or entry["state"] != "open":
            return answer(False, "nothing to revert")
        if token is not None and entry["token"] != token:
            return answer(False, "another timer has taken over")
        began = time.monotonic()
        found = journals.digests(entry)
        # An apply of the new files that still runs would write over what is put back here.
        live.run("systemctl", "kill", "--signal=KILL", APPLY_UNIT)
        problems = journals.restore_files(entry)
        errors = boot_files(entry) if why == "boot" else running_network(entry)
        problems += journals.file_differences(entry)
        if why != "boot":
            problems += live_differences(entry, VERIFY_PATIENCE_S, mend=True)
        entry["state"] = "revert-incomplete" if problems else "reverted"
        entry["reverted"] = {
            "why": why,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "took_s": round(time.monotonic() - began, 2),
            "differences": list(dict.fromkeys(problems)),
            "program_errors": errors,
            "digests": [
                {
                    "path": record["path"],
                    "before": record["before"]["sha256"] if record["before"] else None,
                    "found": found[record["path"]],
                    "now": journals.digests(entry)[record["path"]],
                }
                for record in entry["files"]
            ],
            "live_checked": why != "boot",
        }
        journals.store(journal, entry)
    if problems:
        return answer(True, "the revert is incomplete", problems + errors)
    paths = ", ".join(record["path"] for record in entry["files"])
    return answer(True, f"{paths or 'the live state'} is as it was before")


def boot_files(entry: dict[str, Any]) -> list[str]:
    """At boot nothing runs yet: netplan's generator has read the new file, so its output is made anew."""
    if entry["backend"] != "netplan":
        return []
    good, said = live.run("netplan", "generate", timeout_s=20.0)
    return [] if good else [said]


def running_network(entry: dict[str, Any]) -> list[str]:
    """Plain `ip` first, because it is quick and needs nobody; then the manager; then what the manager took along."""
    put = (entry["live"], entry["given"], entry["netdevs"])
    live.put_back(*put)
    errors = []
    for argv in live.apply_commands(entry["backend"], entry["netdevs"]):
        running = live.Running(argv)
        if not running.wait(PATIENCE_S):
            live.put_back(*put)
            if not running.wait(LAST_PATIENCE_S):
                running.end()
        if running.error:
            errors.append(running.error)
    for name in entry["live"]["services"]:
        if not live.run("systemctl", "is-active", "--quiet", name)[0]:
            live.run("systemctl", "start", "--no-block", name)
    return errors + live.put_back(*put)


def live_differences(entry: dict[str, Any], patience_s: float, *, mend: bool) -> list[str]:
    """What of the live state is not as it was, after managers had a moment: they answer before they are done."""
    until = time.monotonic() + patience_s
    while True:
        try:
            now = live.read()
            found = live.differences(entry["live"], entry["given"], entry["netdevs"], now)
        except (OSError, ValueError) as error:
            found = [str(error)]
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.25)
        if mend:
            live.put_back(entry["live"], entry["given"], entry["netdevs"])


def boot_verify(journal: Path) -> dict[str, Any]:
    """Compare the live state with the journal once the network is up. What a boot brings is not touched."""
    entry = journals.load(journal)
    if entry is None or entry.get("reverted", {}).get("live_checked", True):
        return answer(False, "nothing to verify")
    problems = live_differences(entry, BOOT_PATIENCE_S, mend=False)
    with journals.locked(journal):
        now = journals.load(journal)
        if now is None or now["id"] != entry["id"]:
            return answer(False, "another change has begun")
        now["reverted"]["live_checked"] = True
        now["reverted"]["differences"] = list(dict.fromkeys([*now["reverted"]["differences"], *problems]))
        if [problem for problem in problems if not problem.endswith(" is gone")]:
            now["state"] = "revert-incomplete"
        journals.store(journal, now)
    return answer(True, "the live state was compared", problems)


def answer(changed: bool, message: str, errors: list[str] | None = None) -> dict[str, Any]:
    return {"changed": changed, "errors": errors or [], "message": message}


def main(argv: list[str]) -> int:
    journal = JOURNAL
    if "--journal" in argv:
        at = argv.index("--journal")
        journal = Path(argv[at + 1])
        argv = argv[:at] + argv[at + 2 :]
    if argv[:1] == ["timer"] and len(argv) == 2:
        result = revert(journal, "timer", argv[1])
    elif argv in (["boot"], ["operator"]):
        result = revert(journal, argv[0], None)
    elif argv == ["boot-verify"]:
        result = boot_verify(journal)
    else:
        sys.stderr.write(__doc__ or "")
        return 2
    sys.stdout.write(json.dumps(result))
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
