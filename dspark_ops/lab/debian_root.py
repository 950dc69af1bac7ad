"""A minimal Debian root as a tar, made with mmdebstrap from the machine's own archives: no image registry anywhere."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.lab.apt_sources import KEYRING, apt_proxies, debian_sources

#: Part of every cache key: raise it when the way a root is made changes.
ROOT_RECIPE_VERSION = 1
_TIMEOUT_S = 1800
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_TRIM = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/info/*",
)


def build_debian_root(
    tar: Path,
    packages: Sequence[str],
    *,
    log: Path,
    suite: str = "bookworm",
    early_files: Mapping[str, str] | None = None,
) -> None:
    """Build the root tar with `packages` at `tar`; it appears there complete or not at all.

    `early_files` (path below the root -> text) are there before the packages are set up, for what their set-up reads.

    Root only. The archives are those of the machine's apt configuration, and the certificates that the machine trusts
    beyond Debian's own set are trusted in the root as well, so apt works in it where it works on the machine.
    What mmdebstrap says goes to `log`.
    """
    if os.geteuid() != 0:
        raise ConfigError("building a Debian root needs root", hint="run it with sudo")
    if shutil.which("mmdebstrap") is None:
        raise ConfigError("mmdebstrap is not installed", hint="apt-get install mmdebstrap")
    if not KEYRING.is_file():
        raise ConfigError(f"{KEYRING} is missing", hint="apt-get install debian-archive-keyring")
    sources = debian_sources(suite)
    tar.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    partial = tar.with_name(f".{tar.name}.partial")
    with tempfile.TemporaryDirectory(prefix="dspark-root-") as scratch:
        work = Path(scratch)
        (work / "sources.list").write_text("".join(f"{s.line()}\n" for s in sources), encoding="utf-8")
        certificates = work / "certificates"
        certificates.mkdir()
        for name, pem in machine_certificates().items():
            (certificates / name).write_text(pem + "\n", encoding="utf-8")
        for name, text in (early_files or {}).items():
            early = work / "early" / name
            early.parent.mkdir(parents=True, exist_ok=True)
            early.write_text(text, encoding="utf-8")
        command = _mmdebstrap(partial, packages, suite=suite, work=work)
        try:
            with log.open("w", encoding="utf-8") as out:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    timeout=_TIMEOUT_S,
                    check=False,
                    env={**os.environ, "TMPDIR": scratch, "LC_ALL": "C.UTF-8"},
                )
            if done.returncode != 0:
                tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
                raise NoVerdictError(
                    f"mmdebstrap ended with {done.returncode}; its last lines:\n{tail}",
                    hint=f"the whole log is {log}",
                )
            partial.replace(tar)
        except subprocess.TimeoutExpired as late:
            raise NoVerdictError(f"mmdebstrap was not done after {_TIMEOUT_S} s", hint=f"its log is {log}") from late
        finally:
            partial.unlink(missing_ok=True)


def debian_root_key(
    packages: Sequence[str], *, suite: str = "bookworm", early_files: Mapping[str, str] | None = None
) -> str:
    """Twelve hex digits that change when the packages, the suite, the archives, the early files or the recipe do."""
    parts = [str(ROOT_RECIPE_VERSION), suite, *sorted(packages), *(s.line() for s in debian_sources(suite))]
    parts += [f"{name}={text}" for name, text in sorted((early_files or {}).items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def machine_certificates() -> dict[str, str]:
    """The certificates that this machine trusts beyond Debian's own set: file name -> PEM."""
    bundle = Path(os.environ.get("SSL_CERT_FILE") or _SYSTEM_BUNDLE)
    if not bundle.is_file():
        return {}
    packaged = {
        _body(pem)
        for path in Path("/usr/share/ca-certificates").rglob("*.crt")
        for pem in _PEM.findall(path.read_text(encoding="utf-8", errors="replace"))
    }
    extra: dict[str, str] = {}
    for pem in _PEM.findall(bundle.read_text(encoding="utf-8", errors="replace")):
        if _body(pem) not in packaged:
            digest = hashlib.sha256(_body(pem).encode()).hexdigest()[:12]
            extra[f"machine-{digest}.crt"] = pem
    return extra


def _body(pem: str) -> str:
    return "".join(pem.split())


def _mmdebstrap(tar: Path, packages: Sequence[str], *, suite: str, work: Path) -> list[str]:
    trust = (
        'mkdir -p "$1/usr/local/share/ca-certificates" && '
        f'cp -r {work}/certificates/. "$1/usr/local/share/ca-certificates/" && '
        'if [ -x "$1/usr/sbin/update-ca-certificates" ]; then chroot "$1" update-ca-certificates; fi'
    )
    options = [
        "--variant=minbase",
        "--mode=root",
        "--format=tar",
        f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Retries "3"',
        *(f"--aptopt={proxy}" for proxy in apt_proxies()),
        *(f"--dpkgopt={rule}" for rule in _TRIM),
        f"--customize-hook={trust}",
    ]
    if (work / "early").is_dir():
        options.append(f'--essential-hook=cp -r {work}/early/. "$1/"')
    return ["mmdebstrap", *options, suite, str(tar), str(work / "sources.list")]
