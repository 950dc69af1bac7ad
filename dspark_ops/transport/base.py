"""Reading a node: probes in, results out, all of them in one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, field_validator

from dspark_ops.transport.clean import clean_text


@dataclass(frozen=True)
class Command:
    """Run one program that only reads. root: through `sudo -n`, and as the login user where that is refused.

    late: after all others have ended, for what they leave behind (the neighbour table after a ping).
    """

    id: str
    argv: tuple[str, ...]
    timeout_s: float = 8.0
    root: bool = False
    late: bool = False

    def wire(self) -> dict[str, Any]:
        return {
            "kind": "command",
            "id": self.id,
            "argv": list(self.argv),
            "timeout_s": self.timeout_s,
            "root": self.root,
            "late": self.late,
        }


@dataclass(frozen=True)
class ForEach:
    """Run a program that only reads once per name found on the node, so that one round trip can do without names.

    `{}` in argv is the name: the last component of every path that a pattern of `links` matches, and the content of
    every file that a pattern of `contents` matches. The result's `files` maps each name to its standard output.
    """

    id: str
    argv: tuple[str, ...]
    links: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()
    timeout_s: float = 4.0

    def wire(self) -> dict[str, Any]:
        return {
            "kind": "for_each",
            "id": self.id,
            "argv": list(self.argv),
            "links": list(self.links),
            "contents": list(self.contents),
            "timeout_s": self.timeout_s,
            "root": False,
        }


@dataclass(frozen=True)
class Files:
    """Read every file that a glob pattern matches; links are followed, a missing file is simply not there.

    Reads as the login user; root: through `sudo -n` for files of mode 0600.
    """

    id: str
    patterns: tuple[str, ...]
    max_bytes: int = 65536
    root: bool = False

    def wire(self) -> dict[str, Any]:
        return {
            "kind": "files",
            "id": self.id,
            "patterns": list(self.patterns),
            "max_bytes": self.max_bytes,
            "root": self.root,
        }


@dataclass(frozen=True)
class Links:
    """Where every symbolic link that a glob pattern matches really leads (`realpath`)."""

    id: str
    patterns: tuple[str, ...]

    def wire(self) -> dict[str, Any]:
        return {"kind": "links", "id": self.id, "patterns": list(self.patterns)}


@dataclass(frozen=True)
class Http:
    """One HTTP request made on the node itself, so that a service bound to its loopback can be read.

    late: after all others have ended.
    """

    id: str
    url: str
    body: Mapping[str, Any] | None = None
    timeout_s: float = 5.0
    max_bytes: int = 262144
    late: bool = False

    def wire(self) -> dict[str, Any]:
        return {
            "kind": "http",
            "id": self.id,
            "url": self.url,
            "body": None if self.body is None else dict(self.body),
            "timeout_s": self.timeout_s,
            "max_bytes": self.max_bytes,
            "late": self.late,
        }


@dataclass(frozen=True)
class Filesystem:
    """Total and free bytes of the file system that holds `path` or its nearest existing parent."""

    id: str
    path: str

    def wire(self) -> dict[str, Any]:
        return {"kind": "filesystem", "id": self.id, "path": self.path}


@dataclass(frozen=True)
class LogScan:
    """Read what a program prints line by line on the node and bring back only the lines that are known.

    marks: (name, words, pattern): a line that holds the words and in which the regular expression is found counts for
    the name. Never more than max_bytes are read, nor for longer than timeout_s; then the end is looked at as well, by
    tail_argv, and the answer says that it was cut. keep: lines brought back of each name, half of them the first ones.
    Every line begins with a time stamp that sorts as text.
    """

    id: str
    argv: tuple[str, ...]
    marks: tuple[tuple[str, str, str], ...]
    tail_argv: tuple[str, ...] = ()
    timeout_s: float = 1.0
    max_bytes: int = 256 << 20
    keep: int = 6
    max_lines: int = 200
    root: bool = False

    def wire(self) -> dict[str, Any]:
        return {
            "kind": "log_scan",
            "id": self.id,
            "argv": list(self.argv),
            "tail_argv": list(self.tail_argv),
            "marks": [list(mark) for mark in self.marks],
            "timeout_s": self.timeout_s,
            "max_bytes": self.max_bytes,
            "keep": self.keep,
            "max_lines": self.max_lines,
            "root": self.root,
        }


@dataclass(frozen=True)
class Connect:
    """Try TCP connections from the node, each given up after timeout_s; nothing is sent over one that opens.

    The result's `files` maps "ADDRESS PORT" to open, refused, silent (no answer in time), or the error's words.
    """

    id: str
    targets: tuple[tuple[str, int], ...]
    timeout_s: float = 2.0

    def wire(self) -> dict[str, Any]:
        return {
            "kind": "connect",
            "id": self.id,
            "targets": [list(target) for target in self.targets],
            "timeout_s": self.timeout_s,
        }


Probe = Connect | Command | ForEach | Files | Links | Http | Filesystem | LogScan


class ProbeResult(BaseModel):
    """What one probe saw. `error` is set when it never ran (no program, time limit, refused); then the rest is None.

    command: rc, stdout, stderr. files and links: `files`, path to content or target; for each: name to
    output. http: rc is the status,
    stdout the body. filesystem: numbers {"total_bytes",
    "free_bytes", "total_files", "free_files"}. log scan: stdout is a JSON document. cut: there was more of stdout than
    the 1 MiB that is brought back; None where that is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    error: str | None = None
    rc: int | None = None
    stdout: str | None = None
    stderr: str | None = None
    cut: bool | None = None
    files: dict[str, str] | None = None
    numbers: dict[str, int] | None = None
    elapsed_s: float = 0.0

    @field_validator("error", "stdout", "stderr")
    @classmethod
    def _clean(cls, text: str | None) -> str | None:
        return None if text is None else clean_text(text)

    @field_validator("files")
    @classmethod
    def _clean_files(cls, files: dict[str, str] | None) -> dict[str, str] | None:
        return None if files is None else {clean_text(path): clean_text(text) for path, text in files.items()}

    @property
    def ok(self) -> bool:
        """It ran, and a program ended with 0 or a server answered 2xx. Only a program has a standard error."""
        if self.error is not None:
            return False
        return self.rc is None or self.rc == 0 or (self.stderr is None and 200 <= self.rc < 300)

    def text(self) -> str | None:
        """Standard output, or None when the probe did not succeed: nothing was seen."""
        return self.stdout if self.ok else None


