#!/usr/bin/python
"""Ansible module: the steps of bringing an image from the head to the worker, layer by layer over a rail."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dspark_image_archive import (
    CONFIG,
    ArchiveError,
    file_digest,
    hexadecimal,
    layers_of,
    pick,
    write_partial,
)
from ansible.module_utils.dspark_image_node import (
    NodeError,
    attempt,
    docker,
    id_of,
    require_space,
    require_unmoved,
    spool,
    stream_in,
    stream_out,
)
from ansible.module_utils.dspark_rail_fetch import FetchError, Source, fetch
from ansible.module_utils.dspark_rail_server import RailServer, ServerError

DOCUMENTATION = r"""
module: dspark_image_sync
short_description: One step of bringing an image from the head to the worker over a rail
description:
  - V(export) keeps the wanted layers of an image in the spool, each checked against its diff_id.
  - V(serve) offers the spool on one address of one device; a transient unit of systemd that ends by itself.
  - V(fetch) brings them from there into the worker's spool; what an earlier run brought is kept.
  - V(load) gives the Engine an archive of these layers, compares the id, names the image, keeps the previous one.
  - V(close) stops the server; with O(done) the spool is removed too.
options:
  step:
    description: Which one.
    type: str
    choices: [export, serve, fetch, load, close]
    required: true
  image_id:
    description: The image id, sha256 and 64 hexadecimal digits.
    type: str
    required: true
  reference:
    description: The name with its tag that the image bears.
    type: str
    required: true
  layers:
    description: The diff_ids that the worker lacks.
    type: list
    elements: str
    default: []
  spool:
    description: Where layers are kept on their way.
    type: path
    default: /var/cache/dspark-ops/image-sync
  image_bytes:
    description: The size of the whole image, for the check of the free space.
    type: int
    default: 0
  server:
    description: The server program on the node.
    type: path
  address:
    description: The head's address of the rail.
    type: str
  local:
    description: This node's own address of the rail.
    type: str
  device:
    description: This node's netdev of the rail.
    type: str
  port:
    description: The server's port.
    type: int
  token:
    description: What the server wants to be shown.
    type: str
  sizes:
    description: Bytes per file, as V(export) returned them.
    type: dict
    default: {}
  previous:
    description: The image to keep under O(previous_name), or null.
    type: str
  previous_name:
    description: The name that keeps the previous image from being pruned.
    type: str
  drop:
    description: Names of our older images that are taken away.
    type: list
    elements: str
    default: []
  silence_s:
    description: How long nothing may come before the fetch gives up.
    type: float
    default: 20
  timeout_s:
    description: How long a load, and the server, may last.
    type: int
    default: 3600
  done:
    description: Whether the image has arrived, so that the spool is not needed any more.
    type: bool
    default: false
  leftover:
    description: Whether the spool is what an earlier run left behind.
    type: bool
    default: false
author: dspark-ops
"""

EXAMPLES = r"""
- name: Keep the wanted layers
  dspark_image_sync:
    step: export
    image_id: "{{ image_sync_id }}"
    reference: "{{ image_sync_reference }}"
    layers: "{{ image_sync_layers }}"
"""

RETURN = r"""
sizes:
  description: Bytes per file of the spool.
  type: dict
  returned: after export
port:
  description: Where the server listens.
  type: int
  returned: after serve
token:
  description: What the server wants to be shown; good for this server only.
  type: str
  returned: after serve
dspark_summary:
  description: What was changed; after fetch also the bytes that came, those kept from an earlier run, and the seconds.
  type: dict
  returned: always but after serve
"""

SERVER = RailServer("dspark-image-sync")
_MARGIN_BYTES = 256 << 20


def export(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """The wanted layers in the head's spool, complete and with the right digest."""
    image, wanted = hexadecimal(given["image_id"]), [hexadecimal(layer) for layer in given["layers"]]
    if id_of(given["image_id"]) is None:
        raise NodeError(f"{given['image_id']} is not here [image.absent]")
    require_unmoved(given["reference"], given["image_id"])
    summary = {"what": f"spool of {given['reference']}", "before": None, "after": f"{len(wanted)} layers"}
    if check:
        return {"changed": True, "dspark_summary": summary}
    with spool(Path(given["spool"]), image) as folder:
        sizes = {
            name: (folder / name).stat().st_size
            for name in (*dict.fromkeys(wanted), CONFIG)
            if (folder / name).is_file() and file_digest(folder / name) == (image if name == CONFIG else name)
        }
        if sizes.keys() == {*wanted, CONFIG}:
            return {"changed": False, "sizes": sizes}
        # `docker save` writes the image to the Engine's own directory before it sends it.
        root = Path(docker("info", "--format", "{{.DockerRootDir}}"))
        require_space(root, given["image_bytes"] + _MARGIN_BYTES, "`docker save`")
        together = 2 if root.stat().st_dev == folder.stat().st_dev else 1
        require_space(folder, together * given["image_bytes"] + _MARGIN_BYTES, "the spool beside `docker save`")
        try:
            listed = docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", given["image_id"])
            chain = [hexadecimal(layer) for layer in json.loads(listed)]
            sizes = stream_out(["save", given["image_id"]], lambda out: pick(out, image, wanted, folder, chain))
        except ArchiveError as error:
            raise NodeError(f"`docker save`: {error} [image.sync_export]") from error
    summary["after"] = f"{len(set(wanted))} layers, {sum(sizes.values())} bytes"
    return {"changed": True, "sizes": sizes, "dspark_summary": summary}


