"""What a node is: operating system, DGX release, kernel, and which parts of it a rehearsal imitates."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, Files, NodeReading, Probe

PROBES: tuple[Probe, ...] = (
    Command("system.uname", ("uname", "-srm")),
    Files(
        "system.files",
        (
            "/etc/os-release",
            "/etc/dgx-release",
            "/etc/dspark-lab.json",
            "/etc/systemd/logind.conf",
            "/etc/systemd/logind.conf.d/*.conf",
            "/usr/lib/systemd/logind.conf.d/*.conf",
            "/run/systemd/logind.conf.d/*.conf",
            "/sys/class/dmi/id/product_name",
            "/sys/class/dmi/id/sys_vendor",
            "/sys/class/dmi/id/bios_version",
            "/var/lib/systemd/linger/*",
            "/run/reboot-required",
        ),
    ),
)

_KEY_VALUE = re.compile(r"^[ \t]*([A-Za-z_][A-Za-z0-9_]*)=(.*)$", re.MULTILINE)


class LookAlike(Fact):
    """Something of this node that a rehearsal imitates: what, why, and which real state it follows."""

    what: str
    why: str
    follows: str


class DgxRelease(Fact):
    """/etc/dgx-release without its serial number. ota: the last one listed is the installed one."""

    name: str | None = None
    platform: str | None = None
    build: str | None = None
    ota: str | None = None
    ota_history: tuple[str, ...] = ()


class SystemFacts(Fact):
    """The node's software. look_alikes: None on real hardware, a list on a rehearsal node.

    remove_ipc: whether logind removes a user's IPC objects at logout; lingering: users for whom it does not apply.
    """

    hostname: str | None = None
    login_user: str | None = None
    kernel: str | None = None
    arch: str | None = None
    os_id: str | None = None
    os_version: str | None = None
    os_title: str | None = None
    product: str | None = None
    vendor: str | None = None
    bios: str | None = None
    dgx: DgxRelease | None = None
    look_alikes: tuple[LookAlike, ...] | None = None
    remove_ipc: bool | None = None
    lingering: tuple[str, ...] | None = None
    reboot_required: bool | None = None


def parse_key_values(text: str) -> list[tuple[str, str]]:
    """The KEY=value lines in order, quotes taken off where they are a pair; nothing is evaluated."""
    pairs = []
    for key, raw in _KEY_VALUE.findall(text):
        value = raw.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        pairs.append((key, value))
    return pairs


def parse_dgx_release(text: str | None) -> DgxRelease | None:
    """Tolerant: unquoted values with blanks, several OTA entries; dates are localised, so they are not read."""
    if text is None:
        return None
    pairs = parse_key_values(text)
    values = {key: value for key, value in pairs if key.startswith("DGX_") and value}
    if not values:
        return None
    history = tuple(value for key, value in pairs if key == "DGX_OTA_VERSION" and value)
    return DgxRelease(
        name=values.get("DGX_NAME"),
        platform=values.get("DGX_PLATFORM"),
        build=values.get("DGX_SWBUILD_VERSION"),
        ota=history[-1] if history else None,
        ota_history=history,
    )


def parse_lab_marker(text: str | None) -> tuple[LookAlike, ...] | None:
    """The look-alikes of a rehearsal node; None without a marker. A marker of another shape stands for everything."""
    if text is None:
        return None
    try:
        document = json.loads(text)
        items = document if isinstance(document, list) else document["look_alikes"]
        return tuple(LookAlike(what=str(i["what"]), why=str(i["why"]), follows=str(i["follows"])) for i in items)
    except (ValueError, KeyError, TypeError, RecursionError):
        return (LookAlike(what="/", why="the marker of the lab cannot be parsed", follows="unknown"),)


def parse_uname(text: str | None) -> tuple[str | None, str | None]:
    """(kernel release, architecture) of `uname -srm`, or of `uname -a`."""
    words = (text or "").split()
    if len(words) == 3:
        return words[1], words[2]
    if len(words) > 3:
        known = [w for w in words[3:] if w in ("aarch64", "x86_64")]
        return words[2], known[0] if known else None
    return None, None


def parse_remove_ipc(files: Mapping[str, str]) -> bool | None:
    """What logind does with IPC objects at logout: the last RemoveIPC= of its files, default yes; None if unread."""
    if not files:
        return None
    value = True
    # Drop-ins come after the main file, and are sorted by their name, not by their directory.
    for path in sorted(files, key=lambda p: ("logind.conf.d" in p, p.rsplit("/", 1)[-1], p)):
        if "logind.conf" not in path:
            continue
        for key, text in parse_key_values(files[path]):
            if key == "RemoveIPC" and text:
                value = text.lower() in ("yes", "true", "on", "1")
    return value


def read_system(reading: NodeReading) -> SystemFacts | None:
    """The software of a reading; None when the node was not read."""
    files = reading.get("system.files").files
    kernel, arch = parse_uname(reading.get("system.uname").text())
    if files is None and kernel is None:
        return None
    seen = files or {}
    release = dict(parse_key_values(seen.get("/etc/os-release", "")))
    lingering = tuple(sorted(p.rsplit("/", 1)[-1] for p in seen if p.startswith("/var/lib/systemd/linger/")))
    return SystemFacts(
        hostname=reading.hostname,
        login_user=reading.user,
        kernel=kernel,
        arch=arch,
        os_id=release.get("ID"),
        os_version=release.get("VERSION_ID"),
        os_title=release.get("PRETTY_NAME"),
        product=seen.get("/sys/class/dmi/id/product_name", "").strip() or None,
        vendor=seen.get("/sys/class/dmi/id/sys_vendor", "").strip() or None,
        bios=seen.get("/sys/class/dmi/id/bios_version", "").strip() or None,
        dgx=parse_dgx_release(seen.get("/etc/dgx-release")),
        look_alikes=parse_lab_marker(seen.get("/etc/dspark-lab.json")),
        remove_ipc=None if files is None else parse_remove_ipc(seen),
        lingering=None if files is None else lingering,
        reboot_required=None if files is None else "/run/reboot-required" in seen,
    )
