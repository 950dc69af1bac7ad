"""The labels of an image of ours. They are part of its id, so what they say cannot be edited unnoticed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dspark_ops import __version__
from dspark_ops.facts.rank import LABEL
from dspark_ops.images.inputs import BuildInputs
from dspark_ops.images.normalise import EPOCH_TEXT
from dspark_ops.images.stages import Stage


@dataclass(frozen=True)
class Proof:
    """What an image rests on, as hashes: all below the stages, the root, the list of sealed files, the SBOM."""

    lock: str
    root: str
    manifest: str
    sbom: str


def image_labels(inputs: BuildInputs, stage: Stage, proof: Proof, reference: str) -> dict[str, str]:
    """Ours and the OCI ones, of the image whose topmost stage is `stage`."""
    profile = inputs.profile
    ids = [one.id for one in inputs.stages]
    ours = {
        "image": "engine",
        "profile": profile.name,
        "contents": inputs.contents,
        "vllm": profile.vllm,
        "release": profile.image.release.distribution,
        "python-digest": profile.image.release.python_digest,
        "lane": profile.image.lane,
        "lock": proof.lock,
        "root": proof.root,
        "stage": stage.id,
        "stages": ",".join(ids[: ids.index(stage.id) + 1]),
        "stage-digest": stage.digest,
        "manifest": proof.manifest,
        "sbom": proof.sbom,
        "built-by": f"dspark-ops {__version__}",
    }
    return {f"{LABEL}{name}": value for name, value in ours.items()} | {
        "org.opencontainers.image.title": f"{profile.title}, stage {stage.id.upper()}",
        "org.opencontainers.image.version": f"{profile.vllm}-{proof.lock}-{stage.digest[:12]}",
        "org.opencontainers.image.created": EPOCH_TEXT,
        "org.opencontainers.image.ref.name": reference,
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
