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
from typing import Literal

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
#: Newer files of a root that is the same on every machine get this date.
_EPOCH = "1700000000"
#: The machine's own name, resolver, mirror and proxy are not the root's.
_FORGET_MACHINE = (
    'rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*.list && '
    'sed -i "/^Acquire::.*Proxy/d" "$1"/etc/apt/apt.conf.d/99mmdebstrap'
)
_MERGE_USR = 'for name in bin sbin lib; do mkdir -p "$1/usr/$name" && ln -s "usr/$name" "$1/$name"; done'
#: This machine's dpkg unpacks; only what packages run to set themselves up is the root's own, and emulated.
_SET_UP = (
    "set -e; export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true; "
    'dpkg --root="$1" --force-architecture --force-depends --force-unsafe-io --no-triggers {excludes} '
    '--unpack "$1"/var/cache/apt/archives/*.deb; '
    'chroot "$1" dpkg --force-unsafe-io --configure -a; '
    'rm -f "$1/var/lib/dpkg/arch"; found=$(chroot "$1" dpkg --audit); '
    'if [ -n "$found" ]; then echo "not set up: $found"; exit 1; fi'
)


def build_debian_root(
    tar: Path,
    packages: Sequence[str],
    *,
    log: Path,
    suite: str = "bookworm",
    early_files: Mapping[str, str] | None = None,
    architecture: Literal["amd64", "arm64"] | None = None,
    trust_machine: bool = True,
) -> None:
    """Build the root tar with `packages` at `tar`; it appears there complete or not at all.

    `early_files` (path below the root -> text) are there before the packages are set up, for what their set-up reads.

    Root only. The archives are those of the machine's apt configuration, and the certificates that the machine trusts
    beyond Debian's own set are trusted in the root as well, so apt works in it where it works on the machine.
    With `trust_machine=False` nothing of the machine is left in it, and the same packages give the same bytes.
    What mmdebstrap says goes to `log`.

    architecture: None is the machine's own. An arm64 root holds Debian's essential packages and `packages` (no apt),
    the same whether the machine is arm64 or emulates it.

    Raises:
        ConfigError: not root, a program is missing, or the machine cannot execute `architecture`.
        NoVerdictError: mmdebstrap did not end well; with its last lines.
    """
    if os.geteuid() != 0:
        raise ConfigError("building a Debian root needs root", hint="run it with sudo")
    if shutil.which("mmdebstrap") is None:
        raise ConfigError("mmdebstrap is not installed", hint="apt-get install mmdebstrap")
    if not KEYRING.is_file():
        raise ConfigError(f"{KEYRING} is missing", hint="apt-get install debian-archive-keyring")
    if architecture is not None:
        _require_execution(architecture)
    sources = debian_sources(suite)
    tar.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    partial = tar.with_name(f".{tar.name}.partial")
    with tempfile.TemporaryDirectory(prefix="dspark-root-") as scratch:
        work = Path(scratch)
        (work / "sources.list").write_text("".join(f"{s.line()}\n" for s in sources), encoding="utf-8")
        certificates = work / "certificates"
        certificates.mkdir()
        for name, pem in machine_certificates().items() if trust_machine else ():
            (certificates / name).write_text(pem + "\n", encoding="utf-8")
        for name, text in (early_files or {}).items():
            early = work / "early" / name
            early.parent.mkdir(parents=True, exist_ok=True)
            early.write_text(text, encoding="utf-8")
        command = _mmdebstrap(
            partial, packages, suite=suite, work=work, architecture=architecture, trust_machine=trust_machine
        )
        fixed_date = {} if trust_machine else {"SOURCE_DATE_EPOCH": _EPOCH}
        try:
            with log.open("w", encoding="utf-8") as out:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    timeout=_TIMEOUT_S,
                    check=False,
                    env={**os.environ, "TMPDIR": scratch, "LC_ALL": "C.UTF-8", **fixed_date},
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


def _require_execution(architecture: Literal["amd64", "arm64"]) -> None:
    from dspark_ops.images.emulation import can_execute

    machine: Literal["x86_64", "aarch64"] = "x86_64" if architecture == "amd64" else "aarch64"
    if not can_execute(machine):
        raise ConfigError(
            f"a Debian root for {architecture} needs a machine that executes {machine} programs, and this one does not",
            hint="`dspark-ops image build --install-prerequisites` registers an emulator",
        )


def _mmdebstrap(
    tar: Path,
    packages: Sequence[str],
    *,
    suite: str,
    work: Path,
    architecture: Literal["amd64", "arm64"] | None = None,
    trust_machine: bool = True,
) -> list[str]:
    certificates = (
        'mkdir -p "$1/usr/local/share/ca-certificates" && '
        f'cp -r {work}/certificates/. "$1/usr/local/share/ca-certificates/"'
    )
    update = 'if [ -x "$1/usr/sbin/update-ca-certificates" ]; then chroot "$1" update-ca-certificates; fi'
    early = f'cp -r {work}/early/. "$1/"' if (work / "early").is_dir() else None
    last = f"{certificates} && {update}" if trust_machine else _FORGET_MACHINE
    options = [
        "--mode=root",
        "--format=tar",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Retries "3"',
        *(f"--aptopt={proxy}" for proxy in apt_proxies()),
        *(f"--dpkgopt={rule}" for rule in _TRIM),
    ]
    if architecture is not None:
        # Its own test of the emulator takes another package; `_require_execution` has tried it.
        options += [f"--architectures={architecture}", "--skip=check/qemu"]
    if architecture == "arm64":
        excludes = " ".join(f"'--{rule}'" for rule in _TRIM)
        options += ["--variant=extract", "--include=?essential", f"--include={','.join((*packages, 'usr-is-merged'))}"]
        options.append(f"--setup-hook={_MERGE_USR}")
        set_up = _SET_UP.format(excludes=excludes)
        # There before the set-up reads them: done again, emulated, it takes half a minute.
        hooks = (early, certificates, set_up) if trust_machine else (early, set_up, last)
        options += [f"--extract-hook={hook}" for hook in hooks if hook is not None]
    else:
        options += ["--variant=minbase", f"--include={','.join(packages)}", f"--customize-hook={last}"]
        if early is not None:
            options.append(f"--essential-hook={early}")
    return ["mmdebstrap", *options, suite, str(tar), str(work / "sources.list")]
