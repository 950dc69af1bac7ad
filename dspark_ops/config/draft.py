"""A proposed site as a commented file: rendered, checked by the loader, and put in place in one step."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dspark_ops import __version__
from dspark_ops.config.discover import NodeSeen
from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.config.models import ROLES, RailEnd, Role
from dspark_ops.config.propose import SiteDraft
from dspark_ops.config.sample import WHY, comment, scalar
from dspark_ops.config.yaml_source import cut
from dspark_ops.errors import ConfigError, RefusedError

SCHEMA = "dspark-ops/init/v1"


def default_name(draft: SiteDraft) -> str:
    """`lab` for a rehearsal pair, else `pair`."""
    return "lab" if all(node.rehearsed for node in draft.nodes.values()) else "pair"


def render_site(draft: SiteDraft, name: str, now: datetime) -> str:
    """The site file: a record of what was seen as comments, then the keys that this pair needs."""
    request = draft.request
    when = now.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    lines = [
        f"# Written by `dspark-ops init {request.head} {request.worker}` on {when} (dspark-ops {__version__}).",
        "# Yours to edit; check it with `dspark-ops validate`. Every key is explained in inventories/example/site.yml.",
        "#",
        "# What was seen then:",
    ]
    for role in ROLES:
        lines += [f"#   {line}" for line in describe_node(draft.nodes[role])]
    for note in draft.notes:
        lines += comment(f"Note: {cut(note, 400)}", 0)
    lines += ["", "version: 1", f"name: {scalar(name)}", *_why("profile"), f"profile: {scalar(draft.profile.name)}"]
    lines += ["", *_why("ssh"), "ssh:"]
    config = request.ssh_config.absolute() if request.ssh_config is not None else None
    lines += [f"  config: {scalar(config)}", f"  connect_timeout_s: {scalar(request.connect_timeout_s)}"]
    lines += ["", *_why("nodes"), "nodes:"]
    lines += [f"  {role}: {{host: {scalar(request.host(role))}}}" for role in ROLES]
    lines += ["", *_why("fabric"), "fabric:", "  mtu: 9000", "  rails:"]
    for rail in draft.rails:
        kept = "the addresses that were there" if rail.name in draft.adopted else "new addresses"
        lines.append(f"    - name: {scalar(rail.name)}  # {kept}")
        lines += [f"      {role}: {_end(rail.of(role))}" for role in ROLES]
    image = draft.image
    lines += ["", *_why("image"), "image:", f"  reference: {scalar(image.reference)}", f"  id: {scalar(image.id)}"]
    lines += [*_why("image.archive", 2), f"  archive: {scalar(image.archive)}"]
    lines += ["", f"# model, serve and guards come from profile {draft.profile.name}; override single keys here, as:"]
    lines += ["# serve:", "#   api_port: 8000"]
    return "\n".join(lines) + "\n"


def _why(key: str, indent: int = 0) -> list[str]:
    return comment(WHY[key], indent)


def _end(end: RailEnd) -> str:
    return f"{{netdev: {scalar(end.netdev)}, hca: {scalar(end.hca)}, address: {scalar(end.address)}}}"


def describe_node(node: NodeSeen) -> Iterator[str]:
    """What was seen of a node, one short line each; no line can leave the comment that it stands in."""
    facts, total = node.system, node.memory.total_gib if node.memory else None
    sudo = {True: "without password", False: "not without password", None: "unknown"}[node.sudo]
    yield cut(
        f"{node.role} {node.host} ({node.hostname or 'unknown'}): {facts.os_title or 'unknown system'}, "
        f"kernel {facts.kernel or 'unknown'} {facts.arch or ''}",
        300,
    )
    parts = [
        f"DGX OTA {facts.dgx.ota or facts.dgx.build or 'unknown'}" if facts.dgx else "no /etc/dgx-release",
        f"MemTotal {total:.1f} GiB" if total is not None else "MemTotal unknown",
        f"login {node.login_user or 'unknown'}, sudo {sudo}",
    ]
    if node.rehearsed:
        parts.append("a rehearsal node: hardware look-alikes")
    yield cut("  " + ", ".join(parts), 300)
    words = {True: "carrier", False: "no carrier", None: "carrier unknown"}
    by_name = {link.name: link for link in node.links}
    for port in node.ports():
        link = by_name[port.netdev]
        addresses = ", ".join(str(item.address) for item in link.addresses if item.address.version == 4)
        yield cut(
            f"  {port.netdev} (cage {port.cage}, half {port.half}, {port.hca}): {words[port.carrier]}, "
            f"MTU {link.mtu if link.mtu is not None else 'unknown'}, {addresses or 'no IPv4 address'}",
            300,
        )


def refuse_existing(path: Path, *, force: bool) -> None:
    """Stop before anything is contacted when the file could not be written. Raises RefusedError or ConfigError."""
    if path.is_dir():
        raise ConfigError(f"{path}: is a directory, expected a file name", hint=f"as in --output {path / 'site.yml'}")
    if path.exists() and not force:
        raise RefusedError(
            f"{path} exists already; init does not overwrite it", hint="name another with --output, or pass --force"
        )


def write_site(draft: SiteDraft, name: str, path: Path, *, force: bool, now: datetime) -> LoadedSite:
    """Write the file whole or not at all, mode 0644, and only if the loader takes it. Returns it as loaded."""
    refuse_existing(path, force=force)
    text = render_site(draft, name, now)
    temporary: Path | None = None
    try:
        _require_loadable(text, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(prefix=".site-", suffix=".yml", dir=path.parent)
        temporary = Path(made)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        if force:
            temporary.replace(path)
        else:
            os.link(temporary, path)  # fails where a file has appeared meanwhile
    except OSError as error:
        refuse_existing(path, force=force)
        raise ConfigError(f"{path}: cannot be written: {error.strerror}", hint="name another with --output") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    return load_site(path, environ={})


def _require_loadable(text: str, path: Path) -> None:
    """Load the text from a place of its own; a complaint names the file that it would have become."""
    with tempfile.TemporaryDirectory() as directory:
        trial = Path(directory) / path.name
        trial.write_text(text, encoding="utf-8")
        try:
            load_site(trial, environ={})
        except ConfigError as error:
            raise ConfigError(
                error.message.replace(str(trial), str(path)),
                hint="nothing was written; use other names or options",
            ) from None


def init_document(draft: SiteDraft, loaded: LoadedSite) -> dict[str, Any]:
    """The JSON document of `init`."""
    return {
        "schema": SCHEMA,
        "verb": "init",
        "verdict": "written",
        "path": str(loaded.path),
        "site": loaded.site.name,
        "profile": loaded.profile.name,
        "nodes": [_node_document(role, draft.nodes[role]) for role in ROLES],
        "rails": [
            {**rail.model_dump(mode="json"), "adopted": rail.name in draft.adopted} for rail in loaded.site.fabric.rails
        ],
        "image": loaded.site.image.model_dump(mode="json"),
        "notes": list(draft.notes) + [f"{note.key}: {note.message}" for note in loaded.notes],
        "next_step": f"dspark-ops bootstrap --site {loaded.path}",
        "exit_code": 0,
    }


def _node_document(role: Role, node: NodeSeen) -> dict[str, Any]:
    return {
        "role": role,
        "host": node.host,
        "hostname": node.hostname,
        "kernel": node.system.kernel,
        "dgx_ota": node.system.dgx.ota if node.system.dgx else None,
        "mem_total_kib": node.memory.mem_total_kib if node.memory else None,
        "sudo": node.sudo,
        "rehearsed": node.rehearsed,
        "ports": [
            {"netdev": port.netdev, "hca": port.hca, "cage": port.cage, "half": port.half, "carrier": port.carrier}
            for port in node.ports()
        ],
    }


def render_init(document: dict[str, Any], draft: SiteDraft) -> str:
    """The same for people."""
    lines = [line for role in ROLES for line in describe_node(draft.nodes[role])]
    lines += ["", *(f"note: {note}" for note in document["notes"]), ""]
    for rail in document["rails"]:
        ends = " <-> ".join(f"{role} {rail[role]['netdev']} {rail[role]['address']}" for role in ROLES)
        lines.append(f"rail {rail['name']}: {ends}{' (kept)' if rail['adopted'] else ''}")
    lines.append(f"[ok] {document['path']} is written: site {document['site']}, profile {document['profile']}")
    lines.append(f"next: {document['next_step']}")
    return "\n".join(lines)
