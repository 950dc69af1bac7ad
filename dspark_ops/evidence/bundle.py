"""One archive for a bug report: redacted, bounded, in a fixed order, with a manifest that says what is in it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops import __version__
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.evidence.redaction import Redacted

SCHEMA_ID: Literal["dspark-ops/evidence/v1"] = "dspark-ops/evidence/v1"
MANIFEST = "manifest.json"
LIMIT_BYTES = 20 << 20
# What is cut first where all is too large: the lines before the end of a log.
_CUTTABLE = ".log"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BundledFile(_Frozen):
    """One file of the archive."""

    name: str
    bytes: int
    sha256: str


class Manifest(_Frozen):
    """What is in the archive. missing: what should be in it and could not be had; redacted: what was taken out."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/evidence/v1"] = Field(default=SCHEMA_ID, alias="schema")
    tool_version: str = __version__
    made_at: datetime
    site: str
    verdict: str
    versions: dict[str, str]
    files: tuple[BundledFile, ...] = ()
    missing: tuple[str, ...] = ()
    redacted: tuple[Redacted, ...] = ()
    names_hidden: bool = False


def bounded(files: Mapping[str, bytes], limit_bytes: int = LIMIT_BYTES) -> tuple[dict[str, bytes], list[str]]:
    """The files within the limit: the longest logs lose their beginnings. Also what was cut, in words."""
    kept, told = dict(files), []
    over = sum(map(len, kept.values())) - limit_bytes
    for name in sorted((n for n in kept if n.endswith(_CUTTABLE)), key=lambda n: (-len(kept[n]), n)):
        if over <= 0:
            break
        content = kept[name]
        cut = min(len(content), over + (over >> 3))
        begin = content.find(b"\n", cut) + 1 or len(content)
        kept[name] = content[begin:]
        over -= begin
        told.append(f"{name}: the first {begin} bytes are left out, so that all stays below {limit_bytes >> 20} MiB")
    return kept, told


def pack(files: Mapping[str, bytes], manifest: Manifest, folder: str) -> bytes:
    """The archive: the same files give the same bytes. Everything is below one folder, the manifest first."""
    listed = tuple(
        BundledFile(name=name, bytes=len(files[name]), sha256=hashlib.sha256(files[name]).hexdigest())
        for name in sorted(files)
    )
    whole = manifest.model_copy(update={"files": listed})
    head = whole.model_dump_json(indent=1, by_alias=True).encode() + b"\n"
    moment = int(manifest.made_at.timestamp())
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in [(MANIFEST, head), *((name, files[name]) for name in sorted(files))]:
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), moment, 0o600
            archive.addfile(entry, io.BytesIO(content))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=moment) as out:
        out.write(plain.getvalue())
    return packed.getvalue()


def refuse_existing(path: Path) -> None:
    """Stop before anything is contacted when the archive could not be written.

    Raises:
        ConfigError: there is something of that name already.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{path} exists already; it is not overwritten", hint="name another with --output")


def write(path: Path, content: bytes) -> None:
    """Write the archive whole or not at all, for its owner alone.

    Raises:
        ConfigError: something of that name has appeared meanwhile.
        NoVerdictError: it cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(dir=path.parent, prefix=".evidence-")
        temporary = Path(made)
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.link(temporary, path)  # fails where a file has appeared meanwhile
    except FileExistsError:
        refuse_existing(path)
    except OSError as error:
        raise NoVerdictError(
            f"the archive cannot be written to {path}: {error.strerror or error}", hint="name another with --output"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def read_manifest(content: bytes) -> Manifest:
    """The manifest of an archive, with every file in it checked.

    Raises:
        ConfigError: it is no such archive, or a file in it is not what the manifest says.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            found = {
                entry.name.partition("/")[2]: handle.read()
                for entry in archive.getmembers()
                if (handle := archive.extractfile(entry)) is not None
            }
        manifest = Manifest.model_validate(json.loads(found[MANIFEST]))
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError) as error:
        raise ConfigError(f"no evidence archive: {type(error).__name__}") from error
    for item in manifest.files:
        if hashlib.sha256(found.get(item.name, b"")).hexdigest() != item.sha256:
            raise ConfigError(f"{item.name} in the archive is not what its manifest says")
    return manifest
