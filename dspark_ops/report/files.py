"""Writes what a report is rendered to, each file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.whole_file import replace_file


def check_targets(paths: Iterable[Path]) -> None:
    """Find out before the work begins that a file could not be written after it.

    Raises:
        ConfigError: its directory is not there or not writable, or the name is taken by something that is no file.
    """
    for path in paths:
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise ConfigError(f"{path} is there and is no file", hint="name a file")
        if not target.parent.is_dir():
            raise ConfigError(f"{path} cannot be written: {target.parent} is no directory", hint="make it first")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise ConfigError(f"{path} cannot be written: no new file can be made in {target.parent}")


def write_whole(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write beside the file and put it in its place: a reader sees the old text or the new one. Links are followed.

    mode: the rights of the file, less what the umask takes away.

    Raises:
        NoVerdictError: it cannot be written; what was there is still there.
    """
    try:
        replace_file(path, text, mode=mode)
    except OSError as error:
        raise NoVerdictError(f"{path} cannot be written: {error.strerror or error}") from error
