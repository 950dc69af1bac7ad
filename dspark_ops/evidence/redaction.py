"""Takes out of texts what nobody else should read, and keeps what a diagnosis needs.

Secrets are hidden; the same one is `hidden-1` everywhere, so that two ranks with two keys still differ, and a token
keeps its issuer's prefix, so that it is still seen that one lay open. Serial numbers, hardware addresses and public
addresses become others of the same shape (`pseudonyms`). Two passes: everything
is learnt first, so that a secret is also hidden where nothing says that it is one.
"""

from __future__ import annotations

import json
import re
import secrets as randomness
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from pydantic import BaseModel, ConfigDict

from dspark_ops.evidence import secrets
from dspark_ops.evidence.pseudonyms import ADDRESSES, Pseudonyms, hardware_in

_SERIAL = re.compile(
    r"(?i)(?<![A-Za-z])(?:vendor[ _-]?sn|serial(?:[ _-]?(?:number|num|no\.?))?|s/n)[\"']?\s*[:=]\s*[\"']?"
    r"(?P<v>(?=[A-Za-z._-]*\d[A-Za-z._-]*\d)[A-Za-z0-9][A-Za-z0-9._-]{5,63})"
)
_UNIQUE = re.compile(
    r"(?i)(?:\b(?:GPU|MIG)-(?P<gpu>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"|\b(?:_?machine[ _-]?id|_?boot[ _-]?id|(?:product|system)[ _-]?uuid|UUID)[\"']?\s*[:=]\s*[\"']?"
    r"(?P<v>[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}))"
)
_SERIAL_FILES = re.compile(
    r"/(?:machine-id|boot_id|(?:product|board|chassis)_(?:serial|uuid)|serial(?:_number)?|unique_id|uuid)$"
)
_NUMBER_OF_JSON = re.compile(r"\":\s*-?[\d.]+$")
_NO_SERIAL = re.compile(r"(?i)^(?:0+|none|n/?a|unknown|default.*|to be filled.*|not specified|x+)$")
_COMMON = frozenset({"localhost", "head", "worker", "node", "pair", "root", "none"})
_SHORTEST = 8
_KEY_LINE = 24


class Redacted(BaseModel):
    """What was taken out, of one kind. values: different ones; places: how often something stood there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    values: int
    places: int


@dataclass(frozen=True)
class Names:
    """Names of hosts and users that are replaced; nothing is when both are empty."""

    hosts: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, hosts: Mapping[str, Iterable[str]], users: Iterable[str]) -> Names:
        """hosts: by role, the names under which a node goes. users: who logs in or runs something."""
        told = {
            name: f"{role}-host" if index == 0 else f"{role}-host{index + 1}"
            for role, names in hosts.items()
            for index, name in enumerate(n for n in dict.fromkeys(names) if n.lower() not in _COMMON and len(n) > 1)
        }
        people = [name for name in dict.fromkeys(users) if name and name not in ("root", "nobody")]
        return cls(told, {name: f"user{index + 1}" for index, name in enumerate(people)})


class Redactor:
    """Learns what is to be hidden, then hides it. key: two redactors of one key give the same pseudonyms."""

    def __init__(self, *, key: bytes | None = None, names: Names | None = None) -> None:
        self._pseudonyms = Pseudonyms(key or randomness.token_bytes(32))
        self._labels: dict[str, str] = {}
        self._literals: dict[str, tuple[str, str]] = {}
        self._serials: dict[str, str] = {}
        self._hardware: set[str] = set()
        self._makers: set[str] = set()
        self._texts: dict[str, str] = {}
        self._names = names or Names()
        self._seen: dict[str, set[str]] = {}
        self._places: dict[str, int] = {}
        self._addresses: dict[str, str] = {}
        self._serial_pattern: re.Pattern[str] | None = None

    def learn(self, text: str, *, path: str = "") -> None:
        """See what is in a text. path: the file that it is the content of; some files hold nothing but a serial."""
        for kind, value in secrets.seen_in(text):
            self._remember(kind, value)
        for document in secrets.documents_in(text):
            for kind, value in secrets.told_in(document):
                self._remember(kind, value)
        if "\0" in text:
            for kind, value in secrets.given_in(text.rstrip("\0").split("\0")):
                self._remember(kind, value)
        for pattern in (_SERIAL, _UNIQUE):
            for match in pattern.finditer(text):
                self._learn_serial(next(group for group in match.groups() if group))
        if _SERIAL_FILES.search(path):
            self._learn_serial(text.strip("\0 \n"))
        found = hardware_in(text) - self._hardware
        if found:
            self._addresses.clear()  # digits without marks may be one of these
        self._hardware |= found
        self._makers |= {mac[:6] for mac in found}

    def learn_secret(self, kind: str, value: str) -> None:
        """Hide this value wherever it stands."""
        self._remember(kind, value)

    def replace(self, what: str, by: str) -> None:
        """A text that stands for a hidden one, as an id that was computed from it, and becomes another."""
        if what != by:
            self._texts[what] = by

    def text(self, text: str) -> str:
        """The text without what was learnt, and without what can be seen in it alone."""
        if not text:
            return text
        for value in sorted(self._literals, key=len, reverse=True):
            if value in text:
                kind, label = self._literals[value]
                self._count(kind, value, text.count(value))
                text = text.replace(value, label)
        text = "".join(self._without_shapes(part) if suspect else part for suspect, part in secrets.parts_of(text))
        text = self._without_serials(text)
        for what, by in self._texts.items():
            text = text.replace(what, by)
        text = self._without_names(text)
        return ADDRESSES.sub(self._address, text)

    def _without_shapes(self, text: str) -> str:
        for shape in secrets.SHAPES:
            text = shape.pattern.sub(partial(self._in_place, shape), text)
        return text

    def name_of_host(self, name: str) -> str:
        """A host's name as it is shown."""
        return self._names.hosts.get(name, self.text(name))

    def name_of_user(self, name: str) -> str:
        """A user's name as it is shown."""
        return self._names.users.get(name, name)

    def taken_out(self) -> tuple[Redacted, ...]:
        """What was replaced until now, by kind."""
        return tuple(
            Redacted(kind=kind, values=len(self._seen[kind]), places=self._places[kind]) for kind in sorted(self._seen)
        )

    def _remember(self, kind: str, value: str) -> None:
        if kind == "private key" and value.startswith("-----"):
            # A diff or a traceback shows a line of it without the frame that says what it is.
            for line in re.split(r"\\n|\s+", value):
                self._remember(kind, line if len(line) >= _KEY_LINE else "")
        if secrets.is_harmless(value) or value in self._literals or not _tells_itself(value):
            return
        label = self._label(value)
        for spelt in _spellings(value):
            if len(spelt) >= _SHORTEST:
                self._literals.setdefault(spelt, (kind, label))

    def _label(self, value: str) -> str:
        if value not in self._labels:
            number = len(self._labels) + 1
            issuer = secrets.ISSUERS.match(value)
            self._labels[value] = f"{issuer[0]}hidden{number:014}" if issuer else f"hidden-{number}"
        return self._labels[value]

    def _in_place(self, shape: secrets.Shape, match: re.Match[str]) -> str:
        name = match.groupdict().get("n")
        value = match[shape.value]
        if name is not None and (not secrets.is_secret_name(name) or _NUMBER_OF_JSON.search(match[0])):
            return match[0]
        begin = match.start(shape.value) - match.start()
        hidden = secrets.each_word(shape.kind, value, partial(self.hidden, shape.kind))
        return match[0][:begin] + hidden + match[0][begin + len(value) :]

    def hidden(self, kind: str, word: str) -> str:
        """What stands in place of a value that is a secret for certain."""
        if secrets.is_harmless(word):
            return word
        self._count(kind, word, 1)
        return self._label(word)

    def _learn_serial(self, value: str) -> None:
        if len(value) < 4 or value in self._serials or _NO_SERIAL.match(value) or not re.search(r"\d", value):
            return
        taken = set(self._serials.values())
        drawn = next(d for salt in range(256) if (d := self._pseudonyms.like(value, salt)) not in taken)
        self._serials[value] = drawn
        self._serial_pattern = None

    def _without_serials(self, text: str) -> str:
        if not self._serials:
            return text
        if self._serial_pattern is None:
            listed = "|".join(re.escape(value) for value in sorted(self._serials, key=len, reverse=True))
            self._serial_pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{listed})(?![A-Za-z0-9])")
        return self._serial_pattern.sub(self._other_serial, text)

    def _other_serial(self, match: re.Match[str]) -> str:
        self._count("serial number", match[0], 1)
        return self._serials[match[0]]

    def _without_names(self, text: str) -> str:
        for real, shown in self._names.hosts.items():
            pattern = rf"(?<![A-Za-z0-9_-]){re.escape(real)}(?![A-Za-z0-9_-])"
            text = re.sub(pattern, partial(self._renamed, "host name", shown), text)
        for real, shown in self._names.users.items():
            name = re.escape(real)
            pattern = (
                r"(?:(?<=/home/)|(?<=/Users/)|(?<=/linger/)|(?<=User=)|(?<=user=)|(?<=user )|(?<=USER=)|(?<=LOGNAME=)"
                r"|(?<=Name=)|(?<=\())"
                rf"{name}(?=$|[^A-Za-z0-9_-])(?!\.service)|(?<![A-Za-z0-9_-]){name}(?=@)|^{name}(?=:[^:]?:\d)|\A{name}\Z"
            )
            text = re.sub(pattern, partial(self._renamed, "user name", shown), text, flags=re.MULTILINE)
        return text

    def _renamed(self, kind: str, shown: str, match: re.Match[str]) -> str:
        self._count(kind, match[0], 1)
        return shown

    def _address(self, match: re.Match[str]) -> str:
        was = match[0]
        if was not in self._addresses:
            self._addresses[was] = self._other_address(match)
        now = self._addresses[was]
        if was != now:
            kind = "address" if match["v4"] or match["v6"] else "hardware address"
            self._count(kind, was.lower(), 1)
        return now

    def _other_address(self, match: re.Match[str]) -> str:
        if match["mac"]:
            return self._pseudonyms.mac(match[0])
        if match["guid"]:
            return self._pseudonyms.guid(match[0])
        if match["bare"]:
            return self._bare(match[0])
        if match["v6"]:
            mapped = self._pseudonyms.ipv6(match["v6"], match["v6mask"] or "")
            return match[0] if mapped is None else mapped + (match["v6mask"] or "")
        mapped = self._pseudonyms.ipv4(match["v4"], match["v4mask"] or "")
        return match[0] if mapped is None else mapped + (match["v4mask"] or "")

    def _bare(self, text: str) -> str:
        """Digits without marks are an address only where they are one that was seen, or a GUID of its maker."""
        digits = text.removeprefix("0x").lower()
        if len(digits) == 12 and digits in self._hardware:
            return self._pseudonyms.mac(text)
        flipped = format(int(digits[:2], 16) ^ 2, "02x") + digits[2:6]
        if len(digits) == 16 and digits[6:10] in ("0300", "fffe") and {digits[:6], flipped} & self._makers:
            return self._pseudonyms.guid(text)
        return text

    def _count(self, kind: str, value: str, places: int) -> None:
        self._seen.setdefault(kind, set()).add(value)
        self._places[kind] = self._places.get(kind, 0) + places


def _tells_itself(value: str) -> bool:
    """Whether a value can be hidden wherever it stands: not a word that other things are called as well."""
    if len(value) < _SHORTEST:
        return False
    return len(value) >= 24 or (re.search(r"\d", value) is not None and re.search(r"[A-Za-z]", value) is not None)


def _spellings(value: str) -> set[str]:
    """A value as it stands in JSON, in JSON inside JSON, and in a URL."""
    once = json.dumps(value)[1:-1]
    plain = json.dumps(value, ensure_ascii=False)[1:-1]
    return {value, once, plain, json.dumps(once)[1:-1], urllib.parse.quote(value, safe="")}
