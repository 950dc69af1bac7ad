"""What `image build` and `image list` show: one JSON document, or the text for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dspark_ops.images.listing import Listed, Listing
from dspark_ops.images.produce import Produced
from dspark_ops.report.text import render

_MIB = 1 << 20


def build_document(made: Produced) -> dict[str, Any]:
    """The build as JSON: what `image build --json` prints."""
    return {
        "schema": "dspark-ops/image-build/v1",
        "built": made.built,
        "loaded": made.loaded,
        "archive": str(made.image.archive),
        "output": str(made.output) if made.output else None,
        "image": made.image.record.model_dump(mode="json"),
        "verification": made.verification.model_dump(mode="json", by_alias=True) if made.verification else None,
        "exit_code": made.exit_code,
    }


def render_build(made: Produced) -> str:
    """The stages with their tags and layers, the image, and how to go on."""
    record = made.image.record
    rows = [(stage.reference, f"{stage.layer_bytes / 1024:.0f} KiB", stage.name) for stage in record.stages]
    lines = [
        f"{'built' if made.built else 'unchanged'}: {record.reference}",
        f"  id        {record.image_id}",
        f"  contents  {record.contents}, vLLM {record.vllm}, {record.platform}, {_mib(sum(record.layer_bytes))}",
        f"  lock      {record.lock}, root {record.root[:12]}, manifest {record.manifest[:12]}, SBOM {record.sbom[:12]}",
        *_table(rows),
        f"  archive   {made.output or made.image.archive}",
    ]
    if made.verification is not None:
        lines += ["", render(made.verification, colour=False, verbose=True)]
    return "\n".join(lines)


def listing_document(listing: Listing) -> dict[str, Any]:
    """The images as JSON: what `image list --json` prints."""
    return {
        "schema": "dspark-ops/image-list/v1",
        "builds": [{"archive": str(built.archive), **built.record.model_dump(mode="json")} for built in listing.builds],
        "nodes": {
            role: None if images is None else [vars(image) for image in images]
            for role, images in listing.nodes.items()
        },
    }


def render_listing(listing: Listing) -> str:
    """Builds on this machine, then each node's images."""
    lines = ["builds on this machine" + (":" if listing.builds else ": none")]
    lines += _table(
        [
            (built.reference, built.image_id[:19], built.record.contents, _mib(built.record.size_bytes))
            for built in listing.builds
        ]
    )
    for role, images in listing.nodes.items():
        if images is None:
            lines.append(f"{role}: its images could not be read")
            continue
        lines.append(f"{role}" + (":" if images else ": none of ours"))
        lines += _table([_row(image) for image in images])
    return "\n".join(lines)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:.0f} MiB"


def _row(image: Listed) -> tuple[str, ...]:
    roles = [word for word, holds in (("site", image.wanted), ("running", image.running)) if holds]
    return (image.reference or "<no name>", image.id[:19], image.stages or "-", ", ".join(roles) or "kept")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(len(rows[0]) if rows else 0)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
