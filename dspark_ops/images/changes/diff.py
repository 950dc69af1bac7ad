"""Unified diffs over bytes. Applying is strict: a hunk stands exactly where it says, with exactly its lines."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from .errors import DocumentError

_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(?: .*)?\n")
_NO_NEWLINE = b"\\ No newline at end of file\n"


@dataclass(frozen=True)
class Hunk:
    """Lines from `old_start` (0-based) on: what must stand there, and what takes its place."""

    old_start: int
    new_start: int
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]


def split_lines(content: bytes) -> list[bytes]:
    """Lines with their newline; only LF ends a line, so that every byte survives."""
    lines = content.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def make_patch(path: str, old: bytes, new: bytes) -> bytes:
    """A unified diff with three lines of context; empty when nothing differs."""
    a, b = split_lines(old), split_lines(new)
    out: list[bytes] = []
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    for group in matcher.get_grouped_opcodes(3):
        i1, i2, j1, j2 = group[0][1], group[-1][2], group[0][3], group[-1][4]
        out.append(f"@@ -{_range(i1, i2)} +{_range(j1, j2)} @@\n".encode())
        for tag, a1, a2, b1, b2 in group:
            if tag == "equal":
                out += [_line(b" ", line) for line in a[a1:a2]]
                continue
            out += [_line(b"-", line) for line in a[a1:a2]]
            out += [_line(b"+", line) for line in b[b1:b2]]
    return b"".join([f"--- a/{path}\n+++ b/{path}\n".encode(), *out]) if out else b""


def parse_patch(path: str, patch: bytes) -> tuple[Hunk, ...]:
    """The hunks of a diff of exactly this file.

    Raises:
        DocumentError: the diff is of another file, or not well formed to the last line.
    """
    lines = split_lines(patch)
    if lines[:2] != [f"--- a/{path}\n".encode(), f"+++ b/{path}\n".encode()]:
        raise DocumentError(f"the patch of {path} does not begin with --- a/{path} and +++ b/{path}")
    hunks: list[Hunk] = []
    at = 2
    while at < len(lines):
        head = _HUNK.fullmatch(lines[at])
        if head is None:
            raise DocumentError(f"the patch of {path}, line {at + 1}: expected a hunk header, found {lines[at][:60]!r}")
        old_count, new_count = (int(head[n]) if head[n] is not None else 1 for n in (2, 4))
        old, new, at = _body(path, lines, at + 1, old_count, new_count)
        # An empty range names the line before it.
        starts = [int(head[n]) - (1 if count else 0) for n, count in ((1, old_count), (3, new_count))]
        hunks.append(Hunk(starts[0], starts[1], old, new))
    if not hunks:
        raise DocumentError(f"the patch of {path} changes nothing")
    return tuple(hunks)


def _body(
    path: str, lines: list[bytes], at: int, old_count: int, new_count: int
) -> tuple[tuple[bytes, ...], tuple[bytes, ...], int]:
    old: list[bytes] = []
    new: list[bytes] = []
    while len(old) < old_count or len(new) < new_count:
        mark, text = (lines[at][:1], lines[at][1:]) if at < len(lines) else (b"", b"")
        if mark not in (b" ", b"-", b"+") or not text.endswith(b"\n"):
            raise DocumentError(f"the patch of {path}, line {at + 1}: the hunk ends too early")
        at += 1
        if at < len(lines) and lines[at] == _NO_NEWLINE:
            text, at = text[:-1], at + 1
        if mark != b"+":
            old.append(text)
        if mark != b"-":
            new.append(text)
    if len(old) != old_count or len(new) != new_count:
        raise DocumentError(f"the patch of {path}, line {at}: the hunk has more lines than its header says")
    return tuple(old), tuple(new), at


def apply_hunks(path: str, hunks: tuple[Hunk, ...], content: bytes, *, backwards: bool = False) -> bytes:
    """The file after the hunks, or with `backwards` before them; no fuzz, no offset.

    Raises:
        DocumentError: a hunk does not stand where it says.
    """
    lines = split_lines(content)
    out: list[bytes] = []
    done = 0
    for number, hunk in enumerate(hunks, 1):
        start, expected, put = hunk.old_start, hunk.old, hunk.new
        target = hunk.new_start
        if backwards:
            start, expected, put, target = hunk.new_start, hunk.new, hunk.old, hunk.old_start
        if start < done or tuple(lines[start : start + len(expected)]) != expected:
            raise DocumentError(f"{path}: hunk {number} does not fit at line {start + 1}")
        out += lines[done:start]
        if len(out) != target:
            raise DocumentError(
                f"{path}: hunk {number} would begin at line {len(out) + 1}, its header says {target + 1}"
            )
        out += put
        done = start + len(expected)
    return b"".join([*out, *lines[done:]])


def _range(start: int, stop: int) -> str:
    length = stop - start
    if length == 1:
        return str(start + 1)
    return f"{start if length == 0 else start + 1},{length}"


def _line(mark: bytes, line: bytes) -> bytes:
    return mark + line if line.endswith(b"\n") else mark + line + b"\n" + _NO_NEWLINE
