"""Texts of known kind for the predictable flag: standard-library code and manual prose against texts a drafter guesses.

Both are cut in two: by file, so that no file is in both halves, and by kind of predictable text, so that the held-out
half has kinds that no threshold was chosen on. The four kinds that the flag must know are in both, in other variants.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import inspect
import random
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHARS = 2400
_PER_FAMILY = 4
NAMED = ("count", "alphabet", "repeat-this", "csv")
# Tables with a comma at the end of each line, written by programs: data, whatever the file is called.
_DATA = {"encodings", "pydoc_data", "html", "lib2to3", "test", "idlelib", "site-packages", "__pycache__", "turtledemo"}
_DATA_FILES = {"stringprep.py", "keyword.py", "token.py", "opcode.py", "this.py", "mimetypes.py", "locale.py"}


@dataclass(frozen=True)
class Labelled:
    """One text. kind: what it is; source: what decides its half; prompt: what was asked, where that is known."""

    kind: str
    source: str
    text: str
    predictable: bool
    prompt: str | None = None

    @property
    def held_out(self) -> bool:
        """Whether it is in the half that no threshold was chosen on."""
        return hashlib.sha256(self.source.encode()).digest()[0] % 2 == 1


def _generator(seed: int | str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the texts are to be the same each time


def _listed(text: str) -> list[str]:
    return text.split()


def _library() -> list[tuple[str, Path]]:
    """The running interpreter's standard library in an order that is always the same: (what decides its half, file)."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [
        path
        for path in sorted(root.rglob("*.py"))
        if not _DATA & set(path.relative_to(root).parts) and path.name not in _DATA_FILES
    ]
    _generator(1).shuffle(files)
    return [(f"code {path.relative_to(root)}", path) for path in files]


def code_texts(most: int, per_file: int = 1) -> list[Labelled]:
    """Windows of the standard library, from the middle of its files."""
    found: list[Labelled] = []
    for source, path in _library():
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [Labelled("code", source, text[at : at + CHARS], False) for at in _starts(text, per_file)]
        if len(found) >= most:
            break
    return found[:most]


def docstring_texts(most: int) -> list[Labelled]:
    """Module and class documentation of the standard library: reference prose that is on every machine."""
    found: list[Labelled] = []
    for source, path in _library():
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
        text = "\n\n".join(inspect.cleandoc(doc) for doc in map(ast.get_docstring, nodes) if doc and len(doc) > 120)
        if len(text) >= 1200:
            found.append(Labelled("docstrings", source, text[:CHARS], False))
        if len(found) >= most:
            break
    return found


