"""Can this machine execute another architecture's programs, and how to make it: qemu-user through binfmt_misc."""

from __future__ import annotations

import os
import platform
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dspark_ops.errors import ConfigError

Architecture = Literal["x86_64", "aarch64"]
BINFMT = Path("/proc/sys/fs/binfmt_misc")
_TIMEOUT_S = 30
_BASE = 0x400000
#: Architecture -> its ELF machine number, and the instructions of exit(0).
_PROGRAMS: dict[Architecture, tuple[int, bytes]] = {
    "aarch64": (183, struct.pack("<3I", 0xD2800BA8, 0xD2800000, 0xD4000001)),  # mov x8, 93; mov x0, 0; svc 0
    "x86_64": (62, bytes.fromhex("b83c00000031ff0f05")),  # mov eax, 60; xor edi, edi; syscall
}


@dataclass(frozen=True)
class Registration:
    """One handler of binfmt_misc, as its file shows it. flags: F means that it also works below a chroot."""

    enabled: bool
    interpreter: str
    flags: str
    offset: int
    magic: bytes
    mask: bytes

    def takes(self, content: bytes) -> bool:
        """Whether the kernel hands a file that begins with `content` to this interpreter."""
        part = content[self.offset : self.offset + len(self.magic)]
        mask = self.mask or b"\xff" * len(self.magic)
        return (
            self.enabled
            and bool(self.magic)
            and len(part) == len(self.magic)
            and all((one ^ other) & bits == 0 for one, other, bits in zip(part, self.magic, mask, strict=True))
        )


def parse_registration(text: str) -> Registration | None:
    """A handler's file; None where it goes by the file name's ending, or is not a handler's file."""
    fields = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    magic, mask = fields.get("magic", ""), fields.get("mask", "")
    offset = fields.get("offset", "")
    if not (_is_hex(magic) and _is_hex(mask or "00") and offset.isascii() and offset.isdigit()):
        return None
    if mask and len(mask) != len(magic):
        return None
    return Registration(
        enabled=text.startswith("enabled\n"),
        interpreter=fields.get("interpreter", ""),
        flags=fields.get("flags:", ""),
        offset=int(offset),
        magic=bytes.fromhex(magic),
        mask=bytes.fromhex(mask),
    )


def can_execute(architecture: Architecture, *, binfmt: Path = BINFMT) -> bool:
    """Whether programs of `architecture` run here, below a chroot as well.

    Root tries it: a handler may be registered where this machine's (or container's) binfmt_misc does not show it.
    Anybody else reads what is registered; what cannot be read counts as no.
    """
    if platform.machine() == architecture:
        return True
    if os.geteuid() == 0:
        return _runs_below_chroot(architecture)
    program = smallest_program(architecture)
    return any("F" in found.flags and found.takes(program) for found in registrations(binfmt))


def registrations(binfmt: Path = BINFMT) -> tuple[Registration, ...]:
    """The handlers that binfmt_misc shows; none where it is not mounted."""
    found = []
    for path in sorted(binfmt.glob("*")):
        if path.name not in ("register", "status"):
            try:
                found.append(parse_registration(path.read_text(encoding="ascii", errors="replace")))
            except OSError:
                continue
    return tuple(handler for handler in found if handler is not None)


def ensure_emulation(
    architecture: Architecture, *, install_prerequisites: bool, progress: Callable[[str], None]
) -> None:
    """Programs of `architecture` run here, or were made to; nothing is done where they do already.

    Installs qemu-user-static and binfmt-support where `install_prerequisites` allows it, mounts binfmt_misc where it
    is not mounted, and registers the emulator. It stays registered until the machine starts anew or unmounts that.

    Raises:
        ConfigError: this machine cannot be made to; with the reason.
        NoVerdictError: apt-get did not end well.
    """
    from dspark_ops.lab.prerequisites import Prerequisite, ensure_all

    if can_execute(architecture):
        return
    if os.geteuid() != 0:
        raise ConfigError(f"registering an emulator for {architecture} needs root", hint="run it with sudo")
    wanted = (
        Prerequisite(f"qemu-{architecture}-static", "qemu-user-static"),
        Prerequisite("update-binfmts", "binfmt-support"),
    )
    ensure_all(wanted, install=install_prerequisites, verb="dspark-ops image build", progress=progress)
    if not (BINFMT / "register").exists():
        _run("mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT))
    progress(f"registering qemu for {architecture}")
    _run("update-binfmts", "--enable", f"qemu-{architecture}")
    if not can_execute(architecture):
        shown = [found for found in registrations() if found.takes(smallest_program(architecture))]
        seen = f"{shown[0].interpreter}, flags {shown[0].flags or 'none'}" if shown else "nothing"
        raise ConfigError(
            f"programs for {architecture} do not run below a chroot; registered: {seen}; expected one with flag F",
            hint="`update-binfmts --disable` and `--enable` register it anew; a handler of another origin must be "
            "registered with the flag F",
        )


def smallest_program(architecture: Architecture) -> bytes:
    """A statically linked ELF file that ends with status 0."""
    machine, code = _PROGRAMS[architecture]
    start, size = 64 + 56, 64 + 56 + len(code)
    header = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + start, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000) + code


def _runs_below_chroot(architecture: Architecture) -> bool:
    """An empty root has no interpreter in it, so only one that the kernel holds open (flag F) can run this."""
    with tempfile.TemporaryDirectory(prefix="dspark-exec-") as root:
        program = Path(root) / "program"
        program.write_bytes(smallest_program(architecture))
        program.chmod(0o755)
        try:
            done = subprocess.run(
                ["chroot", root, "/program"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == 0


def _run(*command: str) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as trouble:
        raise ConfigError(f"`{' '.join(command)}` did not run: {trouble}", hint=_ELSEWHERE) from trouble
    if done.returncode != 0:
        said = " ".join(done.stdout.split()) or "it said nothing"
        raise ConfigError(f"`{' '.join(command)}` ended with {done.returncode}: {said}", hint=_ELSEWHERE)


_ELSEWHERE = (
    "a container needs the host's help: register qemu on the host (apt-get install qemu-user-static binfmt-support), "
    "or run the container with --privileged"
)


def _is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and re.fullmatch(r"[0-9a-fA-F]+", text) is not None
