"""sha256 of blobs on both nodes, by a program that only reads, several at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from dspark_ops.config.models import HubSite, Role
from dspark_ops.transport.base import Command
from dspark_ops.transport.ssh import SshRunner
from dspark_ops.weights.model import WeightFile, repo_directory

_PARALLEL = 4
_BATCH_BYTES = 256 << 20
_BATCH_FILES = 64
_SLOWEST_BYTES_S = 20 << 20
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def hash_blobs(
    hub: HubSite,
    runners: Mapping[Role, SshRunner],
    wanted: Mapping[Role, Iterable[WeightFile]],
    tell: Callable[[int], None],
) -> dict[Role, dict[str, str | None]]:
    """sha256 by blob on each node; None where it could not be computed. tell: gets a batch's bytes when it is done."""
    blobs = repo_directory(hub) / "blobs"
    found: dict[Role, dict[str, str | None]] = {role: {} for role in wanted}
    with ThreadPoolExecutor(max_workers=_PARALLEL * max(1, len(wanted))) as pool:
        pending = [
            (role, pool.submit(_hash, runners[role], blobs, batch, tell))
            for role, files in wanted.items()
            for batch in batches(files)
        ]
        for role, future in pending:
            found[role] |= future.result()
    return found


def batches(files: Iterable[WeightFile]) -> list[tuple[WeightFile, ...]]:
    """Each blob once, the large ones alone and first, small ones together: one round trip a batch."""
    each = sorted({file.blob: file for file in files}.values(), key=lambda file: file.size, reverse=True)
    out: list[list[WeightFile]] = []
    room = 0
    for file in each:
        if not out or file.size > room or len(out[-1]) >= _BATCH_FILES:
            out.append([])
            room = _BATCH_BYTES
        out[-1].append(file)
        room -= file.size
    return [tuple(batch) for batch in out]


def _hash(
    runner: SshRunner, blobs: PurePosixPath, batch: tuple[WeightFile, ...], tell: Callable[[int], None]
) -> dict[str, str | None]:
    size = sum(file.size for file in batch)
    limit_s = 60 + size / _SLOWEST_BYTES_S
    paths = (str(blobs / file.blob) for file in batch)
    probe = Command("weights.sha256", ("sha256sum", "--", *paths), timeout_s=limit_s, root=True)
    result = runner.read([probe], timeout_s=limit_s + 30).get("weights.sha256")
    tell(size)
    seen = parse_sums(result.stdout or "")
    return {file.blob: seen.get(file.blob) for file in batch}


def parse_sums(text: str) -> dict[str, str]:
    """Last part of the path to sha256, of what `sha256sum` wrote; a line of another shape is left out."""
    found = {}
    for raw in text.splitlines():
        match = _LINE.fullmatch(raw)
        if match is not None:
            found[PurePosixPath(match[2]).name] = match[1]
    return found
