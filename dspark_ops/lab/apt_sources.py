"""Which Debian archives this machine's apt is set up with: nothing about mirrors is written down in the project."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dspark_ops.errors import ConfigError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR_VARIABLE = "DSPARK_LAB_DEBIAN_MIRROR"
_POCKETS = ("", "-updates", "-security")
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


@dataclass(frozen=True)
class AptSource:
    """One archive and suite, e.g. ("http://mirror/debian", "bookworm-updates", ("main",))."""

    uri: str
    suite: str
    components: tuple[str, ...]

    def line(self) -> str:
        """The one-line form that apt and mmdebstrap read, pinned to Debian's own keyring."""
        return f"deb [signed-by={KEYRING}] {self.uri} {self.suite} {' '.join(self.components)}"


def debian_sources(suite: str, *, etc_apt: Path = Path("/etc/apt")) -> tuple[AptSource, ...]:
    """The machine's Debian archives for `suite`, in the order of its configuration.

    An archive counts as Debian's when its suite is a Debian codename (with -updates or -security), it has `main`,
    and it is signed by the Debian keyring or names no key of its own. The machine's codename is exchanged for `suite`.
    """
    override = os.environ.get(MIRROR_VARIABLE)
    if override:
        return (AptSource(override, suite, ("main",)),)
    machine = _codename()
    found: dict[tuple[str, str], AptSource] = {}
    for uri, at, components, signed_by in _configured(etc_apt):
        pocket = _pocket(at, {machine, suite, "stable", "oldstable", "testing"})
        if pocket is None or "main" not in components or (signed_by and "debian-archive" not in signed_by):
            continue
        wanted = AptSource(uri.rstrip("/"), suite + pocket, ("main",))
        found.setdefault((wanted.uri, wanted.suite), wanted)
    if not any(source.suite == suite for source in found.values()):
        raise ConfigError(
            f"no Debian archive for {suite} in {etc_apt}; expected a suite with 'main', signed by {KEYRING.name}",
            hint=f"add a Debian mirror to apt's sources, or name one in {MIRROR_VARIABLE}",
        )
    return tuple(found.values())


def apt_proxies() -> tuple[str, ...]:
    """The machine's apt proxy settings as `Name "value"` options; empty where it has none."""
    try:
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=20, check=False).stdout
    except FileNotFoundError:
        return ()
    wanted = re.compile(r'^(Acquire::https?::Proxy(?:::\S+)?) "(.+)";$')
    return tuple(f'{m[1]} "{m[2]}"' for m in map(wanted.match, dump.splitlines()) if m)


def _pocket(suite: str, codenames: set[str]) -> str | None:
    for codename in codenames:
        for pocket in _POCKETS:
            if suite == codename + pocket:
                return pocket
    return None


def _codename() -> str:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return "stable"
    match = re.search(r"^VERSION_CODENAME=\"?([a-z]+)\"?$", text, re.MULTILINE)
    return match[1] if match else "stable"


def _configured(etc_apt: Path) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """(uri, suite, components, signed-by) of every enabled binary source in both of apt's notations."""
    lists = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*.list"))]
    for path in lists:
        if path.is_file():
            yield from _one_line(path.read_text(encoding="utf-8").splitlines())
    for path in sorted((etc_apt / "sources.list.d").glob("*.sources")):
        yield from _deb822(path.read_text(encoding="utf-8"))


def _one_line(lines: Iterable[str]) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    for line in lines:
        match = _ONE_LINE.match(line.split("#", 1)[0].strip())
        if match:
            signed = re.search(r"signed-by=(\S+)", match["options"] or "", re.IGNORECASE)
            yield (
                match["uri"],
                match["suite"],
                tuple(match["components"].split()),
                signed[1] if signed else "",
            )


def _deb822(text: str) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and key:
                fields[key] += " " + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                key = name.strip().lower()
                fields[key] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in {
            "no",
            "false",
        }:
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield uri, suite, components, fields.get("signed-by", "")