def serve(given: dict[str, Any]) -> dict[str, Any]:
    """The server, on the rail's address only. It is always stopped again, so that it counts as no change."""
    folder = Path(given["spool"]) / hexadecimal(given["image_id"])
    try:
        port, token = SERVER.start(given["server"], folder, given["address"], given["device"], given["timeout_s"])
    except ServerError as error:
        raise NodeError(f"{error} [image.sync_server]") from error
    return {"changed": False, "port": port, "token": token}


def bring(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """The layers in the worker's spool."""
    image, wanted = hexadecimal(given["image_id"]), dict.fromkeys(hexadecimal(layer) for layer in given["layers"])
    require_unmoved(given["reference"], given["image_id"])
    summary: dict[str, Any] = {"what": f"layers of {given['reference']} over {given['device']}", "before": None}
    if check:
        return {"changed": True, "dspark_summary": summary | {"after": f"{len(wanted)} layers"}}
    names, sizes = (CONFIG, *wanted), {name: int(size) for name, size in given["sizes"].items()}
    source = Source(given["address"], given["port"], given["token"], given["local"], given["device"])
    with spool(Path(given["spool"]), image) as folder:
        began, came, kept = time.monotonic(), 0, 0
        total = sum(sizes[name] for name in names)
        # The Engine keeps a copy of what it is given while it makes the layers of it.
        root = Path(docker("info", "--format", "{{.DockerRootDir}}"))
        same = root.stat().st_dev == folder.stat().st_dev
        require_space(folder, total - _size(folder) + (2 * total if same else 0) + _MARGIN_BYTES, "the transfer")
        require_space(root, 2 * total + _MARGIN_BYTES, "`docker load`")
        for name in names:
            digest = image if name == CONFIG else name
            try:
                now, before = fetch(source, name, digest, sizes[name], folder, given["silence_s"])
            except FetchError as error:
                raise NodeError(
                    f"{error}; {_size(folder)} of {total} bytes are kept here and the next run goes on from there "
                    f"[image.{error.check}]"
                ) from error
            came, kept = came + now, kept + before
    summary |= {"before": f"{kept} bytes kept" if kept else None, "after": f"{came} bytes fetched"}
    fetched = {"came_bytes": came, "kept_bytes": kept, "seconds": round(time.monotonic() - began, 3)}
    return {"changed": came > 0, "dspark_summary": summary | fetched}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def load(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """The image in the worker's Engine under its name; the previous one kept, older ones of ours gone."""
    image_id, reference = given["image_id"], given["reference"]
    image, wanted = hexadecimal(image_id), [hexadecimal(layer) for layer in given["layers"]]
    require_unmoved(reference, image_id)
    present = id_of(image_id) == image_id
    named = present and ("@" in reference or id_of(reference) == image_id)
    previous = given["previous"]
    summary = {
        "what": f"image {reference}: " + ("name it" if present else "load it"),
        "before": previous,
        "after": image_id,
    }
    if check or (present and named):
        return {"changed": not (present and named), "dspark_summary": summary}
    with spool(Path(given["spool"]), image) as folder:
        if not present:
            config = (folder / CONFIG).read_bytes()
            if hashlib.sha256(config).hexdigest() != image:
                raise NodeError(f"the configuration in {folder} is not that of {image_id} [image.sync_digest]")
            files = {layer: folder / layer for layer in layers_of(config) if layer in wanted}
            stream_in(["load", "--quiet"], lambda out: write_partial(out, image, config, files), given["timeout_s"])
            if id_of(image_id) != image_id:
                raise NodeError(f"the Engine loaded something else than {image_id} [image.wrong_archive]")
        if previous and id_of(previous) == previous:
            docker("image", "tag", previous, given["previous_name"])
        if not named:
            docker("image", "tag", image_id, reference)
        # Without force: an image that a container was made of stays.
        dropped = [name for name in given["drop"] if attempt("image", "rm", name).returncode == 0]
    return {"changed": True, "dspark_summary": summary, "dropped": dropped}


def close(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """No server; and an empty spool once the image has arrived."""
    base = Path(given["spool"])
    left = [path for path in base.iterdir() if path.is_dir()] if given["done"] and base.is_dir() else []
    if not check:
        SERVER.stop()
        if left:
            with spool(base, hexadecimal(given["image_id"])) as folder:
                shutil.rmtree(folder)
            Path(given["server"]).unlink(missing_ok=True)
    summary = {"what": f"spool {base}", "before": f"layers of {len(left)} image(s)", "after": None}
    # Emptied after a transfer of this very run it is as it was before; what an earlier run left is a change.
    return {"changed": bool(left) and given["leftover"], "dspark_summary": summary}


def main() -> None:
    text, path = {"type": "str"}, {"type": "path"}
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": ["export", "serve", "fetch", "load", "close"], "required": True},
            "image_id": text | {"required": True},
            "reference": text | {"required": True},
            "layers": names,
            "spool": path | {"default": "/var/cache/dspark-ops/image-sync"},
            "image_bytes": {"type": "int", "default": 0},
            "server": path,
            "address": text,
            "local": text,
            "device": text,
            "port": {"type": "int"},
            "token": text | {"no_log": True},
            "sizes": {"type": "dict", "default": {}},
            "previous": text,
            "previous_name": text,
            "drop": names,
            "silence_s": {"type": "float", "default": 20},
            "timeout_s": {"type": "int", "default": 3600},
            "done": {"type": "bool", "default": False},
            "leftover": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given, check = module.params, module.check_mode
    try:
        if given["step"] == "serve":
            result = {"changed": False} if check else serve(given)
        else:
            steps = {"export": export, "fetch": bring, "load": load, "close": close}
            result = steps[given["step"]](given, check)
    except (NodeError, ArchiveError, OSError) as error:
        told = str(error)
        module.fail_json(msg=told if told.endswith("]") else f"{told} [image.sync_node]")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
