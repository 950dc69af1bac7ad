"""Texts that a model may honestly write: code, prose, lists, tables, data. From this machine and from generators."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHARACTERS = 1800
_LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "site-packages",
    "__pycache__",
    "lib2to3",
    "turtledemo",
    "encodings",
    "pydoc_data",
}


@dataclass(frozen=True)
class Honest:
    """kind: a row of the table; source: what decides its half; prompt: what was given, where it matters."""

    kind: str
    source: str
    text: str
    prompt: str = ""

    @property
    def held_out(self) -> bool:
        """The half on which nothing was tried while the patterns were written."""
        return hashlib.sha256(self.source.encode()).digest()[0] % 2 == 1


def honest_texts(per_kind: int) -> list[Honest]:
    """Up to `per_kind` of each kind, the same ones each time on one machine."""
    found: list[Honest] = []
    for make in (_code, _docstrings, _manual_pages, _lists, _headings, _quoted_cjk, _generated):
        kinds: dict[str, int] = {}
        for text in make():
            kinds[text.kind] = kinds.get(text.kind, 0) + 1
            if kinds[text.kind] <= per_kind:
                found.append(text)
            elif all(number > per_kind for number in kinds.values()):
                break
    return found


def _generator(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the texts are to be the same each time


def _library() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(root.rglob("*.py")) if not _LEFT_OUT & set(path.relative_to(root).parts)]
    _generator(1).shuffle(files)
    return files


def _code() -> Iterator[Honest]:
    for path in _library():
        text = path.read_text(encoding="utf-8", errors="replace")
        for at in range(0, min(len(text), 5 * CHARACTERS), CHARACTERS):
            piece = text[at : at + CHARACTERS]
            yield Honest("code", path.name, piece[piece.find("\n") + 1 :] if at else piece)


def _docstrings() -> Iterator[Honest]:
    for path in _library():
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) > 300:
                    yield Honest("docstring prose", path.name, text[:CHARACTERS])


def _manual_pages() -> Iterator[Honest]:
    pages = sorted(Path("/usr/share/man").glob("man[1578]/*.gz"))
    _generator(2).shuffle(pages)
    for page in pages:
        try:
            roff = gzip.decompress(page.read_bytes()).decode("utf-8", "replace")
        except (OSError, EOFError):
            continue
        lines = [line for line in roff.splitlines() if line and line[0] not in ".'"]
        text = (
            re.sub(r"\\f[BIRP]|\\f\(..|\\&|\\s[-+]?\d", "", "\n".join(lines)).replace("\\-", "-").replace("\\e", "\\")
        )
        text = re.sub(r"\\\(..|\\\[.*?\]", "", text)
        if len(text) > 1500:
            yield Honest("manual page", page.name, text[400 : 400 + CHARACTERS].partition("\n")[2])


def _lists() -> Iterator[Honest]:
    for honest in _docstrings():
        sentences = [s.strip() for s in re.split(r"(?<=[.;:])\s+", " ".join(honest.text.split())) if len(s) > 15]
        if len(sentences) >= 4:
            mark = "-*"[len(sentences) % 2]
            yield Honest("list opening", honest.source, "\n".join(f"{mark} {s}" for s in sentences))


def _headings() -> Iterator[Honest]:
    for honest in _docstrings():
        yield Honest("markdown heading", honest.source, f"## {honest.source[:-3].title()}\n\n{honest.text}\n\n---\n")


def _quoted_cjk() -> Iterator[Honest]:
    rng = _generator(3)
    for honest in _docstrings():
        quoted = "".join(rng.choices("的一是在不了有和人这中大", k=rng.randrange(4, 20)))
        text = f"{honest.text[:300]} The label reads {quoted}. {honest.text[300:600]}"
        yield Honest("quoting the prompt's CJK", honest.source, text, f"Explain the label {quoted}.")


def _generated() -> Iterator[Honest]:
    rng = _generator(4)
    for n in range(100000):
        rows = [{"id": rng.randrange(10**6), "name": _word(rng), "ok": rng.random() < 0.5} for _ in range(24)]
        source = f"generated {n}"
        yield Honest("JSON", source, json.dumps(rows, indent=rng.choice((None, 2))))
        yield Honest("numbered 1 to N", source, "\n".join(str(k) for k in range(1, rng.randrange(60, 300))))
        head = "INSERT INTO t (id, name, ok) VALUES"
        inserts = [f"{head} ({r['id']}, '{r['name']}', {r['ok']});" for r in rows]
        yield Honest("SQL inserts", source, "\n".join(inserts))
        table = [f"| {r['id']} | {r['name']} | {r['ok']} |" for r in rows]
        yield Honest("markdown table", source, "\n".join(["| id | name | ok |", "|----|------|----|", *table]))


def _word(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randrange(4, 9)))
