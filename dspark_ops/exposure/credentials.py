"""Keys of services: files on the control host, credentials of systemd on a node. Their content passes through no log.

A key never stands in an argument list, an environment or a unit file. A unit names the file, and systemd shows the
service alone a copy of it under $CREDENTIALS_DIRECTORY.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dspark_ops.errors import ConfigError

#: Where the role writes them on a node.
FOLDER = "/etc/dspark/credentials"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_VAULT = b"$ANSIBLE_VAULT;"
_LARGEST = 65536


@dataclass(frozen=True)
class Credential:
    """One key. name: as the service looks for it. file: on the control host, mode 0600 or by ansible-vault."""

    name: str
    file: Path


def checked(credential: Credential) -> Credential:
    """The credential, once its file can be used and nobody else can read it. The content is not kept.

    Raises:
        ConfigError: the name or the file is no good; the message never quotes the content.
    """
    name, path = credential.name, credential.file
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} names no credential", hint="letters, digits, dots, dashes and underscores")
    try:
        info = path.stat()
        head = b"" if not stat.S_ISREG(info.st_mode) else path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the key file {path} cannot be read: {error.strerror or error}", hint="write the key into it, mode 0600"
        ) from error
    if not stat.S_ISREG(info.st_mode):
        raise ConfigError(f"{path} is no file", hint="name a file that holds the key alone")
    if info.st_mode & 0o077 and not head.startswith(_VAULT):
        raise ConfigError(
            f"{path} can be read by others (mode {stat.S_IMODE(info.st_mode):o})",
            hint=f"chmod 600 {path}, or encrypt it with ansible-vault",
        )
    if not head.strip() or len(head) > _LARGEST:
        raise ConfigError(f"{path} holds {len(head)} bytes; expected a key of 1 to {_LARGEST}", hint="write it anew")
    return credential


def role_variables(credentials: Iterable[Credential]) -> dict[str, object]:
    """What the role `credentials` is told: names and paths, no content."""
    wanted = [checked(item) for item in credentials]
    return {"credentials_wanted": [{"name": item.name, "file": str(item.file.absolute())} for item in wanted]}


def unit_line(name: str, *, encrypted: bool, folder: str = FOLDER) -> str:
    """The line of a unit's [Service] that hands a credential over; as the module dspark_credential reports it."""
    if encrypted:
        return f"LoadCredentialEncrypted={name}:{folder}/{name}.cred"
    return f"LoadCredential={name}:{folder}/{name}"
