"""What is a secret in a text: by its name, by its shape, or by where it stands. Found, not judged.

The shapes are the published prefixes of the issuers (Hugging Face, OpenAI, GitHub, GitLab, Slack, AWS, Google, NVIDIA
NGC, JSON web tokens); the options and variables are those of vLLM and of the recipes for this pair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dspark_ops.evidence.commands import NAMES, PASSWORDS, spots_in
from dspark_ops.facts.rank import HIDDEN
from dspark_ops.releases.model import hide_argv

#: Found by its name alone, whatever its value is.
_NAME = (
    r"[A-Za-z0-9_.-]{0,60}(?:api[_-]?keys?|access[_-]?keys?|private[_-]?key|secret[_-]?key|auth[_-]?key|license[_-]?key"
    r"|passphrase|passwords?|passwd|psk|pre[_-]?shared[_-]?key|wep[_-]?key[0-3]?|credentials?|client[_-]?secret|secrets?"
    r"|(?:hf|hub|auth|access|refresh|api|bearer|bot|session|id)[_-]?token|community[_-]string)"
)
# In capitals it is a variable, where KEY and TOKEN say enough; TOKENS is a number of them.
_VARIABLE = r"[A-Z][A-Z0-9_]{0,60}(?:_KEYS?|_TOKEN|_PAT|_PWD|_PASS|_AUTH|_COOKIE)|TOKEN|PASSWORD|SECRET"
_SPECIAL = re.compile(r"(?:eos|bos|pad|unk|sep|cls|mask|image|per|next|start|end|stop|think)_?token", re.IGNORECASE)
_OPTION = re.compile(
    r"--?[a-z0-9_-]{0,60}(?:api[-_]?key|hf[-_]token|auth[-_]token|access[-_]token|secret|password|passwd|credential)"
    r"[a-z0-9_-]{0,60}",
    re.IGNORECASE,
)
#: The prefixes that tell whose token it is.
ISSUERS = re.compile(r"hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|nvapi-|AKIA|ASIA|AIza")
_HIDDEN = re.compile(rf"(?:{ISSUERS.pattern})?hidden-?\d{{1,14}}")
_OF_A_COOKIE = re.compile(r"(?i)((?:^|[;\s])(?!(?:path|domain|expires|max-age|samesite)=)[^=;\s]+=)([^;\s]+)")
_IS = r"(?:[\"']?[ \t]*:[ \t]*|=|[ \t]+=[ \t]*)"
_END = r"[^\s\"'\\,;}\])\x00&|<>]"
_QUOTED = r"\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|\\\"(?:[^\"\\\n])*\\\""


@dataclass(frozen=True)
class Shape:
    """One way to see a secret. value: the group that is hidden; a group n is the name that says so."""

    kind: str
    pattern: re.Pattern[str]
    value: str = "v"


SHAPES: tuple[Shape, ...] = (
    Shape(
        "private key",
        re.compile(
            r"(?P<v>-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[^\"]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|(?=\")|\Z))",
        ),
    ),
    Shape(
        "token",
        re.compile(
            r"(?<![A-Za-z0-9])(?P<v>hf_[A-Za-z0-9]{6,}|sk-(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{8,}|gh[pousr]_[A-Za-z0-9]{10,}"
            r"|github_pat_[A-Za-z0-9_]{10,}|glpat-[A-Za-z0-9_-]{10,}|xox[abprs]-[A-Za-z0-9-]{8,}|nvapi-[A-Za-z0-9_-]{10,}"
            r"|A(?:KIA|SIA)[A-Z0-9]{12,}|AIza[A-Za-z0-9_-]{20,}|eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*)"
        ),
    ),
    Shape("authorization", re.compile(r"(?i)\bbearer[\s:=]+[\"']?(?P<v>[A-Za-z0-9._~+/=-]{6,})")),
    Shape(
        "authorization",
        re.compile(
            r"(?i)\bauthorization[\"']?\s*[:=]\s*[\"']?(?:(?:basic|bearer|digest|token)\s+)?(?P<v>[^\s\"',<>\\]+)"
        ),
    ),
    Shape("cookie", re.compile(r"(?i)(?<![\w-])(?:set-)?cookie[\"']?\s*[:=]\s*[\"']?(?P<v>[^\r\n\"'<>\\]+)")),
    # A keyfile of NetworkManager: the rest of the line, blanks and all.
    Shape(
        "network key",
        re.compile(
            r"(?im)^[ \t]*(?:psk|wep-key[0-3]|preshared-key|leap-password|password-raw)[ \t]*=[ \t]*"
            r"(?P<v>[^\r\n\x00]+)"
        ),
    ),
    # WireGuard, as netplan has it: `key:`, or `private:` and `shared:` below `keys:`.
    Shape(
        "network key",
        re.compile(
            r"(?i)\b(?:key|private|shared)[\"']?[ \t]*[:=][ \t]*[\"']?(?P<v>[A-Za-z0-9+/]{43}=)(?![A-Za-z0-9+/=])"
        ),
    ),
    Shape(
        "password in a URL", re.compile(r"(?i)\b[a-z][a-z0-9+.-]*://[^/\s:@\"'<>]{0,256}:(?P<v>[^/\s@\"'<>]{1,512})@")
    ),
    Shape("password in a URL", re.compile(r"(?i)\bhttps?://(?P<v>[^/\s:@\"'<>]{6,512})@")),
    Shape(
        "parameter of a URL",
        re.compile(
            r"(?i)[?&;][\w.-]{0,60}(?:key|token|secret|sig|signature|password|passwd|auth|credential)[\w.-]{0,60}="
            r"(?P<v>[^&\s\"'<>#;\\]+)"
        ),
    ),
    Shape(
        "argument",
        re.compile(
            rf"(?<![\w-]){_OPTION.pattern}(?:=|[\s\x00]+|\"\s*,\s*\"|',\s*')"
            rf"(?P<v>(?:{_QUOTED}|(?!--)[^\s\"'\x00<>\\]+)(?:(?:[ \t\x00]|\",\s*\"|',\s*')(?!-)[^\s\"'\x00<>=\\]+)*)",
            re.IGNORECASE,
        ),
    ),
    *(Shape("password of a program", password.in_text()) for password in PASSWORDS),
    # As vLLM prints what it was given: 'api_key': ['...', '...'].
    Shape(
        "listed value",
        re.compile(
            rf"(?<![A-Za-z0-9_])(?<!/etc/)(?P<n>{_NAME}){_IS}[\[(][ \t]*(?P<v>[^\])\n\\]{{1,4000}})", re.IGNORECASE
        ),
    ),
    Shape(
        "variable",
        re.compile(rf"(?<![A-Za-z0-9_])(?P<n>{_VARIABLE}){_IS}(?P<v>{_QUOTED}|{_END}+)"),
    ),
    Shape(
        "variable",
        re.compile(rf"(?<![\w.-])(?P<n>token){_IS}(?P<v>{_QUOTED}|(?![\d.]+(?![\w.])){_END}+)", re.IGNORECASE),
    ),
    Shape(
        "variable",
        re.compile(rf"(?<![A-Za-z0-9_])(?<!/etc/)(?P<n>{_NAME}){_IS}(?P<v>{_QUOTED}|{_END}+)", re.IGNORECASE),
    ),
)
#: A text without any of these has no shape of a secret in it: most have none, and this is quicker than all shapes.
SUSPECT = re.compile(
    r"token|key|secret|pass|pwd|auth|cred|cookie|bearer|sig|://|hf_|sk-|gh[pousr]_|github_pat|glpat-|xox|nvapi-|akia|asia"
    rf"|aiza|eyj|_pat\b|community|psk|private|shared|{NAMES}",
    re.IGNORECASE,
)
_WHOLE = 4096
_AFTER = 4


def is_secret_name(name: str) -> bool:
    """Whether the value of a variable or key of this name is nobody's business."""
    if _SPECIAL.search(name):
        return False
    return (
        name.lower() == "token"
        or re.fullmatch(_VARIABLE, name) is not None
        or re.fullmatch(_NAME, name, re.IGNORECASE) is not None
    )


