#!/usr/bin/python
"""Ansible module: one credential of systemd, encrypted for this machine where that works, else a file of root's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: dspark_credential
short_description: Writes or removes one credential for units of systemd
description:
  - The content goes to systemd-creds through a pipe; it is in no argument list, no log, no diff and no result.
  - Encrypted for this machine when a trial unit can read such a credential; else a file of root's, mode 0600.
options:
  credential:
    description: Its name, as the service looks for it in $CREDENTIALS_DIRECTORY.
    type: str
    required: true
  content:
    description: The secret.
    type: str
    default: ""
  state:
    description: Whether it is wanted.
    type: str
    choices: [present, absent]
    default: present
  encryption:
    description: V(auto) tries; V(never) writes a plain file.
    type: str
    choices: [auto, never]
    default: auto
  folder:
    description: Where credentials are, mode 0700.
    type: path
    default: /etc/dspark/credentials
author: dspark-ops
"""

EXAMPLES = r"""
- name: Hand the provider's key over
  dspark_credential:
    credential: cloud_key
    content: "{{ lookup('ansible.builtin.file', cloud_key_file) }}"
  no_log: true
"""

RETURN = r"""
line:
  description: The line for the unit's section Service.
  type: str
  returned: with state present
encrypted:
  description: Whether the file is encrypted for this machine.
  type: bool
  returned: with state present
"""

_TRIAL = "dspark-trial"


def run(*argv: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """Exit code and output of a program; 127 where it cannot be started. Its error is not kept: it may quote."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 127, b""
    return done.returncode, done.stdout


def encrypt(name: str, content: bytes) -> bytes | None:
    rc, out = run("systemd-creds", "encrypt", f"--name={name}", "-", "-", stdin=content)
    return out if rc == 0 and out else None


def decrypt(name: str, path: Path) -> bytes | None:
    rc, out = run("systemd-creds", "decrypt", f"--name={name}", str(path), "-")
    return out if rc == 0 else None


def works(folder: Path) -> bool:
    """Whether a unit of this machine can read an encrypted credential: tried with one that is no secret."""
    trial = encrypt(_TRIAL, b"trial")
    if trial is None:
        return False
    path = folder / f".{_TRIAL}"
    try:
        write(path, trial)
        handed = f"--property=LoadCredentialEncrypted={_TRIAL}:{path}"
        argv = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", handed)
        rc, out = run(*argv, "sh", "-c", f'cat "$CREDENTIALS_DIRECTORY/{_TRIAL}"')
    finally:
        path.unlink(missing_ok=True)
    return rc == 0 and out == b"trial"


def write(path: Path, content: bytes) -> None:
    """Replace a file as a whole, mode 0600."""
    temporary = path.with_name(f".{path.name}.dspark-tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        os.fchmod(out.fileno(), 0o600)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)


def plain_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def present(module: AnsibleModule, folder: Path, name: str) -> None:
    content = module.params["content"].encode()
    if not content:
        module.fail_json(msg=f"the credential {name} is empty; nothing was written [credential.empty]")
    plain, sealed = folder / name, folder / f"{name}.cred"
    auto = module.params["encryption"] == "auto"
    now = decrypt(name, sealed) if auto and sealed.exists() else None
    if now is None and (not auto or not sealed.exists()):
        now = plain_of(plain)
    encrypted = auto and sealed.exists()
    # Each in one form only. A plain file stays plain until its key changes: whether this machine can encrypt is only
    # tried when something is written.
    same = now == content and not (sealed.exists() and (plain.exists() or not auto))
    if same:
        module.exit_json(changed=False, **told(name, folder, encrypted))
    if module.check_mode:
        module.exit_json(changed=True, **told(name, folder, auto), **summary(f"credential {name} written"))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    sealed_bytes = encrypt(name, content) if auto and works(folder) else None
    if sealed_bytes is not None:
        write(sealed, sealed_bytes)
        plain.unlink(missing_ok=True)
    else:
        write(plain, content)
        sealed.unlink(missing_ok=True)
    found = told(name, folder, sealed_bytes is not None)
    module.exit_json(changed=True, **found, **summary(f"credential {name} written"))


def absent(module: AnsibleModule, folder: Path, name: str) -> None:
    there = [path for path in (folder / name, folder / f"{name}.cred") if path.exists()]
    if not there:
        module.exit_json(changed=False)
    if not module.check_mode:
        for path in there:
            path.unlink()
    module.exit_json(changed=True, **summary(f"credential {name} removed"))


def told(name: str, folder: Path, encrypted: bool) -> dict[str, Any]:
    sealed, plain = f"LoadCredentialEncrypted={name}:{folder}/{name}.cred", f"LoadCredential={name}:{folder}/{name}"
    return {"encrypted": encrypted, "line": sealed if encrypted else plain}


def summary(what: str) -> dict[str, Any]:
    return {"dspark_summary": {"what": what}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "credential": {"type": "str", "required": True},
            "content": {"type": "str", "default": "", "no_log": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "encryption": {"type": "str", "choices": ["auto", "never"], "default": "auto"},
            "folder": {"type": "path", "default": "/etc/dspark/credentials"},
        },
        supports_check_mode=True,
    )
    act = present if module.params["state"] == "present" else absent
    act(module, Path(module.params["folder"]), module.params["credential"])


if __name__ == "__main__":
    main()
