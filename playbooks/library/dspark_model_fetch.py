#!/usr/bin/python
"""Ansible module: a pinned revision from a Hugging Face hub into this node's hub cache, each file proven by digest."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dspark_model_download import download
from ansible.module_utils.dspark_model_hub_client import Hub, HubError
from ansible.module_utils.dspark_model_layout import LayoutError, alone, repo_folder, require_safe
from ansible.module_utils.dspark_model_progress import Progress

DOCUMENTATION = r"""
module: dspark_model_fetch
short_description: Reads what a pinned revision consists of, or brings its files into the hub cache
description:
  - V(metadata) asks the hub for the files of one commit and looks whether its index is whole; it changes nothing.
  - V(download) brings the given files as blobs, goes on with what an earlier run left, and proves each by its digest.
options:
  step:
    description: Which one.
    type: str
    choices: [metadata, download]
    required: true
  repo:
    description: The repository, owner and name.
    type: str
    required: true
  revision:
    description: The commit, 40 hexadecimal digits.
    type: str
    required: true
  endpoint:
    description: The hub; null takes HF_ENDPOINT of this node's environment, or the hub's own address.
    type: str
  token:
    description: What the hub wants to be shown for a gated repository; it is in memory only.
    type: str
  cache:
    description: The hub cache.
    type: path
  records:
    description: Where this node's lock and records of weights are.
    type: path
    default: /var/lib/dspark-ops/weights
  files:
    description: The files with name, size, blob and sha256, as V(metadata) returned them.
    type: list
    elements: dict
    default: []
  need_bytes:
    description: How much must be free before the first byte is written.
    type: int
    default: 0
  streams:
    description: How many files are brought at the same time.
    type: int
    default: 4
  attempts:
    description: How often in a row nothing may come for one file.
    type: int
    default: 5
  silence_s:
    description: How long each attempt waits for the next byte.
    type: float
    default: 30
  pause_s:
    description: How long the first pause between attempts is; it doubles.
    type: float
    default: 1
author: dspark-ops
"""

EXAMPLES = r"""
- name: Read what the revision consists of
  dspark_model_fetch:
    step: metadata
    repo: OWNER/NAME
    revision: "{{ model_fetch_revision }}"
"""

RETURN = r"""
dspark_summary:
  description: V(manifest) after metadata; the files with their sha256 and what was moved after download.
  type: dict
  returned: always
"""

_HUB = "https://huggingface.co"
_BUSY_S = 60.0


def hub_of(given: dict[str, Any]) -> Hub:
    """The hub that the arguments mean."""
    endpoint = given["endpoint"] or os.environ.get("HF_ENDPOINT") or _HUB
    return Hub(
        endpoint,
        given["repo"],
        given["revision"],
        given["token"] or None,
        silence_s=given["silence_s"],
        attempts=given["attempts"],
        pause_s=given["pause_s"],
    )


def bring(given: dict[str, Any]) -> dict[str, Any]:
    """All files as blobs of the cache; the largest first, several at a time."""
    files = given["files"]
    require_safe(files)
    folder = Path(given["cache"]) / repo_folder(given["repo"])
    blobs, total = folder / "blobs", sum(int(file["size"]) for file in files)
    with alone(Path(given["records"]), _BUSY_S):
        _make(blobs)
        _require_space(blobs, given["need_bytes"])
        began = time.monotonic()
        with Progress("fetch", total) as progress:
            done = _all(hub_of(given), files, blobs, given["streams"], progress)
    came, kept = sum(each[0] for each in done.values()), sum(each[1] for each in done.values())
    return {
        "changed": came > 0,
        "dspark_summary": {
            "what": f"weights of {given['repo']} at {given['revision'][:12]}",
            "before": f"{kept} bytes kept" if kept else None,
            "after": f"{came} bytes fetched",
            "came_bytes": came,
            "kept_bytes": kept,
            "seconds": round(time.monotonic() - began, 3),
            "files": [{**file, "size": int(file["size"]), "sha256": done[file["blob"]][2]} for file in files],
        },
    }


def _all(
    hub: Hub, files: list[dict[str, Any]], blobs: Path, streams: int, progress: Progress
) -> dict[str, tuple[int, int, str]]:
    """Every blob once; the first failure ends the others, which keep what came."""
    wanted = {file["blob"]: file for file in sorted(files, key=lambda file: int(file["size"]), reverse=True)}
    with ThreadPoolExecutor(max_workers=max(1, streams)) as pool:
        pending = {
            blob: pool.submit(_one, lambda f=file: download(hub, f, blobs, progress.add, progress.stop), progress.stop)
            for blob, file in wanted.items()
        }
    failures = [error for future in pending.values() if (error := future.exception()) is not None]
    if progress.orphaned:
        raise HubError("the run that began this has ended; what came is kept", "weights.stopped")
    told = [error for error in failures if getattr(error, "check", None) != "weights.stopped"] or failures
    if told:
        raise told[0]
    return {blob: future.result() for blob, future in pending.items()}


def _one(work: Callable[[], tuple[int, int, str]], stop: threading.Event) -> tuple[int, int, str]:
    if stop.is_set():
        raise HubError("not begun", "weights.stopped")
    try:
        return work()
    except BaseException:
        stop.set()
        raise


def _make(blobs: Path) -> None:
    """The directories, readable by a container of any user."""
    for path in reversed([blobs, *blobs.parents]):
        if not path.exists():
            path.mkdir(mode=0o755)
            path.chmod(0o755)


def _require_space(folder: Path, needed: int) -> None:
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize
    if free < needed:
        raise LayoutError(
            f"{folder} has {free / 2**30:.1f} GiB free, {needed / 2**30:.1f} GiB are needed with the floor; nothing "
            f"was fetched [weights.disk_space]"
        )


def main() -> None:
    os.umask(0o022)  # a rank of any user reads what is made here
    text, path = {"type": "str"}, {"type": "path"}
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": ["metadata", "download"], "required": True},
            "repo": text | {"required": True},
            "revision": text | {"required": True},
            "endpoint": text,
            "token": text | {"no_log": True},
            "cache": path,
            "records": path | {"default": "/var/lib/dspark-ops/weights"},
            "files": {"type": "list", "elements": "dict", "default": []},
            "need_bytes": {"type": "int", "default": 0},
            "streams": {"type": "int", "default": 4},
            "attempts": {"type": "int", "default": 5},
            "silence_s": {"type": "float", "default": 30},
            "pause_s": {"type": "float", "default": 1},
        },
        required_if=[("step", "download", ("cache",))],
        supports_check_mode=True,
    )
    given = module.params
    try:
        if given["step"] == "metadata":
            result = {"changed": False, "dspark_summary": {"manifest": hub_of(given).manifest()}}
        elif module.check_mode:
            what = f"weights of {given['repo']} at {given['revision'][:12]}"
            result = {"changed": True, "dspark_summary": {"what": what, "after": f"{len(given['files'])} files"}}
        else:
            result = bring(given)
    except (HubError, LayoutError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error} [weights.node]")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
