"""What `validate` says: the verdict, notes about files that a deploy will need, every key with its source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspark_ops.config.invariants import Problem
from dspark_ops.config.layers import paths
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.yaml_source import dotted, shorten

SCHEMA = "dspark-ops/validate/v1"


def missing_files(loaded: LoadedSite) -> tuple[Problem, ...]:
    """Notes for files on the control host that the site names and that are not there (yet)."""
    site = loaded.site
    gate = Path(site.gate.command[0]) if site.gate is not None and site.gate.command else None
    named = (
        ("cfg.image_archive", "image.archive", site.image.archive, "deploy needs it where a node lacks the image"),
        ("cfg.ssh_config", "ssh.config", site.ssh.config, "every verb that reaches the nodes needs it"),
        ("cfg.gate_program", "gate.command.0", gate, "deploy asks it before a release is kept"),
    )
    return tuple(
        Problem(rule, key, f"{path} does not exist on this machine; {why}", "note", loaded.provenance[key].detail)
        for rule, key, path, why in named
        if path is not None and not path.is_file()
    )


def validation_document(loaded: LoadedSite, *, show: bool) -> dict[str, Any]:
    """The JSON document of `validate`; keys is None unless asked for."""
    notes = (*loaded.notes, *missing_files(loaded))
    return {
        "schema": SCHEMA,
        "verb": "validate",
        "verdict": "valid",
        "path": str(loaded.path),
        "site": loaded.site.name,
        "profile": {"name": loaded.profile.name, "title": loaded.profile.title, "status": loaded.profile.status},
        "rails": len(loaded.site.fabric.rails),
        "notes": [{"id": note.id, "key": note.key, "message": note.message, "where": note.where} for note in notes],
        "keys": key_rows(loaded) if show else None,
        "exit_code": 0,
    }


def key_rows(loaded: LoadedSite) -> list[dict[str, Any]]:
    """One row per leaf key: its value, the layer it came from and the place there."""
    rows: list[dict[str, Any]] = []
    document = loaded.site.model_dump(mode="json")
    for key in paths(document, ()):
        value: Any = document
        for part in key:
            value = value[part]
        source = loaded.provenance.get(dotted(key))
        if source is not None and not isinstance(value, dict | list):
            rows.append({"key": dotted(key), "value": value, "layer": source.layer, "source": source.detail})
    return rows


def render_validation(document: Mapping[str, Any]) -> str:
    """The same for people: the table first when asked for, notes, the verdict last."""
    lines: list[str] = []
    if document["keys"] is not None:
        lines += [*_table(document["keys"]), ""]
    lines += [f"[warn] {note['where']}: {note['key']}: {note['message']} [{note['id']}]" for note in document["notes"]]
    profile = document["profile"]
    lines.append(
        f"[ok] {document['path']} is valid: site {document['site']}, {document['rails']} rails, "
        f"profile {profile['name']} ({profile['title']}; {profile['status']})"
    )
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    cells = [("key", "value", "layer", "source")]
    for row in rows:
        value = row["value"]
        text = "-" if value is None else value if isinstance(value, str) else shorten(value)
        cells.append((row["key"], text if len(text) <= 72 else text[:69] + "...", row["layer"], row["source"]))
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in cells
    ]
