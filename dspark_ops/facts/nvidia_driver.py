"""The NVIDIA driver as the kernel runs it: the module's version and the firmware on the GPU."""

from __future__ import annotations

import re

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Files, NodeReading, Probe

_VERSION = "/proc/driver/nvidia/version"
_BOARD = "/proc/driver/nvidia/gpus/*/information"
PROBES: tuple[Probe, ...] = (Files("driver.files", (_VERSION, _BOARD), max_bytes=4096),)

_MODULE = re.compile(r"^NVRM version:.{0,120}?\s(\d{3}\.\d{1,3}(?:\.\d{1,3})?)\s", re.MULTILINE)
_FIRMWARE = re.compile(r"^GPU Firmware:[ \t]*(\S{1,40})", re.MULTILINE)
#: A driver's version, as 580.142 or 580.159.03.
VERSION = re.compile(r"\d{3}\.\d{1,3}(?:\.\d{1,3})?")


class NvidiaDriverFacts(Fact):
    """module: version of the loaded kernel module. firmware: of the GPU's system processor (GSP), None where N/A."""

    module: str | None = None
    firmware: str | None = None


def parse_module_version(text: str | None) -> str | None:
    """The version in /proc/driver/nvidia/version."""
    found = _MODULE.search((text or "") + " ")
    return found[1] if found else None


def parse_firmware(text: str | None) -> str | None:
    """The firmware in /proc/driver/nvidia/gpus/BUS/information, which also holds the GPU's own id: that is not kept."""
    found = _FIRMWARE.search(text or "")
    return found[1] if found and VERSION.fullmatch(found[1]) else None


def numbers_of(version: str) -> tuple[int, ...]:
    """580.159.03 as (580, 159, 3), to compare versions by their numbers."""
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version))


def read_driver(reading: NodeReading) -> NvidiaDriverFacts | None:
    """The driver of a reading; None when it was not read. Without a driver both fields are None."""
    files = reading.get("driver.files").files
    if files is None:
        return None
    boards = [text for path, text in sorted(files.items()) if path.endswith("/information")]
    return NvidiaDriverFacts(
        module=parse_module_version(files.get(_VERSION)), firmware=parse_firmware(boards[0]) if boards else None
    )
