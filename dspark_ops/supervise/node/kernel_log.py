"""What the kernel says of hardware that is broken: NVIDIA's Xid messages and fatal errors of PCI Express."""

from __future__ import annotations

import errno
import os
import re
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dspark_ops.supervise.node.commands import run

_XID = re.compile(r"NVRM: Xid \([^)]*\): (\d{1,4})\b")
# pcieport 0000:00:00.0: AER: Uncorrected (Fatal) error received; also "severity=Uncorrected (Fatal)" of a device,
# and "severity=Uncorrectable (Fatal)" of newer kernels. Corrected and non-fatal ones are counters, not a verdict.
_AER = re.compile(r"\bAER\b.*(?:Uncorrect(?:ed|able) \(Fatal\))|severity=Uncorrect(?:ed|able) \(Fatal\)")
_STAMP = re.compile(r"^\[\s*(\d+\.\d+)\]\s?(.*)$")
_RECORD = 16384
_MOST_RECORDS = 200_000


@dataclass(frozen=True)
class KernelLine:
    """A line about broken hardware. code: the Xid's number, None for PCI Express. boot_s: seconds since the boot."""

    boot_s: float
    code: int | None
    text: str


def read_lines(device: Path = Path("/dev/kmsg")) -> list[tuple[float, str]] | None:
    """Every line that the kernel still has with its time since the boot; None when it cannot be read."""
    try:
        handle = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return _dmesg()
    lines: list[tuple[float, str]] = []
    try:
        for _ in range(_MOST_RECORDS):
            try:
                record = os.read(handle, _RECORD)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE:
                    continue  # overwritten while we read: the next read goes on behind the gap
                return lines if lines else _dmesg()
            if not record:
                break
            parsed = parse_record(record.decode("utf-8", "replace"))
            if parsed is not None:
                lines.append(parsed)
    finally:
        os.close(handle)
    return lines


def parse_record(record: str) -> tuple[float, str] | None:
    """`priority,sequence,microseconds,flags;text` and lines of detail after it."""
    prefix, found, text = record.partition(";")
    words = prefix.split(",")
    if not found or len(words) < 3 or not words[2].isdecimal():
        return None
    return int(words[2]) / 1e6, text.split("\n", 1)[0]


def _dmesg() -> list[tuple[float, str]] | None:
    done = run(["dmesg", "--color=never"], timeout_s=3.0)
    if not done.ok:
        return None
    lines = []
    for line in done.out.splitlines():
        match = _STAMP.match(line)
        if match:
            lines.append((float(match[1]), match[2]))
    return lines


def fatal_lines(lines: list[tuple[float, str]]) -> list[KernelLine]:
    """Those about broken hardware, the last five of each kind: a harmless one that repeats hides no other."""
    found: dict[int | None, deque[KernelLine]] = {}
    for boot_s, text in lines:
        xid = _XID.search(text)
        if xid is not None:
            found.setdefault(int(xid[1]), deque(maxlen=5)).append(KernelLine(boot_s, int(xid[1]), text[:300]))
        elif _AER.search(text) is not None:
            found.setdefault(None, deque(maxlen=5)).append(KernelLine(boot_s, None, text[:300]))
    return sorted((line for kept in found.values() for line in kept), key=lambda line: line.boot_s)


def tail(lines: list[tuple[float, str]] | None, count: int = 400) -> str:
    """The last lines as text, for evidence."""
    if lines is None:
        return "-- the kernel's log cannot be read"
    with suppress(ValueError):
        return "\n".join(f"[{boot_s:12.6f}] {text}" for boot_s, text in lines[-count:])
    return ""
