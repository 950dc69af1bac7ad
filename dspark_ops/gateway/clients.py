"""The clients of a gateway: names and the SHA-256 of their keys. A key itself is shown once and kept nowhere."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspark_ops.errors import ConfigError
from dspark_ops.whole_file import replace_file

_NAME = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"
_PREFIX = "dsk-"


class Client(BaseModel):
    """One client. key_sha256: of the whole key as it is sent. local_only: nothing of it ever leaves the pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=_NAME)]
    key_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    local_only: bool = False
    added: datetime | None = None


class ClientsFile(BaseModel):
    """The file on the control host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    clients: tuple[Client, ...] = ()


def new_key() -> str:
    """A key of 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def key_hash(key: str) -> str:
    """What is kept of a key. It is random and long, so a plain hash tells nothing about it."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_clients(path: Path) -> tuple[Client, ...]:
    """The clients of a file; none where there is no file.

    Raises:
        ConfigError: the file is not what it should be, or two clients share a name or a key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="make it readable") from error
    try:
        clients = ClientsFile.model_validate_json(text).clients
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(
            f"{path}: {where}: {first['msg']}",
            hint="it is kept by `dspark-ops gateway key`; restore it, or remove it and add the keys anew",
        ) from error
    for what in ("name", "key_sha256"):
        values = [getattr(client, what) for client in clients]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ConfigError(f"{path}: {what} {twice[0]} is there twice", hint="remove one of the two entries")
    return clients


def added(clients: Sequence[Client], name: str, key: str, *, local_only: bool) -> tuple[Client, ...]:
    """The clients and one more.

    Raises:
        ConfigError: the name is no name, or taken.
    """
    if re.fullmatch(_NAME, name) is None:
        raise ConfigError(f"{name!r} is no client name", hint="use lower-case letters, digits and dashes, at most 32")
    if any(client.name == name for client in clients):
        raise ConfigError(
            f"there is a client {name} already", hint="revoke it first, or take another name; two keys need two names"
        )
    now = datetime.now(UTC).replace(microsecond=0)
    return (*clients, Client(name=name, key_sha256=key_hash(key), local_only=local_only, added=now))


def without(clients: Sequence[Client], name: str) -> tuple[Client, ...]:
    """The clients less one.

    Raises:
        ConfigError: there is no such client.
    """
    if all(client.name != name for client in clients):
        known = ", ".join(client.name for client in clients) or "none"
        raise ConfigError(f"there is no client {name}", hint=f"there are: {known}")
    return tuple(client for client in clients if client.name != name)


def write_clients(path: Path, clients: Sequence[Client]) -> None:
    """Write the file whole or not at all, readable by its owner alone.

    Raises:
        ConfigError: it cannot be written.
    """
    document = ClientsFile(clients=tuple(clients)).model_dump(mode="json")
    try:
        replace_file(path, json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="make its directory writable") from error


def change_clients(path: Path, change: Callable[[tuple[Client, ...]], tuple[Client, ...]]) -> None:
    """Read, change and write the file while nobody else does.

    Raises:
        ConfigError: as `read_clients`, `change` and `write_clients`, or its directory cannot be opened.
    """
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path.parent} cannot be opened: {error.strerror}", hint="make it") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        write_clients(path, change(read_clients(path)))
    finally:
        os.close(descriptor)


def client_lines(clients: Sequence[Client]) -> str:
    """The clients for people."""
    if not clients:
        return "no clients; `dspark-ops gateway key add NAME` makes a key"
    lines = []
    for client in clients:
        since = "-" if client.added is None else f"{client.added:%Y-%m-%d}"
        route = "  local-only" if client.local_only else ""
        lines.append(f"{client.name:32} since {since}  sha256 {client.key_sha256[:12]}{route}")
    return "\n".join(lines)
