"""How a finding about an image is put, and the remedies that several of them share. Pure."""

from __future__ import annotations

from dspark_ops.config.models import Profile
from dspark_ops.report.models import Finding, Node, Remedy, Status


def rebuild(profile: Profile) -> Remedy:
    """Make the image again."""
    return Remedy(
        text="Build the image again and bring it to the node.",
        command=("dspark-ops", "image", "build", profile.name),
        remedy_class="C",
    )


def remove_there(image_id: str) -> Remedy:
    """Take an image away whose content is not what its id says."""
    return Remedy(
        text="Remove the image there, then deploy: it is loaded again from the archive.",
        command=("docker", "image", "rm", "--force", image_id),
        remedy_class="M",
    )


def finding_of(
    node: Node,
    check: str,
    status: Status,
    title: str,
    observed: str,
    *,
    expected: str | None = None,
    remedy: Remedy | None = None,
) -> Finding:
    """One finding about an image on a node."""
    return Finding(id=check, node=node, status=status, title=title, observed=observed, expected=expected, remedy=remedy)
