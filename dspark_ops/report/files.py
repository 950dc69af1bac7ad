"""Writes what a report is rendered to, each file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from dspark_ops.errors import ConfigError, NoVerdictError


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
    target = path.resolve()
    # The name has none of the endings that a collector of files looks for.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}~")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(target)
    except OSError as error:
        raise NoVerdictError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
