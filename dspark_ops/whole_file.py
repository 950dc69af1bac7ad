"""A file is written whole or not at all: a reader, and whoever comes after a crash, sees the old text or the new."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def replace_file(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write beside the file, down to the disk, and put it in its place. Links are followed.

    mode: the rights of the file, less what the umask takes away.

    Raises:
        OSError: it cannot be written; what was there is still there.
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
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
