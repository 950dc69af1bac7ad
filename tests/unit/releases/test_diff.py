"""What differs between two releases: nothing against itself, each change once, no secret ever."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from dspark_ops.config.models import ROLES
from dspark_ops.releases.diff import SECTIONS, diff, render_diff
from dspark_ops.releases.model import EffectiveRank, HostOfRelease, ModelOfRelease, Release
from tests.unit.releases.releases import CONTAINER, document, release, releases


@settings(deadline=None, max_examples=60)
@given(releases())
def test_a_release_does_not_differ_from_itself(one: Release) -> None:
    assert diff(one, one).changes == ()


@settings(deadline=None, max_examples=100)
@given(releases(), releases())
def test_the_way_back_is_the_way_there_reversed(one: Release, other: Release) -> None:
    there, back = diff(one, other), diff(other, one)
    assert sorted(map(repr, there.changes)) == sorted(repr(change.reversed()) for change in back.changes)
    places = [SECTIONS.index(change.section) for change in there.changes]
    assert places == sorted(places)


@settings(deadline=None, max_examples=60)
@given(releases(), releases())
def test_equal_argument_lists_have_no_line_and_others_have_one(one: Release, other: Release) -> None:
    changes = diff(one, other).changes
    for role in ROLES:
        told = any(change.section == "argv" and change.role == role for change in changes)
        assert told == (one.documents[role]["command"] != other.documents[role]["command"])


def changed(**changes: object) -> Release:
    return release("r-000000000002", documents={role: document(role, **changes) for role in ROLES})


def test_one_option_that_changed_is_one_change_of_each_rank() -> None:
    command = ["vllm", "serve", "/models/m", "--max-num-seqs=8", "--node-rank=0"]
    documents = {"head": document("head", command=command), "worker": document("worker")}
    found = diff(release(), release("r-000000000002", documents=documents))
    (change,) = found.changes
    assert (change.section, change.role, change.name) == ("argv", "head", "--max-num-seqs")
    assert (change.before, change.after) == ("--max-num-seqs=4", "--max-num-seqs=8")
    text = render_diff(found)
    assert "  - head   --max-num-seqs=4\n  + head   --max-num-seqs=8" in text
    assert "equal: image, model, env" in text


def test_arguments_in_another_order_differ() -> None:
    command = ["vllm", "serve", "--max-num-seqs=4", "/models/m", "--node-rank=0"]
    assert diff(release(), changed(command=command)).changes


def test_the_way_back_is_the_same_where_there_are_two_ways_to_tell_it() -> None:
    one, other = changed(command=["c", "b", "a", "a"]), changed(command=["a", "b", "b", "c"])
    back = [change.reversed() for change in diff(other, one).changes]
    assert list(diff(one, other).changes) == back


def test_an_empty_variable_is_not_an_unset_one() -> None:
    env = {"NCCL_DEBUG": "WARN", "VLLM_HOST_IP": "10.77.0.1"}
    found = diff(release(), changed(env=env)).changes
    assert [(c.section, c.name, c.before, c.after) for c in found] == [("env", "EMPTY", "", None)] * 2


def test_a_secret_that_changed_is_told_and_not_shown() -> None:
    one, other = changed(env={"HF_TOKEN": "hf_first"}), changed(env={"HF_TOKEN": "hf_second"})
    found = diff(one, other)
    assert [change.name for change in found.changes] == ["HF_TOKEN"] * 2
    assert "hf_" not in found.model_dump_json() + render_diff(found)
    keys = [changed(command=["vllm", f"--api-key={word}"]) for word in ("sk-first", "sk-second")]
    found = diff(*keys)
    assert [change.name for change in found.changes] == ["--api-key"] * 2
    assert "sk-" not in found.model_dump_json() + render_diff(found)


def test_what_an_image_gives_by_itself_is_told_when_both_were_read_back() -> None:
    def seen(path: str, hostname: str) -> dict[str, EffectiveRank]:
        rank = EffectiveRank(container=CONTAINER, argv=("vllm",), env={"PATH": path, "HOSTNAME": hostname})
        return {"head": rank}

    found = diff(release(effective=seen("/a", "x")), release("r-000000000002", effective=seen("/b", "y")))
    assert [(c.section, c.role, c.name, c.before, c.after) for c in found.changes] == [
        ("env", "head", "PATH", "/a", "/b")
    ]
    assert diff(release(effective=seen("/a", "x")), release("r-000000000002")).changes == ()


PINNED = ModelOfRelease(path="/models/m", served_name="m", revision="b" * 40)
NEWER_KERNEL = HostOfRelease(host="spark-head", kernel="6.18", mem_total_kib=1 << 27)


@pytest.mark.parametrize(
    ("other", "section", "name"),
    [
        (release("r-000000000002", model=PINNED), "model", "revision"),
        (release("r-000000000002", site_digest="1" * 64), "site", "digest"),
        (release("r-000000000002", profile="current"), "site", "profile"),
        (release("r-000000000002", tool_version="9"), "tool", "version"),
        (release("r-000000000002", hosts={**release().hosts, "head": NEWER_KERNEL}), "host", "kernel"),
        (changed(shm_size_bytes=5), "container", "shm_size_bytes"),
    ],
)
def test_every_section_tells_its_own(other: Release, section: str, name: str) -> None:
    found = diff(release(), other).changes
    assert {(change.section, change.name) for change in found} == {(section, name)}


def test_two_equal_releases_say_so() -> None:
    assert "the same" in render_diff(diff(release(), release()))