class NodeReading(BaseModel):
    """One round trip to one node. reachable is False when the session itself failed: then nothing is known.

    clock_offset_s: the node's clock minus the control host's, true within clock_uncertainty_s; None when not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    reachable: bool
    error: str | None = None
    hint: str | None = None
    user: str | None = None
    sudo: bool | None = None
    hostname: str | None = None
    clock_s: float | None = None
    clock_error_s: float | None = None
    clock_offset_s: float | None = None
    clock_uncertainty_s: float | None = None
    results: dict[str, ProbeResult] = {}
    elapsed_s: float = 0.0

    def get(self, probe_id: str) -> ProbeResult:
        """The result of a probe; one with `error` set when the node was not reached or it was not asked."""
        if probe_id in self.results:
            return self.results[probe_id]
        return ProbeResult(id=probe_id, error="not read" if self.reachable else "node not reached")


class Runner(Protocol):
    """A way to one node. `read` never raises for an unreachable node: it says so in the reading."""

    @property
    def node(self) -> str: ...

    def read(self, probes: Sequence[Probe], *, timeout_s: float = 60.0) -> NodeReading: ...


@dataclass(frozen=True)
class RecordedRunner:
    """A node replayed from a recorded reading; `asked` lists the probe ids of every call, for tests."""

    reading: NodeReading
    asked: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def node(self) -> str:
        return self.reading.node

    def read(self, probes: Sequence[Probe], *, timeout_s: float = 60.0) -> NodeReading:  # noqa: ARG002
        self.asked.append(tuple(p.id for p in probes))
        return self.reading
