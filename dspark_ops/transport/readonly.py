"""The guard of reading: a probe may only run a program, with a sub-command, that this table knows to be read-only."""

from __future__ import annotations

from collections.abc import Iterable

from dspark_ops.errors import DsparkError
from dspark_ops.transport.base import Command, ForEach, Http, Probe

# program -> allowed leading words after options of the program itself; () means any arguments read only.
READ_ONLY: dict[str, tuple[tuple[str, ...], ...]] = {
    "apt-mark": (("showhold",),),
    "docker": (
        ("version",),
        ("info",),
        ("ps",),
        ("image", "ls"),
        ("image", "inspect"),
        ("container", "inspect"),
        ("container", "ls"),
        ("container", "top"),
        ("inspect",),
        ("logs",),
        ("network", "ls"),
        ("network", "inspect"),
    ),
    "dpkg-query": ((),),
    "ethtool": ((),),
    "getent": ((),),
    "ibdev2netdev": ((),),
    "ibv_devinfo": ((),),
    "id": ((),),
    "ip": ((),),
    "journalctl": ((),),
    "lldpctl": (("-f", "json0"),),
    "loginctl": (("show-user",), ("list-users",)),
    "ls": ((),),
    "lspci": ((),),
    "lsblk": ((),),
    "nmcli": (("-t",), ("-g",), ("device", "show"), ("connection", "show")),
    "nvidia-smi": ((),),
    "ping": ((),),
    "rdma": (("link", "show"), ("statistic", "show"), ("dev", "show")),
    "ss": ((),),
    "stat": ((),),
    "systemctl": (("show",), ("is-active",), ("is-enabled",), ("list-units",), ("cat",)),
    "timedatectl": (("show",),),
    "true": ((),),
    "uname": ((),),
}
# `ip`, `ethtool` and `nvidia-smi` read unless one of these is among the words.
_WRITING_WORDS: dict[str, frozenset[str]] = {
    "ip": frozenset({"add", "del", "delete", "set", "flush", "replace", "change", "append", "exec", "-batch", "-b"}),
    "ethtool": frozenset({"-s", "-G", "-L", "-K", "-A", "-C", "-E", "-r", "-t", "-p", "--change", "--reset"}),
    "nvidia-smi": frozenset(
        {
            "-pm",
            "-pl",
            "-lgc",
            "-rgc",
            "-lmc",
            "-rmc",
            "-r",
            "-e",
            "-c",
            "-ac",
            "-rac",
            "--gpu-reset",
            "--power-limit",
        }
    ),
    "journalctl": frozenset({"--rotate", "--flush", "--sync", "--vacuum-size", "--vacuum-time", "--vacuum-files"}),
    "ss": frozenset({"-K", "--kill"}),
    "ping": frozenset({"-f"}),
}


class ReadOnlyViolationError(DsparkError):
    """A probe would run something that is not known to be read-only: a bug of ours, never sent."""


def assert_read_only(probes: Iterable[Probe]) -> None:
    """Refuse the whole batch if one probe could write.

    Raises:
        ReadOnlyViolationError: naming the command; nothing was sent.
    """
    for probe in probes:
        if isinstance(probe, Command | ForEach):
            _assert_command(probe)
        elif isinstance(probe, Http) and not probe.url.startswith(("http://127.0.0.1:", "http://[::1]:")):
            host = probe.url.split("/")[2] if "//" in probe.url else probe.url
            if not host.rsplit(":", 1)[0].replace(".", "").isdigit():
                raise ReadOnlyViolationError(
                    f"probe {probe.id!r} asks {host!r}: only numeric addresses of the node are asked"
                )


def _assert_command(probe: Command | ForEach) -> None:
    program, *words = probe.argv
    allowed = READ_ONLY.get(program)
    if allowed is None:
        raise ReadOnlyViolationError(f"probe {probe.id!r} runs {program!r}, which is not in the read-only table")
    if not any(tuple(words[: len(lead)]) == lead for lead in allowed):
        raise ReadOnlyViolationError(f"probe {probe.id!r} runs {' '.join(probe.argv)!r}: no read-only sub-command")
    writing = _WRITING_WORDS.get(program, frozenset()).intersection(words)
    if writing:
        raise ReadOnlyViolationError(f"probe {probe.id!r}: {sorted(writing)[0]!r} makes {program!r} write")
