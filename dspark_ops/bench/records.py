"""The raw result of a run as JSONL: one header, samples and blocks as they come, an end if it came to its end.

Every line is one record of `lines`, written whole by one call; header, warm-up, block and end are on the disk before
the run goes on. A file without an `end` is a partial run and says so.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from dspark_ops.bench.lines import (
    DEFINITIONS,
    KINDS,
    Block,
    End,
    Header,
    Identity,
    Line,
    PromptLine,
    Sample,
    SampleFailure,
    Server,
    Speculation,
    WarmUp,
)
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.openai_api.model import Record

__all__ = [
    "DEFINITIONS",
    "Block",
    "End",
    "Header",
    "Identity",
    "Line",
    "PromptLine",
    "Run",
    "RunWriter",
    "Sample",
    "SampleFailure",
    "Server",
    "Speculation",
    "WarmUp",
    "read_run",
]


class Run(Record):
    """A file that was read. torn: its last line was cut off in the middle and is left out."""

    path: str
    header: Header
    warm_ups: tuple[WarmUp, ...] = ()
    samples: tuple[Sample, ...] = ()
    blocks: tuple[Block, ...] = ()
    end: End | None = None
    torn: bool = False

    @property
    def partial(self) -> bool:
        """It was interrupted, or its budget was over before its plan was."""
        return self.end is None or self.end.reason != "done"

    @property
    def partial_reason(self) -> str | None:
        """Why it is partial, for people; None: it is whole."""
        if self.end is None:
            count = len(self.blocks)
            when = f"after {count} whole block{'s' * (count != 1)}" if count else "before its first block was whole"
            return f"interrupted {when}: the file has no end"
        if self.end.reason != "done":
            return (
                f"its budget of {self.header.plan.budget_s:g} s was over after {self.end.blocks_run} of "
                f"{self.end.blocks_planned} blocks"
            )
        return None

    def used_samples(self) -> tuple[Sample, ...]:
        """Samples of finished blocks that are not void; failed and invalid ones among them."""
        good = {block.index for block in self.blocks if block.state != "void"}
        return tuple(sample for sample in self.samples if sample.block in good)


class RunWriter:
    """Writes one new file. A new run is a new file: one that is there is never continued.

    Raises:
        ConfigError: the file exists or cannot be made.
        NoVerdictError: a line cannot be written any more, for example for want of room.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            _sync_folder(path.parent)
        except FileExistsError as error:
            raise ConfigError(f"{path} exists; a new run is a new file", hint="give another name") from error
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; a second call changes nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def write(self, record: Line) -> None:
        """One line. Header, warm-up, block and end are on the disk when this returns; samples with their block."""
        if self._handle is None:
            raise NoVerdictError(f"{self.path} is closed")
        data = (record.model_dump_json() + "\n").encode()
        try:
            while data:  # a disk that fills takes a part of it
                data = data[os.write(self._handle, data) :]
            if not isinstance(record, Sample):
                os.fsync(self._handle)
        except OSError as error:
            raise NoVerdictError(
                f"{self.path} cannot be written any more: {error.strerror or error}; what it holds is a partial run"
            ) from error


def _sync_folder(folder: Path) -> None:
    """The name of a new file is on the disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_run(path: Path) -> Run:
    """Read a file of any run, also one that was interrupted.

    A last line that is cut off is left out and noted. Samples come without their block when the run ended inside it.

    Raises:
        ConfigError: the file cannot be read.
        NoVerdictError: it is not a run, or one of its whole lines is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    whole, _, rest = data.rpartition(b"\n")
    lines = [_read_line(path, i, line) for i, line in enumerate(whole.split(b"\n"), 1) if line.strip()]
    if not lines or not isinstance(lines[0], Header):
        raise NoVerdictError(f"{path} does not begin with the header of a bench run")
    heads = [line for line in lines if isinstance(line, Header)]
    ends = [line for line in lines if isinstance(line, End)]
    if len(heads) > 1 or len(ends) > 1 or (ends and lines[-1] is not ends[0]):
        raise NoVerdictError(f"{path} holds more than one run")
    return Run(
        path=str(path),
        header=heads[0],
        warm_ups=tuple(line for line in lines if isinstance(line, WarmUp)),
        samples=tuple(line for line in lines if isinstance(line, Sample)),
        blocks=tuple(line for line in lines if isinstance(line, Block)),
        end=ends[0] if ends else None,
        torn=bool(rest.strip(b"\0 ")),
    )


def _read_line(path: Path, number: int, line: bytes) -> Line:
    try:
        document: Any = json.loads(line)
        kind = document.get("record") if isinstance(document, dict) else None
        model = KINDS.get(kind) if isinstance(kind, str) else None
        if model is None:
            raise NoVerdictError(f"{path}, line {number}: a record of kind {kind!r} is not known to this version")
        return model.model_validate(document)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise NoVerdictError(f"{path}, line {number}: {where or 'it'} is not what a {kind} record has") from error
    except (ValueError, RecursionError) as error:  # damaged bytes may also read as brackets without an end
        raise NoVerdictError(f"{path}, line {number} is not JSON") from error
