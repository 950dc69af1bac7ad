"""The guard of reading: a probe may only run a program, with a sub-command, that this table knows to be read-only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

from dspark_ops.errors import DsparkError
from dspark_ops.transport.base import Command, Connect, ForEach, Http, LogScan, Probe

#: The supervisor on the head, as one file.
PROGRAM = "/usr/local/lib/dspark/supervise.pyz"
#: What the gateway's edge shows its clients, without its key.
GATEWAY_CERTIFICATE = "/etc/dspark/gateway/credentials/tls.pem"

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
    "ib_write_bw": (("--version",),),
    "ib_write_lat": (("--version",),),
    "ibv_devinfo": ((),),
    "id": ((),),
    "iptables": (("-S",),),
    "ip": ((),),
    "journalctl": ((),),
    "lldpctl": (("-f", "json0"),),
    "loginctl": (("show-user",), ("list-users",)),
    "ls": ((),),
    "lspci": ((),),
    "lsblk": ((),),
    "nft": (("-s", "list", "table", "inet", "dspark_exposure"),),
    "nmcli": (("-t",), ("-g",), ("device", "show"), ("connection", "show")),
    "nvidia-smi": ((),),
    "openssl": (("x509", "-in", GATEWAY_CERTIFICATE, "-noout", "-enddate"),),
    "ping": ((),),
    "printenv": (("SSH_CONNECTION",),),
    # Two verbs of our own program: they ask the supervisor and change nothing.
    "python3": tuple((PROGRAM, verb) for verb in ("explain", "status")),
    "rdma": (("link", "show"), ("statistic", "show"), ("dev", "show")),
    "sha256sum": ((),),
    "ss": ((),),
    "stat": ((),),
    "systemctl": (("show",), ("is-active",), ("is-enabled",), ("list-units",), ("cat",)),
    "timedatectl": (("show",),),
    "true": ((),),
    "uname": ((),),
}
# `ip`, `ethtool` and `nvidia-smi` read unless one of these is among the words.
_WRITING_WORDS: dict[str, frozenset[str]] = {
    "iptables": frozenset({"-A", "-C", "-D", "-E", "-F", "-I", "-N", "-P", "-R", "-X", "-Z"})
    | frozenset({"--append", "--delete", "--delete-chain", "--flush", "--insert", "--new-chain", "--policy"})
    | frozenset({"--rename-chain", "--replace", "--zero", "--modprobe"}),
    "ip": frozenset({"add", "del", "delete", "set", "flush", "replace", "change", "append", "exec", "-batch", "-b"}),
    "ethtool": frozenset({"-s", "-G", "-L", "-K", "-A", "-C", "-E", "-r", "-t", "-p", "--change", "--reset"})
    | frozenset({"-f", "-N", "-U", "-X", "--coalesce", "--features", "--flash", "--identify", "--negotiate"})
    | frozenset({"--offload", "--pause", "--set-channels", "--set-fec", "--set-priv-flags", "--set-ring", "--test"}),
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
            "--persistence-mode",
            "--compute-mode",
            "--lock-gpu-clocks",
            "--reset-gpu-clocks",
            "-f",
            "--filename",
        }
    ),
    "journalctl": frozenset({"--rotate", "--flush", "--sync", "--vacuum-size", "--vacuum-time", "--vacuum-files"})
    | frozenset({"--cursor-file", "--relinquish-var", "--setup-keys", "--update-catalog"}),
    "nmcli": frozenset({"add", "clone", "connect", "delete", "disconnect", "down", "edit", "hotspot", "import"})
    | frozenset({"load", "modify", "off", "on", "reapply", "reload", "set", "up"}),
    "openssl": frozenset({"-out", "-writerand", "-signkey", "-set_serial", "-CAcreateserial"}),
    "ss": frozenset({"-K", "--kill"}),
    "ping": frozenset({"-f"}),
}
# Traffic, not reading: it loads the rails and changes nothing on a node. It only ever runs as `timeout -k S S PROGRAM`,
# with an end of its own (-D seconds or -n messages) and with no option but these, none of which writes a file.
_TRAFFIC = frozenset({"ib_write_bw", "ib_write_lat"})
_TRAFFIC_FLAGS = frozenset({"-F", "-b", "--report_gbits"})
_TRAFFIC_NUMBERS = {"-D": 600, "-n": 1_000_000, "-i": 2, "-p": 65535, "-q": 128, "-s": 1 << 26}
_TRAFFIC_NUMBERS |= {"-t": 4096, "-u": 31, "-x": 255}
_TRAFFIC_LIMIT_S = 900
#: How many ports one probe may try.
CONNECT_LIMIT = 128
#: How an image is looked into: without network, nothing writable, nothing pulled, gone afterwards; its own programs.
LOOK = (
    "run",
    "--rm",
    "--network=none",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--pull=never",
    "--label=io.dspark-ops.look=1",
    "--entrypoint=python3",
)
LOOK_PROGRAMS = ("/opt/dspark/verify/files_check.py", "/opt/dspark/verify/engine_check.py")


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
        elif isinstance(probe, LogScan):
            _assert_log(probe)
        elif isinstance(probe, Connect):
            _assert_connect(probe)
        elif isinstance(probe, Http) and not probe.url.startswith(("http://127.0.0.1:", "http://[::1]:")):
            host = probe.url.split("/")[2] if "//" in probe.url else probe.url
            if not host.rsplit(":", 1)[0].replace(".", "").isdigit():
                raise ReadOnlyViolationError(
                    f"probe {probe.id!r} asks {host!r}: only numeric addresses of the node are asked"
                )


def _assert_command(probe: Command | ForEach) -> None:
    program, *words = probe.argv
    if program == "docker" and words[:1] == ["run"]:
        _assert_look(probe.id, words)
        return
    if program == "setpriv":
        _assert_user_manager(probe.id, words)
        return
    if program == "timeout":
        _assert_bounded_traffic(probe.id, words)
        return
    allowed = READ_ONLY.get(program)
    if allowed is None:
        raise ReadOnlyViolationError(f"probe {probe.id!r} runs {program!r}, which is not in the read-only table")
    if not any(tuple(words[: len(lead)]) == lead for lead in allowed):
        raise ReadOnlyViolationError(f"probe {probe.id!r} runs {' '.join(probe.argv)!r}: no read-only sub-command")
    # A long option may carry its value behind "=".
    writing = _WRITING_WORDS.get(program, frozenset()).intersection(word.partition("=")[0] for word in words)
    if writing:
        raise ReadOnlyViolationError(f"probe {probe.id!r}: {sorted(writing)[0]!r} makes {program!r} write")


def _assert_log(probe: LogScan) -> None:
    """A scan runs `docker logs` or `journalctl` and ends by itself: neither may go on as lines come."""
    for argv in (probe.argv, probe.tail_argv) if probe.tail_argv else (probe.argv,):
        _assert_command(Command(probe.id, argv))
        if argv[:2] != ("docker", "logs") and argv[0] != "journalctl":
            raise ReadOnlyViolationError(f"probe {probe.id!r} scans {argv[0]!r}: only docker logs and journalctl are")
        if {"-f", "--follow"}.intersection(argv):
            raise ReadOnlyViolationError(f"probe {probe.id!r}: a scan that follows a log does not end")


def _assert_connect(probe: Connect) -> None:
    """Few attempts, at numeric addresses: who looks whether a known port answers scans no network."""
    if len(probe.targets) > CONNECT_LIMIT:
        raise ReadOnlyViolationError(f"probe {probe.id!r} tries {len(probe.targets)} ports, more than {CONNECT_LIMIT}")
    for host, port in probe.targets:
        try:
            ip_address(host)
        except ValueError:
            raise ReadOnlyViolationError(f"probe {probe.id!r} tries {host!r}: only numeric addresses are") from None
        if not 0 < port < 65536:
            raise ReadOnlyViolationError(f"probe {probe.id!r} tries port {port}")


def _assert_look(identity: str, words: list[str]) -> None:
    """`docker run` only as a look into an image: no network, nothing writable, gone afterwards, one of two programs."""
    told = f"probe {identity!r} runs {' '.join(['docker', *words])!r}"
    rest = words[len(LOOK) :]
    if tuple(words[: len(LOOK)]) != LOOK or len(rest) < 3 or rest[1] != "-B":
        raise ReadOnlyViolationError(f"{told}: a container may only be started to look into an image")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", rest[0]) or rest[2] not in LOOK_PROGRAMS:
        raise ReadOnlyViolationError(f"{told}: expected an image id and one of {', '.join(LOOK_PROGRAMS)}")


def _assert_user_manager(identity: str, words: list[str]) -> None:
    """`systemctl --user show` as the user whose manager is asked, and nothing else as anybody else."""
    told = f"probe {identity!r} runs {' '.join(['setpriv', *words])!r}"
    user = words[0].removeprefix("--reuid=") if words else ""
    asked = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "env", f"XDG_RUNTIME_DIR=/run/user/{user}"]
    asked += ["systemctl", "--user", "show"]
    if not re.fullmatch(r"\d{1,10}", user, re.ASCII) or words[: len(asked)] != asked:
        raise ReadOnlyViolationError(f"{told}: as another user only `systemctl --user show` may be asked")


def _assert_bounded_traffic(identity: str, words: list[str]) -> None:
    """`timeout -k SECONDS SECONDS ib_write_bw ...` that ends by itself, toward a numeric address or as the server."""
    told = f"probe {identity!r} runs {' '.join(['timeout', *words])!r}"
    if len(words) < 4 or words[0] != "-k" or words[3] not in _TRAFFIC:
        raise ReadOnlyViolationError(f"{told}: only bounded traffic of {', '.join(sorted(_TRAFFIC))} may run so")
    if not all(_at_most(word, _TRAFFIC_LIMIT_S) for word in words[1:3]):
        raise ReadOnlyViolationError(f"{told}: expected whole seconds, at most {_TRAFFIC_LIMIT_S}")
    rest, bounded = words[4:], False
    while rest:
        word = rest.pop(0)
        if word in _TRAFFIC_FLAGS:
            continue
        if word in _TRAFFIC_NUMBERS and rest and _at_most(rest[0], _TRAFFIC_NUMBERS[word]):
            bounded = bounded or (word in ("-D", "-n") and rest[0].strip("0") != "")
            rest.pop(0)
        elif word == "-d" and rest and re.fullmatch(r"[A-Za-z0-9_]{1,64}", rest[0]):
            rest.pop(0)
        elif rest or not re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", word, re.ASCII):
            raise ReadOnlyViolationError(f"{told}: {word!r} is not an option that is known to be harmless")
    if not bounded:
        raise ReadOnlyViolationError(f"{told}: it would never end; expected -D seconds or -n messages")


def _at_most(word: str, limit: int) -> bool:
    return re.fullmatch(r"\d{1,9}", word, re.ASCII) is not None and int(word) <= limit
