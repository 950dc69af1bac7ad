#!/usr/bin/python
"""Ansible module: the steps of mirroring weights from the head to the worker, over all rails at the same time."""

from __future__ import annotations

import os
import queue
import threading
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dspark_model_layout import INCOMPLETE, LayoutError, alone, repo_folder, require_safe
from ansible.module_utils.dspark_model_progress import Progress
from ansible.module_utils.dspark_rail_fetch import FetchError, Source, fetch
from ansible.module_utils.dspark_rail_server import RailServer, ServerError

DOCUMENTATION = r"""
module: dspark_model_sync
short_description: One step of mirroring weights from the head to the worker over the rails
description:
  - V(serve) offers the blobs of a repository on each rail, to whoever has the token of this run.
  - V(fetch) brings the given blobs over all rails at once, keeps what an earlier run brought, proves each by sha256.
  - V(close) stops the servers.
options:
  step:
    description: Which one.
    type: str
    choices: [serve, fetch, close]
    required: true
  repo:
    description: The repository, owner and name.
    type: str
    required: true
  cache:
    description: The hub cache.
    type: path
    required: true
  records:
    description: Where this node's lock and records of weights are.
    type: path
    default: /var/lib/dspark-ops/weights
  server:
    description: The server program on the node.
    type: path
  rails:
    description: Name, address and device of each rail; for V(fetch) also the own address, as local.
    type: list
    elements: dict
    default: []
  doors:
    description: Port and token of each rail's server, in the order of the rails.
    type: list
    elements: dict
    default: []
  files:
    description: The files to bring, with name, size, blob and sha256.
    type: list
    elements: dict
    default: []
  need_bytes:
    description: How much must be free before the first byte is written.
    type: int
    default: 0
  streams:
    description: How many files are on their way at the same time, over all rails; at least one a rail.
    type: int
    default: 4
  silence_s:
    description: How long nothing may come over a rail before it is given up.
    type: float
    default: 20
  timeout_s:
    description: How long the servers may last.
    type: int
    default: 21600
author: dspark-ops
"""

EXAMPLES = r"""
- name: Serve the blobs on the rails
  dspark_model_sync:
    step: serve
    repo: OWNER/NAME
    cache: /var/lib/dspark/hub
    server: /run/dspark-rail-server.py
    rails: "{{ model_sync_rails }}"
"""

RETURN = r"""
doors:
  description: Port and token of each rail's server; good for this run only.
  type: list
  elements: dict
  returned: after serve
dspark_summary:
  description: What was moved, over which rail, in how many seconds.
  type: dict
  returned: after fetch
"""

_BUSY_S = 120.0
_RAILS_MAX = 4


def server_of(number: int) -> RailServer:
    """The server of a rail, by its place. A cache may lie below /home."""
    return RailServer(f"dspark-model-sync-{number}", protect_home="read-only")


def serve(given: dict[str, Any]) -> dict[str, Any]:
    """A server a rail. They are always stopped again, so that they count as no change."""
    blobs = Path(given["cache"]) / repo_folder(given["repo"]) / "blobs"
    close()
    doors = []
    for number, rail in enumerate(given["rails"][:_RAILS_MAX]):
        server = server_of(number)
        port, token = server.start(given["server"], blobs, rail["address"], rail["device"], given["timeout_s"])
        doors.append({"port": port, "token": token})
    return {"changed": False, "doors": doors}


def close() -> dict[str, Any]:
    """No server."""
    for number in range(_RAILS_MAX):
        server_of(number).stop()
    return {"changed": False}


