"""From what an image says of itself to findings: is it the one that the site means, and whole inside? Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dspark_ops.config.models import ImageSite, Profile
from dspark_ops.images.findings import finding_of, rebuild, remove_there
from dspark_ops.images.inspection import FilesCheck, ImageFacts
from dspark_ops.images.stages import Stage
from dspark_ops.report.models import Finding, Node, Remedy


@dataclass(frozen=True)
class Wanted:
    """What the image is held against. image: as the site names it; None where an image is looked at by itself."""

    profile: Profile
    stages: tuple[Stage, ...]
    image: ImageSite | None = None


@dataclass(frozen=True)
class Seen:
    """One image on one node. named: the image that the site's reference means there, None where it means none.

    troubles: what could not be read, by the id of the finding that it concerns.
    """

    node: Node
    image: ImageFacts | None
    named: ImageFacts | None
    files: FilesCheck | None
    troubles: dict[str, str]


def judge_image(wanted: Wanted, seen: Seen) -> list[Finding]:
    """Every finding about one image on one node, in the order in which they rest on each other."""
    found = list(_identity(wanted, seen))
    if seen.image is None:
        return found
    found += _base(wanted, seen, seen.image)
    if not any(finding.id == "image.base" and finding.status == "fail" for finding in found):
        found += _stages(wanted, seen, seen.image)
        found += _files(seen, seen.image)
    return found


def _identity(wanted: Wanted, seen: Seen) -> Iterator[Finding]:
    title = "The image is on the node"
    site = wanted.image
    if "image.present" in seen.troubles:
        yield finding_of(seen.node, "image.present", "unknown", title, seen.troubles["image.present"])
    elif seen.image is None:
        text = f"{site.id[:19]} is not there" if site else "no such image"
        yield finding_of(seen.node, "image.present", "fail", title, text, remedy=rebuild(wanted.profile))
    else:
        yield finding_of(seen.node, "image.present", "ok", title, f"{seen.image.id[:19]}")
    if site is None:
        return
    title = "The name means the site's image"
    if seen.named is not None and seen.named.id != site.id:
        text = f"{site.reference} is {seen.named.id[:19]} on the node: the tag was moved"
        yield finding_of(
            seen.node,
            "image.moved_tag",
            "fail",
            title,
            text,
            expected=f"{site.id[:19]}, as the site says",
            remedy=Remedy(
                text="Find out who built or pulled under this name; remove the name there, or correct image.id of the "
                "site. Nothing is renamed by itself.",
                remedy_class="M",
            ),
        )
    elif seen.image is not None:
        text = f"{site.reference}" if seen.named is not None else f"no image is named {site.reference}; the id counts"
        yield finding_of(seen.node, "image.moved_tag", "ok", title, text)


def _base(wanted: Wanted, seen: Seen, image: ImageFacts) -> Iterator[Finding]:
    """Which release it is, by the labels that are part of its id."""
    title, profile = "It is this profile's release", wanted.profile
    release = f"{profile.image.release.distribution} {profile.vllm} for {profile.architecture}"
    if image.label("lock") is None:
        text = "the image carries no lock: it was not made by `dspark-ops image build`"
        yield finding_of(seen.node, "image.base", "fail", title, text, expected=release, remedy=rebuild(wanted.profile))
        return
    theirs = (image.label("release"), image.label("vllm"), image.label("python-digest"), image.label("lane"))
    ours = (
        profile.image.release.distribution,
        profile.vllm,
        profile.image.release.python_digest,
        profile.image.lane,
    )
    architecture = "aarch64" if image.architecture == "arm64" else "x86_64"
    if theirs != ours or architecture != profile.architecture:
        text = f"a foreign base: {theirs[0]} {theirs[1]} for {architecture}, stages of lane {theirs[3]}"
        if theirs[:2] == ours[:2] and theirs[2] != ours[2]:
            text += f", Python files {str(theirs[2])[:12]} instead of {ours[2][:12]}"
        expected = f"{release}, stages of lane {profile.image.lane}"
        yield finding_of(
            seen.node, "image.base", "fail", title, text, expected=expected, remedy=rebuild(wanted.profile)
        )
    elif image.label("contents") != "full":
        text = f"it holds {image.label('contents')} only, which cannot serve"
        yield finding_of(seen.node, "image.base", "warn" if wanted.image is None else "fail", title, text)
    else:
        lock = image.label("lock")
        yield finding_of(seen.node, "image.base", "ok", title, f"{release}, lock {lock}")


def _stages(wanted: Wanted, seen: Seen, image: ImageFacts) -> Iterator[Finding]:
    title = "Every stage is in it"
    ids = [stage.id for stage in wanted.stages]
    labelled = (image.label("stages") or "").split(",")
    inside = [stage.id for stage in seen.files.stages] if seen.files else labelled
    absent = [stage for stage in ids if stage not in labelled or stage not in inside]
    expected = f"stages {', '.join(i.upper() for i in ids)}"
    if absent:
        names = {stage.id: stage.title for stage in wanted.stages}
        told = " and ".join(names[i] for i in absent)
        yield finding_of(
            seen.node,
            "image.stages",
            "fail",
            title,
            f"missing: {told}",
            expected=expected,
            remedy=rebuild(wanted.profile),
        )
        return
    digest = wanted.stages[-1].digest
    if image.label("stage-digest") != digest:
        text = f"stages {str(image.label('stage-digest'))[:12]}, built by {image.label('built-by')}"
        told = f"{digest[:12]}, as this installation has them"
        yield finding_of(seen.node, "image.stages", "warn", title, text, expected=told, remedy=rebuild(wanted.profile))
    else:
        yield finding_of(seen.node, "image.stages", "ok", title, f"{expected}, {digest[:12]}")


def _files(seen: Seen, image: ImageFacts) -> Iterator[Finding]:
    title = "Every file is as it was built"
    files = seen.files
    if files is None:
        why = seen.troubles.get("image.files", "not looked at")
        yield finding_of(seen.node, "image.files", "unknown", title, why)
        return
    wrong = [f"{item.path} has {item.observed[:12]}, expected {item.expected[:12]}" for item in files.differing]
    wrong += [f"{path} is missing" for path in files.missing]
    wrong += [f"{path} was added" for path in files.added]
    total = files.differing_count + files.missing_count + files.added_count
    if files.manifest_sha256 != image.label("manifest"):
        text = f"the list of sealed files has {files.manifest_sha256[:12]}, the image's label {image.label('manifest')}"
        yield finding_of(seen.node, "image.files", "fail", title, text, remedy=remove_there(image.id))
    elif total:
        more = f" and {total - 3} more" if total > 3 else ""
        yield finding_of(
            seen.node, "image.files", "fail", title, "; ".join(wrong[:3]) + more, remedy=remove_there(image.id)
        )
    else:
        left = f", {files.not_hashed} others are there (not hashed)" if files.not_hashed else ""
        yield finding_of(seen.node, "image.files", "ok", title, f"{files.files} files{left}")
