"""Readers that are no function of one text: a whole node, logs, and the redaction of a bundle."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dspark_ops.doctor.incident.gather import scan_file
from dspark_ops.evidence.redaction import Redactor
from dspark_ops.facts.log_signatures import marks
from dspark_ops.facts.snapshot import parse_node
from dspark_ops.transport import collector
from tests.fuzz.parser import Parser


def every() -> Iterator[Parser]:
    """All of them."""
    yield whole_node()
    yield log_scan()
    yield log_file()
    yield redaction()


def whole_node() -> Parser:
    return Parser("snapshot.parse_node", parse_node, readings=("reading",), fixed={"role": "head", "host": "node-a"})


def log_scan() -> Parser:
    """The reader of logs that runs on the node: its program's output in one block, and in many."""
    known = [list(mark) for mark in marks("engine", "nccl", "kernel", "journal", "container")]

    def scan(text: str) -> object:
        reader = collector.Scan(known, 6)
        raw = text.encode("utf-8", "surrogateescape")
        deadline = time.monotonic() + 60
        reader.take(raw, "", deadline)
        for at in range(0, len(raw), max(1, len(raw) // 5)):
            reader.take(raw[at : at + len(raw) // 5], "", deadline)
        return reader.found

    return Parser("collector.Scan", scan, texts=("text",))


def log_file() -> Parser:
    """The reader of a log in a file, as the first cause is looked for in a folder of evidence."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")

    def read(text: str) -> object:
        path = Path(folder.name) / "head.log"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return scan_file(path, "engine")

    return Parser("incident.scan_file", read, texts=("text",))


def redaction() -> Parser:
    """What goes into a bundle: secrets are looked for in any text, and the rest of it stays text."""

    def hide(text: str) -> object:
        redactor = Redactor(key=b"0" * 32)
        redactor.learn(text)
        return redactor.text(text)

    return Parser("evidence.Redactor", hide, texts=("text",))
