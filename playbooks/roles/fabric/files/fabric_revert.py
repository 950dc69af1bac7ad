#!/usr/bin/python3
"""Puts the rails back to what the journal says they were. Runs on the node, alone: by a timer or the role fabric.

usage: fabric_revert.py JOURNAL

Only an open entry is reverted. The file must be one that we wrote (its digest is in the entry) or still the old one;
otherwise somebody edited it meanwhile and nothing is done. Prints one JSON object.
exit status: 0 reverted, or nothing to revert; 4 refused; 1 incomplete
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: bytes, mode: int) -> None:
    """Replace a file as a whole: a reader, or a power cut, sees the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.dspark-tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        os.fchmod(out.fileno(), mode)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, path)  # noqa: PTH105 (same call as the module's)


def run(*argv: str) -> str | None:
    """Run a program; the error text when it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{argv[0]}: {error}"
    return None if done.returncode == 0 else f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}"


def restore_file(entry: dict[str, Any]) -> str | None:
    """Put the old bytes back. The reason when that is refused."""
    path, before = Path(entry["path"]), entry["before"]
    current = path.read_bytes() if path.exists() else None
    if current is not None and digest(current) not in {before["sha256"], *entry["written"]}:
        return f"{path} was edited since dspark-ops wrote it; it was left alone"
    if before["content"] is None:
        path.unlink(missing_ok=True)
    else:
        # The journal keeps bytes that are no UTF-8 as surrogates.
        write_atomically(path, before["content"].encode("utf-8", "surrogateescape"), int(before["mode"], 8))
    return None


def live_addresses(netdev: str) -> list[str]:
    done = subprocess.run(
        ["ip", "-j", "addr", "show", "dev", netdev], capture_output=True, text=True, timeout=20, check=False
    )
    if done.returncode != 0:
        return []
    return [f"{a['local']}/{a['prefixlen']}" for link in json.loads(done.stdout) for a in link.get("addr_info", [])]


def restore_links(entry: dict[str, Any]) -> list[str]:
    """Take back what networkd leaves on a port that it no longer manages: our address and our MTU."""
    errors: list[str | None] = []
    for netdev, was in entry["links"].items():
        if not Path("/sys/class/net", netdev).exists():
            continue
        live = live_addresses(netdev)
        ours = [a for a in live if a in entry["given"] and a not in was["addresses"]]
        gone = [a for a in was["addresses"] if ":" not in a and a not in live]
        errors += [run("ip", "addr", "del", address, "dev", netdev) for address in ours]
        errors += [run("ip", "addr", "add", address, "dev", netdev) for address in gone]
        if int(Path("/sys/class/net", netdev, "mtu").read_text(encoding="ascii")) != was["mtu"]:
            errors.append(run("ip", "link", "set", "dev", netdev, "mtu", str(was["mtu"])))
    return [error for error in errors if error]


def main() -> int:
    journal = Path(sys.argv[1])
    entry = json.loads(journal.read_text(encoding="utf-8")) if journal.exists() else None
    if entry is None or entry["state"] != "open":
        sys.stdout.write(json.dumps({"changed": False, "errors": [], "message": "nothing to revert"}))
        return 0
    refused = restore_file(entry)
    if refused:
        sys.stdout.write(json.dumps({"changed": False, "errors": [refused], "message": refused}))
        return 4
    errors = [error for error in (run("netplan", "apply"),) if error] + restore_links(entry)
    if not errors:
        entry["state"] = "reverted"
        write_atomically(journal, json.dumps(entry, indent=1).encode(), 0o600)
    sys.stdout.write(json.dumps({"changed": True, "errors": errors, "message": f"{entry['path']} is as it was before"}))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