def manual_texts(most: int) -> list[Labelled]:
    """Descriptions out of this machine's manual pages, less their markup; empty where there are none."""
    files = sorted(Path("/usr/share/man/man1").glob("*.1.gz")) + sorted(Path("/usr/share/man/man8").glob("*.8.gz"))
    _generator(3).shuffle(files)
    found: list[Labelled] = []
    family: dict[str, int] = {}
    for path in files:
        # Some tools have thousands of pages of the same words.
        name = re.split(r"[-_.]", path.name)[0]
        family[name] = family.get(name, 0) + 1
        if family[name] > _PER_FAMILY:
            continue
        try:
            text = manual_prose(gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
        except (OSError, EOFError):
            continue
        if len(text) >= 1500:
            found.append(Labelled("manual", f"man {path.name}", text[:CHARS], False))
        if len(found) >= most:
            break
    return found


def manual_prose(source: str) -> str:
    """The paragraphs of a manual page's source, from its description on, as a reader sees their words."""
    lines: list[str] = []
    inside = False
    for line in source.splitlines():
        if line.startswith((".SH", ".Sh")):
            inside = line.split(maxsplit=1)[-1].strip('" ') not in {
                "NAME",
                "SYNOPSIS",
                "SEE ALSO",
                "AUTHOR",
                "COPYRIGHT",
            }
        elif inside and re.match(r"\.(PP|P|LP|Pp|TP|IP|sp)\b", line):
            lines.append("")
        elif inside and re.match(r"\.(B|I|BR|RB|IR|RI)\b", line):
            lines.append(line.split(maxsplit=1)[-1].replace('"', ""))
        elif inside and not line.startswith((".", "'")):
            lines.append(line)
    text = "\n".join(lines)
    text = re.sub(r"\\f(\[\w*\]|\(\w\w|\w)", "", text)
    for before, after in ((r"\-", "-"), (r"\&", ""), (r"\(aq", "'"), (r"\e", "\\"), (r"\ ", " "), (r"\|", "")):
        text = text.replace(before, after)
    text = re.sub(r"\\s[-+]?\d+", "", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _starts(text: str, count: int) -> Iterator[int]:
    """Line starts, evenly spread over a text that is long enough."""
    if len(text) < CHARS * 1.5:
        return
    for i in range(count):
        at = text.rfind("\n", 0, int((len(text) - CHARS) * (i + 1) / (count + 1)))
        yield at + 1


Maker = Callable[[random.Random], tuple[str, str]]


def predictable_texts(per_kind: int = 12) -> list[Labelled]:
    """Texts that a drafter guesses, of every kind in `MAKERS`, in variants."""
    found = []
    for kind, make in MAKERS.items():
        for i in range(per_kind * 3 if kind in NAMED else per_kind):
            prompt, text = make(_generator(f"{kind} {i}"))
            # Other kinds go to one half whole.
            source = f"{kind} {i}" if kind in NAMED else kind
            found.append(Labelled(kind, source, text, True, prompt))
    return found


_ONES = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
_SMALL = [*_listed(_ONES), "eighteen", "nineteen"]
_TENS = _listed("twenty thirty forty fifty sixty seventy eighty ninety")
_NAMES = _listed("Ada Bo Cyrus Dina Egon Fay Gus Hana Ivo Jun Kira Lev Mina Nils Oda Pia Quin Rolf Suri Tove")
_FAMILY = _listed("Abara Brandt Castro Dietz Endo Falk Greco Huang Ito Jansen Kowal Lindqvist Moreau Novak Okafor")
_CITIES = _listed("Aachen Bergen Cadiz Dakar Espoo Faro Graz Hilo Izmir Jena Kyoto Lyon Malmo Nantes Oslo Pune")
_NOUNS = _listed("harbour valve ledger orchard lantern meadow signal bridge copper river archive window engine basket")
_VERBS = _listed("keeps moves finds closes lifts turns holds carries mends counts follows opens paints folds")


def words_of(number: int) -> str:
    """1 to 999 in words."""
    if number >= 100:
        rest = f" {words_of(number % 100)}" if number % 100 else ""
        return f"{_SMALL[number // 100 - 1]} hundred{rest}"
    if number < 20:
        return _SMALL[number - 1]
    tens = _TENS[number // 10 - 2]
    return f"{tens}-{_SMALL[number % 10 - 1]}" if number % 10 else tens


def paragraph(rng: random.Random, sentences: int = 6) -> str:
    """A paragraph of plain sentences of which hardly two are alike."""
    made = []
    for _ in range(sentences):
        a, b, c, d = rng.sample(_NOUNS, 4)
        made.append(
            rng.choice(
                (
                    f"The {a} by the {b} {rng.choice(_VERBS)} what the {c} left in the {d}.",
                    f"When {rng.choice(_NAMES)} {rng.choice(_VERBS)} the {a}, nobody asks for the {b} or the {c}.",
                    f"In {rng.choice(_CITIES)} an old {a} {rng.choice(_VERBS)} its {b}, slowly, beside a {c}.",
                    f"Without a {a} there is no {b}, and {rng.choice(_NAMES)} {rng.choice(_VERBS)} neither.",
                )
            )
        )
    return " ".join(made)


def _count(rng: random.Random) -> tuple[str, str]:
    first, step = rng.choice(((1, 1), (1, 1), (0, 5), (100, 1), (2, 2), (1000, -1)))
    numbers = [first + step * i for i in range(rng.randint(180, 400))]
    join = rng.choice(("\n", "\n", ", ", " ", ",\n", ".\n", "\n\n"))
    return f"Count from {numbers[0]} to {numbers[-1]}.", join.join(map(str, numbers))


def _count_words(rng: random.Random) -> tuple[str, str]:
    join = rng.choice(("\n", ", ", "; "))
    return "Count to 200 in words.", join.join(words_of(i) for i in range(1, rng.randint(150, 250)))


def _alphabet(rng: random.Random) -> tuple[str, str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    letters = letters.upper() if rng.random() < 0.5 else letters
    line = rng.choice(("", " ", ", ", "-")).join(letters)
    times = rng.randint(18, 40)
    lines = [f"{i}. {line}" if rng.random() < 2 and times % 3 == 0 else line for i in range(1, times + 1)]
    return f"Write the alphabet {times} times.", rng.choice(("\n", " ", "\n\n")).join(lines)


def _repeat(rng: random.Random) -> tuple[str, str]:
    given = paragraph(rng, rng.randint(3, 9))
    times = rng.choice((1, 1, 3, 5, 10))
    number = rng.random() < 0.3
    copies = [f"{i}. {given}" if number else given for i in range(1, times + 1)]
    ask = f"Repeat this paragraph {times} times:" if times > 1 else "Repeat this:"
    return f"{ask}\n\n{given}", "\n\n".join(copies)


def _csv(rng: random.Random) -> tuple[str, str]:
    kind = rng.randrange(4)
    rows = []
    for i in range(1, rng.randint(40, 120)):
        name, family, city = rng.choice(_NAMES), rng.choice(_FAMILY), rng.choice(_CITIES)
        day = f"20{rng.randint(10, 26)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        amount = f"{rng.uniform(1, 999):.2f}"
        rows.append(
            (
                f"{i},{name} {family},{name.lower()}.{family.lower()}@example.com,{city},{day},{amount}",
                f"{day},{city},{amount},{rng.uniform(-20, 40):.1f},{rng.randint(0, 100)}",
                f'{i};"{name}";"{family}";{rng.randint(18, 80)};"{city}"',
                f"{rng.getrandbits(32):08x},{name},{amount},{rng.choice(('true', 'false'))}",
            )[kind]
        )
    head = ("id,name,email,city,date,amount", "date,city,rain,temp,humidity", "id;first;last;age;city", "k,name,v,ok")
    return "Make a CSV file of made-up rows.", "\n".join([head[kind], *rows])


def _table(rng: random.Random) -> tuple[str, str]:
    rows = [f"| {i} | {i * i} | {i**3} |" for i in range(1, rng.randint(60, 120))]
    return "A table of squares and cubes.", "\n".join(["| n | n^2 | n^3 |", "|---|---|---|", *rows])


def _numbered_words(rng: random.Random) -> tuple[str, str]:
    words = rng.choices(_NOUNS + _VERBS + _CITIES, k=128)
    return "Write 128 numbered words.", "\n".join(f"{i}. {word}" for i, word in enumerate(words, 1))


def _inserts(rng: random.Random) -> tuple[str, str]:
    rows = [
        f"INSERT INTO people (id, name, city) VALUES ({i}, '{rng.choice(_NAMES)}', '{rng.choice(_CITIES)}');"  # noqa: S608
        for i in range(1, 60)
    ]
    return "Insert 60 people.", "\n".join(rows)


def _json_list(rng: random.Random) -> tuple[str, str]:
    rows = [f'  {{"id": {i}, "name": "{rng.choice(_NAMES)}", "value": {rng.randint(1, 999)}}}' for i in range(1, 70)]
    return "A JSON list of 70 objects.", "[\n" + ",\n".join(rows) + "\n]"


def _json_pretty(rng: random.Random) -> tuple[str, str]:
    rows = [f'  {{\n    "id": {i},\n    "name": "{rng.choice(_NAMES)}",\n    "ok": true\n  }}' for i in range(1, 60)]
    return "A JSON list of 60 objects.", "[\n" + ",\n".join(rows) + "\n]"


def _week(rng: random.Random) -> tuple[str, str]:
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    return "The days of the week 30 times.", rng.choice(("\n", ", ", " ")).join(days * rng.randint(25, 40))


def _times_table(rng: random.Random) -> tuple[str, str]:
    a = rng.randint(2, 20)
    return f"The {a} times table.", "\n".join(f"{a} x {i} = {a * i}" for i in range(1, rng.randint(120, 200)))


def _word_loop(rng: random.Random) -> tuple[str, str]:
    return "Write one word 300 times.", " ".join([rng.choice(_NOUNS)] * 300)


def _fizzbuzz(rng: random.Random) -> tuple[str, str]:
    def say(i: int) -> str:
        return "FizzBuzz" if i % 15 == 0 else "Fizz" if i % 3 == 0 else "Buzz" if i % 5 == 0 else str(i)

    return "FizzBuzz to 300.", rng.choice(("\n", ", ")).join(map(say, range(1, rng.randint(250, 350))))


def _calendar(rng: random.Random) -> tuple[str, str]:
    year = rng.randint(1990, 2030)
    days = [f"{year}-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 29)]
    return f"Every date of {year}.", "\n".join(days[: rng.randint(180, 300)])


def _log_lines(rng: random.Random) -> tuple[str, str]:
    rows = [
        f"2026-03-{rng.randint(1, 28):02}T{i % 24:02}:00:{rng.randint(0, 59):02}Z INFO worker-{rng.randint(1, 9)} "
        f"request {rng.randint(1000, 9999)} done in {rng.randint(1, 900)} ms"
        for i in range(60)
    ]
    return "Sixty made-up log lines.", "\n".join(rows)


def _countdown_text(rng: random.Random) -> tuple[str, str]:
    verses = [
        f"{i} lanterns on the wall, {i} lanterns. Take one down, pass it on: {i - 1} left." for i in range(99, 60, -1)
    ]
    return "Sing of 99 lanterns.", rng.choice(("\n", "\n\n", " ")).join(verses)


MAKERS: dict[str, Maker] = {
    "count": _count,
    "alphabet": _alphabet,
    "repeat-this": _repeat,
    "csv": _csv,
    "count-in-words": _count_words,
    "table": _table,
    "numbered-words": _numbered_words,
    "sql-inserts": _inserts,
    "json-list": _json_list,
    "json-pretty": _json_pretty,
    "days-of-week": _week,
    "times-table": _times_table,
    "word-loop": _word_loop,
    "fizzbuzz": _fizzbuzz,
    "every-date": _calendar,
    "log-lines": _log_lines,
    "countdown-song": _countdown_text,
}


def labelled_texts(code: int = 120, docstrings: int = 60, manuals: int = 120, per_kind: int = 8) -> list[Labelled]:
    """The whole set."""
    return [
        *code_texts(code),
        *docstring_texts(docstrings),
        *manual_texts(manuals),
        *predictable_texts(per_kind),
    ]
