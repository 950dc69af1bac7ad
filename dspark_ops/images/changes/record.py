"""RECORD, the list of an installed distribution's files: lines rewritten, added and taken out, all others untouched."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Collection, Mapping

from .diff import split_lines


def parse_record(record: bytes) -> dict[str, tuple[str | None, int | None]]:
    """Path -> (sha256 in hexadecimal, size), each None where RECORD does not say."""
    entries: dict[str, tuple[str | None, int | None]] = {}
    for row in csv.reader(io.StringIO(record.decode("utf-8"), newline="")):
        if not row:
            continue
        path, digest, size = (*row, "", "")[:3]
        sha256 = None
        if digest.startswith("sha256="):
            encoded = digest.removeprefix("sha256=")
            sha256 = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex()
        entries[path] = (sha256, int(size) if size else None)
    return entries


def record_line(path: str, content: bytes) -> bytes:
    """The file's line, with its newline: hash in URL-safe base64 without padding, and size."""
    return f"{_quoted(path)},{_hash_field(content)},{len(content)}\n".encode()


def new_record(distribution_record: str, files: Mapping[str, bytes]) -> bytes:
    """A whole RECORD, as a distribution made of these files has it; itself without hash, last."""
    lines = [record_line(path, files[path]) for path in sorted(files)]
    return b"".join([*lines, f"{_quoted(distribution_record)},,\n".encode()])


def edit_record(
    record: bytes, changed: Mapping[str, tuple[bytes | None, bytes | None]], ours: Collection[str] = ()
) -> bytes:
    """RECORD after files changed: path -> content (before, after), None where the file is absent.

    A rewritten line stays in its place. Lines of `ours`, the paths that a stack adds, stand sorted before the last
    line, so that a level has one RECORD whatever the way to it was. With before and after exchanged the same call
    gives the old bytes back.
    """
    lines = split_lines(record)
    where = {_path_of(line): number for number, line in enumerate(lines)}
    gone = {where[path] for path in ours if path in where and path not in changed}
    added = {path: lines[where[path]] for path in ours if path in where and path not in changed}
    for path in sorted(changed):
        _, after = changed[path]
        number = where.get(path)
        if number is not None and (after is None or path in ours):
            gone.add(number)
        if after is None:
            continue
        if number is None or path in ours:
            added[path] = record_line(path, after)
        else:
            head, ending = _head_and_ending(lines[number])
            lines[number] = head + f",{_hash_field(after)},{len(after)}".encode() + ending
    kept = [line for number, line in enumerate(lines) if number not in gone]
    return b"".join([*kept[:-1], *(added[path] for path in sorted(added)), *kept[-1:]])


def _path_of(line: bytes) -> str:
    row = next(csv.reader([line.decode("utf-8")]), [""])
    return row[0] if row else ""


def _head_and_ending(line: bytes) -> tuple[bytes, bytes]:
    """The path field as it is written, and the line's end."""
    body = line.rstrip(b"\r\n")
    return body.rsplit(b",", 2)[0], line[len(body) :]


def _hash_field(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode("ascii")
    return f"sha256={digest}"


def _quoted(path: str) -> str:
    return '"' + path.replace('"', '""') + '"' if any(mark in path for mark in ',"\r\n') else path
