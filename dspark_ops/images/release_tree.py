"""A release's Python tree: the wheel's `.py` files and metadata, proven against its RECORD, kept without the rest."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.images.changes import verify_release
from dspark_ops.images.changes.model import check_path, sha256_hex
from dspark_ops.images.changes.record import parse_record
from dspark_ops.images.wheels import pip_command

#: Newest first; a wheel is taken for any of them.
_GLIBC_MINORS = range(39, 16, -1)
#: Read by the package at import or start, so kept beside the `.py` files.
_TEXT = (".json", ".txt", ".jinja", ".yaml", ".yml", ".typed", ".toml")
_TEXT_BYTES_MAX = 1 << 20
_TIMEOUT_S = 900
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def release_tree(
    distribution: str, version: str, cache: Path, *, platform: Literal["aarch64", "x86_64"] = "aarch64"
) -> Path:
    """The directory of the release's tree below `cache/releases`; fetched with pip where it is absent.

    It holds `.py` files, small text and the dist-info directory, no compiled library: enough to read, patch and import,
    not to serve. It is there complete or not at all; callers at the same time fetch it once. Treat it as read-only.

    Raises:
        NoVerdictError: pip does not give the wheel.
        RefusedError: a file of the wheel is not what its RECORD says.
    """
    if not _NAME.fullmatch(distribution) or not _NAME.fullmatch(version):
        raise ValueError(f"no distribution and version: {distribution!r} {version!r}")
    releases = cache / "releases"
    final = releases / f"{distribution}-{version}-{platform}"
    if final.is_dir():
        return final
    releases.mkdir(parents=True, exist_ok=True)
    with _exclusive(releases / f".{final.name}.lock"):
        if not final.is_dir():
            with tempfile.TemporaryDirectory(prefix=f".{final.name}.", dir=releases) as work:
                wheel = _download(distribution, version, platform, Path(work))
                tree = Path(work) / "tree"
                unpack_tree(wheel, tree)
                check = verify_release(tree, distribution, version)
                if check.foreign:
                    raise _not_what_it_says(wheel, [str(foreign) for foreign in check.foreign])
                tree.rename(final)
    return final


def unpack_tree(wheel: Path, tree: Path) -> None:
    """The wheel's Python part below `tree`, each file compared with RECORD on the way.

    Raises:
        RefusedError: a file is not what RECORD says, RECORD does not name it, or its path leaves the tree.
    """
    wrong: list[str] = []
    with zipfile.ZipFile(wheel) as archive:
        names = [info for info in archive.infolist() if not info.is_dir()]
        records = [info.filename for info in names if re.fullmatch(r"[^/]+\.dist-info/RECORD", info.filename)]
        if len(records) != 1:
            raise _not_what_it_says(wheel, [f"{len(records)} RECORD files, expected one"])
        entries = parse_record(archive.read(records[0]))
        dist_info = records[0].removesuffix("RECORD")
        for info in names:
            if not _kept(info, dist_info):
                continue
            content = archive.read(info)
            path = check_path(info.filename)
            expected, _ = entries.get(path, (None, None))
            if path != records[0] and (expected is None or expected != sha256_hex(content)):
                wrong.append(f"{path}: sha256 {sha256_hex(content)}, expected {expected or 'no such file'}")
                continue
            target = tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    if wrong:
        raise _not_what_it_says(wheel, wrong)


def _kept(info: zipfile.ZipInfo, dist_info: str) -> bool:
    if info.filename.endswith(".py") or info.filename.startswith(dist_info):
        return True
    return info.filename.endswith(_TEXT) and info.file_size <= _TEXT_BYTES_MAX


def _download(distribution: str, version: str, platform: str, target: Path) -> Path:
    log = target / "pip.log"
    tags = [f"manylinux_2_{minor}_{platform}" for minor in _GLIBC_MINORS] + [f"manylinux2014_{platform}"]
    command = [*pip_command(), "download", "--no-deps", "--no-input", "--progress-bar", "off", "--no-cache-dir"]
    # The tree is only read: any Python that the release supports names the same wheel.
    command += ["--only-binary=:all:", "--python-version", "3.12", "--dest", str(target)]
    command += [part for tag in tags for part in ("--platform", tag)]
    with log.open("wb") as out:
        try:
            done = subprocess.run(
                [*command, f"{distribution}=={version}"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT_S,
                check=False,
                env={**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "LC_ALL": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired as late:
            raise NoVerdictError(f"pip did not fetch {distribution} {version} within {_TIMEOUT_S} s") from late
    wheels = list(target.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:])
        raise NoVerdictError(
            f"pip could not fetch the {platform} wheel of {distribution} {version}; its last lines:\n{tail}",
            hint="check pip's own configuration (index, proxy, certificates): `pip config list`",
        )
    return wheels[0]


def _not_what_it_says(wheel: Path, wrong: list[str]) -> RefusedError:
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return RefusedError(
        f"{wheel.name} is not what its RECORD says: {'; '.join(wrong[:3])}{more}",
        hint="the wheel was altered or damaged on its way; fetch it again, from the index that you trust",
    )


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    with lock.open("w", encoding="ascii") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