class Mirror:
    """The files on their way: each rail takes the largest that is left; a rail that fails gives its file back."""

    def __init__(self, files: list[dict[str, Any]], folder: Path, silence_s: float, progress: Progress) -> None:
        self._left: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        for file in sorted(files, key=lambda each: int(each["size"]), reverse=True):
            self._left.put(file)
        self._wanted = len(files)
        self._folder, self._silence_s, self._progress = folder, silence_s, progress
        self._lock = threading.Lock()
        self.came: dict[str, int] = {}
        self.kept = self.done = 0
        self.lost: dict[str, str] = {}
        self.error: FetchError | None = None

    def run(self, sources: list[tuple[str, Source]]) -> None:
        """Bring all over these rails, one thread each; ends when all came, all rails failed, or one file is wrong."""
        threads = [threading.Thread(target=self._carry, args=pair, daemon=True) for pair in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.error is None and self.done < self._wanted:
            told = "; ".join(f"{rail}: {why}" for rail, why in sorted(self.lost.items()))
            self.error = FetchError(told or "the run that began this has ended", "sync_silent")

    def _carry(self, rail: str, source: Source) -> None:
        while self.error is None and rail not in self.lost and not self._progress.stop.is_set():
            try:
                file = self._left.get(timeout=0.2)
            except queue.Empty:
                if self.done >= self._wanted:
                    return
                continue
            counted = 0

            def tell(count: int) -> None:
                nonlocal counted
                counted += count
                self._progress.add(count)
                if self._progress.stop.is_set():
                    raise FetchError("the run that began this has ended", "sync_stopped")

            try:
                came, kept = fetch(
                    source,
                    file["blob"],
                    file["sha256"],
                    int(file["size"]),
                    self._folder,
                    self._silence_s,
                    suffix=INCOMPLETE,
                    tell=tell,
                )
            except FetchError as error:
                self._progress.add(-counted)
                self._failed(rail, file, error)
            except OSError as error:
                self._failed(rail, file, FetchError(f"{file['name']}: {error}", "node"))
            else:
                with self._lock:
                    self.came[rail] = self.came.get(rail, 0) + came
                    self.kept, self.done = self.kept + kept, self.done + 1

    def _failed(self, rail: str, file: dict[str, Any], error: FetchError) -> None:
        with self._lock:
            if error.check == "sync_silent":
                self.lost[rail] = str(error)
                self._left.put(file)
            elif self.error is None:
                self.error = FetchError(f"{file['name']}: {error}", error.check)


def bring(given: dict[str, Any]) -> dict[str, Any]:
    """The given blobs in this node's cache."""
    files, rails = list({file["blob"]: file for file in given["files"]}.values()), given["rails"]
    require_safe(files)
    if any(file.get("sha256") is None for file in files):
        raise LayoutError("a file without a sha256 cannot be proven here [weights.record]")
    blobs = Path(given["cache"]) / repo_folder(given["repo"]) / "blobs"
    with alone(Path(given["records"]), _BUSY_S):
        for path in reversed([blobs, *blobs.parents]):
            if not path.exists():
                path.mkdir(mode=0o755)
                path.chmod(0o755)
        stat = os.statvfs(blobs)
        free = stat.f_bavail * stat.f_frsize
        if free < given["need_bytes"]:
            raise LayoutError(
                f"{blobs} has {free / 2**30:.1f} GiB free, {given['need_bytes'] / 2**30:.1f} GiB are needed with the "
                f"floor; nothing was fetched [weights.disk_space]"
            )
        began, total = time.monotonic(), sum(int(file["size"]) for file in files)
        each = max(1, given["streams"] // max(1, len(rails)))
        with Progress("sync", total) as progress:
            mirror = Mirror(files, blobs, given["silence_s"], progress)
            sources = [
                (rail["name"], Source(rail["address"], door["port"], door["token"], rail["local"], rail["device"]))
                for rail, door in zip(rails, given["doors"], strict=True)
            ]
            mirror.run(sources * each)
        if mirror.error is not None:
            kept = sum(path.stat().st_size for file in files for path in blobs.glob(file["blob"] + "*"))
            raise LayoutError(
                f"{mirror.error}; {kept} of {total} bytes are kept here and the next run goes on from there "
                f"[weights.{mirror.error.check}]"
            )
    came = sum(mirror.came.values())
    return {
        "changed": came > 0,
        "dspark_summary": {
            "what": f"weights of {given['repo']} over {', '.join(sorted(mirror.came)) or 'no rail'}",
            "before": f"{mirror.kept} bytes kept" if mirror.kept else None,
            "after": f"{came} bytes fetched",
            "came_bytes": came,
            "kept_bytes": mirror.kept,
            "seconds": round(time.monotonic() - began, 3),
            "rails": mirror.came,
            "lost": mirror.lost,
        },
    }


def main() -> None:
    os.umask(0o022)  # a rank of any user reads what is made here
    text, path, rows = {"type": "str"}, {"type": "path"}, {"type": "list", "elements": "dict", "default": []}
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": ["serve", "fetch", "close"], "required": True},
            "repo": text | {"required": True},
            "cache": path | {"required": True},
            "records": path | {"default": "/var/lib/dspark-ops/weights"},
            "server": path,
            "rails": rows,
            "doors": rows
            | {"options": {"port": {"type": "int"}, "token": {"type": "str", "no_log": True}}, "no_log": False},
            "files": rows,
            "need_bytes": {"type": "int", "default": 0},
            "streams": {"type": "int", "default": 4},
            "silence_s": {"type": "float", "default": 20},
            "timeout_s": {"type": "int", "default": 21600},
        },
        supports_check_mode=True,
    )
    given, step = module.params, module.params["step"]
    try:
        if step == "fetch" and module.check_mode:
            summary = {"what": f"weights of {given['repo']}", "after": f"{len(given['files'])} files"}
            result: dict[str, Any] = {"changed": bool(given["files"]), "dspark_summary": summary}
        elif module.check_mode:
            result = {"changed": False}
        else:
            result = close() if step == "close" else {"serve": serve, "fetch": bring}[step](given)
    except ServerError as error:
        module.fail_json(msg=f"{error} [weights.sync_server]")
    except LayoutError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error} [weights.node]")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
