"""The part of the Dockerfile that applies the stages: one target a stage, each on the one before. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dspark_ops.images.stages import Stage


def stage_target(stage: Stage) -> str:
    """The Dockerfile target of a stage."""
    return f"stage-{stage.id}"


def stage_part(stages: Sequence[Stage], site: str) -> str:
    """Dockerfile lines for the stages, in order, on the target `base`.

    A change set that does not fit the tree fails its RUN step, and so the build: nothing is patched at container start.
    """
    lines: list[str] = []
    below = "base"
    for number, stage in enumerate(stages, 1):
        stack = " ".join(f"/opt/dspark/stages/{s.id}" for s in stages[:number])
        lines += [
            "",
            f"# {stage.title}",
            f"FROM {below} AS {stage_target(stage)}",
            f"COPY stages/{stage.id}/ /opt/dspark/stages/{stage.id}/",
            f"RUN PYTHONPATH=/opt/dspark python3 -B -m changes apply --root {site} --stack {stack} --json",
        ]
        below = stage_target(stage)
    return "\n".join(lines) + "\n"
