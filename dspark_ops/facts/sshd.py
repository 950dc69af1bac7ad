"""Whether the SSH server lets anybody in by a password."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Files, NodeReading, Probe

MAIN = "/etc/ssh/sshd_config"
PROBES: tuple[Probe, ...] = (Files("sshd.files", (MAIN, "/etc/ssh/sshd_config.d/*.conf"), max_bytes=32768, root=True),)
_DEPTH = 4
#: Former names, which the server still takes.
_ALIASES = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "skeyauthentication": "kbdinteractiveauthentication",
}


class SshdFacts(Fact):
    """What holds for everybody. root_login: yes, no, prohibit-password or forced-commands-only.

    prompts: PAM asks for a password by keyboard-interactive, whatever `passwords` says; None in an older recording.
    """

    passwords: bool
    root_login: str
    prompts: bool | None = None


def parse_sshd(files: Mapping[str, str] | None) -> SshdFacts | None:
    """The first value of a key counts, an Include stands for its files; blocks under Match are left out.

    None when the main file was not read.
    """
    if not files or MAIN not in files:
        return None
    values: dict[str, str] = {}
    for key, value in _settings(files, MAIN, _DEPTH):
        values.setdefault(_ALIASES.get(key, key), value)
    # What is not set is as OpenSSH has it: keyboard-interactive is on, PAM, which alone answers it, is off.
    asks = values.get("kbdinteractiveauthentication", "yes").lower() != "no"
    return SshdFacts(
        prompts=asks and values.get("usepam", "no").lower() == "yes",
        passwords=values.get("passwordauthentication", "yes").lower() != "no",
        root_login=values.get("permitrootlogin", "prohibit-password").lower().replace("without-", "prohibit-"),
    )


def _settings(files: Mapping[str, str], path: str, depth: int) -> Iterator[tuple[str, str]]:
    for raw in files[path].splitlines():
        words = raw.strip().replace("=", " ", 1).split(None, 1)
        if len(words) < 2 or words[0].startswith("#"):
            continue
        key, value = words[0].lower(), words[1].split("#")[0].strip().strip('"')
        if key == "match":
            return
        if key != "include":
            yield key, value
            continue
        for pattern in value.split() if depth else ():
            full = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
            for name in sorted(files):
                if name != path and fnmatchcase(name, full):
                    yield from _settings(files, name, depth - 1)


def read_sshd(reading: NodeReading) -> SshdFacts | None:
    """The server's settings of a reading; None without root, which alone reads all of its files."""
    if not (reading.sudo or reading.user == "root"):
        return None
    return parse_sshd(reading.get("sshd.files").files)
