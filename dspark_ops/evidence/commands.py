"""Passwords on the command lines of programs that take them by a short option, which says nothing by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Between two words: blanks, also over an escaped end of line; the NUL of /proc; the marks of a list in JSON or Python.
_BETWEEN = r"(?:[ \t\x00]+(?:\\\n[ \t]*)?|\"\s*,\s*\"|'\s*,\s*')"
_WORD = r"(?:[^\s\"'\x00|;&]|\"[^\"\n]{0,200}\"|'[^'\n]{0,200}')+"
_WORDS = rf"(?:{_BETWEEN}{_WORD}){{0,24}}?"
# The options of sshpass before -p, three of which take a word; after them comes another program with its own.
_LEADING = rf"(?:{_BETWEEN}-(?:[Pfd]{_BETWEEN})?{_WORD}){{0,6}}?"
_APART = r"(?:(?P<l>\"\s*,\s*\"|'\s*,\s*')|(?P<z>\x00)|[ \t]+(?:\\\n[ \t]*)?)"
_WHOLE_VALUE = r"(?P<v>(?(z)[^\x00\n]+|(?(l)[^\"'\n]+|(?(q)[^\"'\\\n\x00]+|[^\s\"'\x00\\<>|;&]+))))"


@dataclass(frozen=True)
class Password:
    """How a program takes one. programs, option: regular expressions. verb: a word that must stand between them.

    joined, apart: `-pVALUE`, `-p VALUE`. owner: what stands before it in the same word, as `user:`, and is no secret.
    leading: another program, with options of its own, begins with the first word that is none.
    """

    programs: str
    option: str
    verb: str = ""
    joined: bool = True
    apart: bool = True
    owner: str = ""
    leading: bool = False

    def in_text(self) -> re.Pattern[str]:
        """For a line of a shell, the NUL-separated words of a process, or a list that is written out."""
        verb = rf"{_WORDS}{_BETWEEN}{self.verb}(?![\w.-])" if self.verb else ""
        words = _LEADING if self.leading else _WORDS
        # The groups of the gap are asked for in the value, so that they have to be there.
        gap = _APART if self.apart else r"(?:(?P<l>(?!))|(?P<z>(?!)))?"
        if self.joined and self.apart:
            gap = rf"(?:{gap}|=)?"
        return re.compile(
            rf"(?<![\w.-])(?:{self.programs})(?![\w.-]){verb}{words}{_BETWEEN}(?:{self.option}){gap}"
            rf"(?P<q>\\?[\"'])?(?!\\?[\"']?\$[\w{{(]){self.owner}{_WHOLE_VALUE}"
        )

    def in_words(self, argv: Sequence[str], begin: int) -> Iterator[tuple[int, int]]:
        """(which word, where in it) of the passwords in an argument list whose word `begin` is the program."""
        verb = not self.verb
        for index in range(begin + 1, len(argv)):
            word = argv[index]
            if not verb:
                verb = re.fullmatch(self.verb, word) is not None
                continue
            last = argv[index - 1]
            if self.leading and not word.startswith("-") and not re.fullmatch("-[pPfd]", last):
                return
            if self.apart and index > begin + 1 and re.fullmatch(self.option, last):
                owner = re.match(self.owner, word)
            elif self.joined and (option := re.match(rf"(?:{self.option})=?", word)) and option.end() < len(word):
                owner = re.compile(self.owner).match(word, option.end())
            else:
                continue
            if owner is not None and owner.end() < len(word):
                yield index, owner.end()


_USER = r"[^\s:\"'\x00]{1,128}:"
PASSWORDS: tuple[Password, ...] = (
    Password("sshpass", "-p", leading=True),
    Password("curl", r"-[A-Za-z#]{0,12}[uU]|--user|--proxy-user", owner=_USER),
    Password("curl", "--pass", joined=False),
    Password("(?:docker|podman|nerdctl|buildah|skopeo|helm|oras|crane)", "-p", verb="login"),
    Password("skopeo", "--(?:src-|dest-)?creds", owner=_USER),
    # With a blank after it, -p asks for the password, and what follows is a database.
    Password(r"(?:mysql|mariadb)[\w-]{0,20}", "-p", apart=False),
    Password(r"mongo(?:sh|dump|restore|export|import)?", "-p"),
    Password("redis-cli", "-a", joined=False),
    Password(r"ldap(?:search|add|modify|delete|whoami|passwd|compare)", "-w"),
    Password("ipmitool", "-P", joined=False),
    Password(r"(?:smbclient|rpcclient)", "-U", owner=r"[^\s%\"'\x00]{1,128}%"),
    Password("openssl", "-pass(?:in|out)?", joined=False, owner="pass:"),
)
#: Words without which a text holds none of them.
NAMES = r"sshpass|curl|login|skopeo|mysql|mariadb|mongo|redis-cli|ldap|ipmitool|smbclient|rpcclient"


def spots_in(argv: Sequence[str]) -> dict[int, int]:
    """Of the words that hold a password, where in them it begins. A program may stand after sudo or another one."""
    found: dict[int, int] = {}
    for begin, word in enumerate(argv):
        name = word.rsplit("/", 1)[-1]
        for password in PASSWORDS:
            if re.fullmatch(password.programs, name):
                found.update(password.in_words(argv, begin))
    return found
