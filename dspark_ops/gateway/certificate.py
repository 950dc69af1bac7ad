"""The operator's own certificate, looked at on the control host: the edge would refuse a wrong one at its restart."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from dspark_ops.errors import ConfigError

_VAULTED = b"$ANSIBLE_VAULT;"
_VAULT_S = 60


def check_pair(certificate: Path, key: Path, now: datetime | None = None) -> None:
    """That the edge can serve this chain with this key. Either may be encrypted by ansible-vault; nothing is written.

    Raises:
        ConfigError: a file is not PEM, the key has a passphrase or is of another certificate, or the certificate ended.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        chain = x509.load_pem_x509_certificates(_plain("gateway.certificate", certificate))
    except ValueError as error:
        raise ConfigError(
            f"gateway.certificate: {certificate} holds no certificate as PEM",
            hint="expected the server's own certificate first, then those between it and its authority",
        ) from error
    try:
        secret = serialization.load_pem_private_key(_plain("gateway.certificate_key", key), None)
    except TypeError as error:
        raise ConfigError(
            f"gateway.certificate_key: {key} has a passphrase, and nobody is there to type it when the head boots",
            hint="take it off (`openssl pkey`), and encrypt the file by ansible-vault instead",
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"gateway.certificate_key: {key} holds no private key as PEM", hint="expected the certificate's key"
        ) from error
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if chain[0].public_key().public_bytes(*spki) != secret.public_key().public_bytes(*spki):
        raise ConfigError(
            f"gateway.certificate_key: {key} is not the key of the first certificate in {certificate} "
            f"({chain[0].subject.rfc4514_string()}), and the edge would not start",
            hint="name the key that belongs to it; in a chain the server's own certificate comes first",
        )
    ends = chain[0].not_valid_after_utc
    if ends <= (now or datetime.now(UTC)):
        raise ConfigError(
            f"gateway.certificate: {certificate} ended at {ends:%Y-%m-%d %H:%M} UTC; no client would take it",
            hint="bring a new one, or set both keys to null: then one is made on the head",
        )


def _plain(name: str, path: Path) -> bytes:
    """The file's bytes, decrypted where ansible-vault encrypted it.

    Raises:
        ConfigError: it cannot be read or decrypted.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be read: {error.strerror}", hint="make it readable") from error
    if not content.startswith(_VAULTED):
        return content
    # Of this very installation, as ansible-playbook is; what it prints goes nowhere but here.
    program = Path(sys.executable).parent / "ansible-vault"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    if "ANSIBLE_VAULT_PASSWORD_FILE" in os.environ:
        environment["ANSIBLE_VAULT_PASSWORD_FILE"] = os.environ["ANSIBLE_VAULT_PASSWORD_FILE"]
    try:
        done = subprocess.run(
            [str(program), "decrypt", "--output", "-", str(path)],
            env=environment | {"LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VAULT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{name}: {path} cannot be decrypted: {error}", hint="look at ansible-vault") from error
    if done.returncode != 0:
        raise ConfigError(
            f"{name}: {path} is encrypted by ansible-vault and cannot be decrypted",
            hint="set ANSIBLE_VAULT_PASSWORD_FILE to the file with its password",
        )
    return done.stdout
