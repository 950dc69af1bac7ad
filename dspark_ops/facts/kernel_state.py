"""The kernel that runs: how it was started, which ones are installed, how the boot before this one ended."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, Files, Links, NodeReading, Probe, ProbeResult

PROBES: tuple[Probe, ...] = (
    Command(
        "kernel.previous",
        ("journalctl", "-b", "-1", "-n", "40", "-q", "--no-pager", "-o", "cat"),
        root=True,
        timeout_s=3.0,
    ),
    Files("kernel.files", ("/proc/cmdline",), max_bytes=8192),
    Links("kernel.links", ("/boot/vmlinuz-*", "/etc/modprobe.d/*.conf", "/var/log/journal/*")),
)

BootEnd = Literal["clean", "cut", "none"]

# What the journal of a boot ends with when the machine was shut down or rebooted on purpose.
_CLEAN = re.compile(
    r"^Journal stopped|systemd-shutdow|^Reached target .{0,120}(Power[- ]Off|Reboot|Shutdown|Final Step|reboot\.target"
    r"|poweroff\.target)|^System is (rebooting|powering down)|^Shutting down\.",
    re.MULTILINE,
)
_NO_BOOT = re.compile(r"no such boot|boot id|not available|no persistent journal|no journal files", re.IGNORECASE)


class KernelStateFacts(Fact):
    """options: of the kernel's command line. installed: releases that have an image in /boot; None when not read.

    previous_end: clean, cut (the journal stops without a shutdown) or none (no earlier boot is kept). module_files:
    names of /etc/modprobe.d. journal_kept: the journal outlives a boot.
    """

    options: tuple[str, ...] | None = None
    installed: tuple[str, ...] | None = None
    previous_end: BootEnd | None = None
    module_files: tuple[str, ...] | None = None
    journal_kept: bool | None = None


def parse_boot_end(text: str | None) -> BootEnd | None:
    """How a boot ended, from the last lines of its journal; None without a line."""
    if text is None or not text.strip():
        return None
    return "clean" if _CLEAN.search(text) else "cut"


def boot_end(result: ProbeResult) -> BootEnd | None:
    """The same from the probe: a journal that keeps no earlier boot says so, which is not the same as unread."""
    if result.rc == 0:
        return parse_boot_end(result.stdout)
    said = (result.stderr or "") + (result.stdout or "")
    return "none" if result.rc is not None and _NO_BOOT.search(said) else None


def kernels_of(paths: Iterable[str]) -> tuple[str, ...]:
    """The releases of /boot/vmlinuz-RELEASE, in the order of their numbers."""
    names = {path.removeprefix("/boot/vmlinuz-") for path in paths if path.startswith("/boot/vmlinuz-")}
    return tuple(sorted((n for n in names if n[:1].isdigit()), key=release_order))


def release_order(release: str) -> tuple[tuple[int, ...], str]:
    """A key that sorts 6.17.0-1014-nvidia before 6.17.0-1031-nvidia."""
    return tuple(int(number) for number in re.findall(r"\d{1,9}", release)), release


def read_kernel_state(reading: NodeReading) -> KernelStateFacts | None:
    """The kernel of a reading; None when nothing of it was read."""
    files, links = reading.get("kernel.files").files, reading.get("kernel.links").files
    if files is None and links is None:
        return None
    seen = files or {}
    line = seen.get("/proc/cmdline")
    # Without root the lines of others are not shown, and their end is not the boot's.
    seen_all = reading.sudo or reading.user == "root"
    kept = None if links is None else any(path.startswith("/var/log/journal/") for path in links)
    names = None if links is None else (path.rsplit("/", 1)[-1] for path in links if path.startswith("/etc/modprobe.d"))
    return KernelStateFacts(
        options=None if line is None else tuple(line.split()),
        installed=None if links is None else kernels_of(links),
        previous_end=boot_end(reading.get("kernel.previous")) if seen_all else None,
        module_files=None if names is None else tuple(sorted(names)),
        journal_kept=kept,
    )