def is_harmless(value: str) -> bool:
    """Nothing, hidden already, or a switch."""
    bare = value.strip("\"'\\ ")
    if not bare or bare.startswith(HIDDEN) or _HIDDEN.fullmatch(bare):
        return True
    return bare.lower() in ("none", "null", "true", "false", "0", "1", "[]", "{}")


def seen_in(text: str) -> Iterator[tuple[str, str]]:
    """(kind, value) of every secret in a text, by its shape and place."""
    for suspect, part in parts_of(text):
        for shape in SHAPES if suspect else ():
            for match in shape.pattern.finditer(part):
                name = match.groupdict().get("n")
                if name is not None and _SPECIAL.search(name):
                    continue
                for word in words_of(shape.kind, match[shape.value]):
                    yield shape.kind, word


def parts_of(text: str) -> Iterator[tuple[bool, str]]:
    """A text in parts, and whether a part can hold a secret: the lines with such a word, and the few after each."""
    if len(text) < _WHOLE or "PRIVATE KEY" in text:
        yield SUSPECT.search(text) is not None, text
        return
    held: list[str] = []
    left, state = 0, False
    for line in text.splitlines(keepends=True):
        left = _AFTER if SUSPECT.search(line) else left - 1
        if (left > 0) is not state and held:
            yield state, "".join(held)
            held = []
        state = left > 0
        held.append(line)
    yield state, "".join(held)


def each_word(kind: str, value: str, change: Callable[[str], str]) -> str:
    """A match with every secret in it changed, and its quotes and separators kept: an option may take several words."""
    if kind == "cookie" and "=" in value:
        return _OF_A_COOKIE.sub(lambda match: match[1] + change(match[2]), value)
    if kind in ("cookie", "private key", "password of a program"):
        return change(value)
    if kind == "listed value" or (kind == "argument" and not value.startswith(("'", '"', '\\"'))):
        return re.sub(r"[^\s\x00\"',]+", lambda match: change(match[0]), value)
    parts = re.fullmatch(r"(\\\"|[\"']|)([\s\S]*?)(\\\"|[\"']|)", value)
    return value if parts is None else parts[1] + change(parts[2]) + parts[3]


def words_of(kind: str, value: str) -> list[str]:
    """The secrets of a match."""
    found: list[str] = []
    each_word(kind, value, lambda word: found.append(word) or word)  # type: ignore[func-returns-value]
    return found


def told_in(document: Any) -> Iterator[tuple[str, str]]:
    """(kind, value) of the secrets of a JSON document: by their key, as NAME=value, as the word after an option."""
    if isinstance(document, dict):
        for key, value in document.items():
            if isinstance(value, str) and is_secret_name(str(key)):
                yield "variable", value
            else:
                yield from told_in(value)
    elif isinstance(document, list):
        words = [item for item in document if isinstance(item, str)]
        yield from given_in(words)
        for item in document:
            yield from told_in(item)
    elif isinstance(document, str):
        yield from seen_in(document)


def given_in(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(kind, value) of the secrets of an argument list or an environment."""
    for word, shown in zip(argv, hide_argv(argv), strict=True):
        if shown != word:
            yield "argument", word.partition("=")[2] if shown != HIDDEN else word
        name, equals, value = word.partition("=")
        if equals and is_secret_name(name):
            yield "variable", value
    for index, begin in spots_in(argv).items():
        yield "password of a program", argv[index][begin:]


def documents_in(text: str) -> Iterator[Any]:
    """The JSON documents of a text: the whole of it, or one a line."""
    if not text.lstrip().startswith(("{", "[")):
        return
    try:
        yield json.loads(text)
    except (ValueError, RecursionError):
        for line in text.splitlines():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                continue
