"""What a rank's container must be: the comparison and the argument list, without a docker."""

from __future__ import annotations

import csv
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.roles.conftest import PLAYBOOKS, load

rules = load(PLAYBOOKS / "module_utils" / "dspark_container_rules.py", "container_rules")

LABELS = {
    "io.dspark-ops.site": "desk",
    "io.dspark-ops.release": "r-1",
    "io.dspark-ops.epoch": "e-1",
    "io.dspark-ops.spec": "abc",
}
SPEC: dict[str, Any] = {"name": "dspark-rank", "image_id": "sha256:1", "command": ["vllm", "serve"], "labels": LABELS}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def container(**changes: Any) -> Any:
    given = {"id": "c1", "state": "running", "running": True, "exit_code": 0, "image_id": "sha256:1", "labels": LABELS}
    return rules.Container(**{**given, **changes})


def relabelled(**labels: str) -> Any:
    return container(labels={**LABELS, **{f"io.dspark-ops.{key}": value for key, value in labels.items()}})


def arguments(**more: Any) -> list[str]:
    found: list[str] = rules.create_arguments({**SPEC, **more})
    return found


def values(args: list[str], option: str) -> list[str]:
    return [args[i + 1] for i, word in enumerate(args[: args.index("--entrypoint")]) if word == option]


def test_the_same_labels_and_image_running_is_no_change() -> None:
    for state in ("started", "matching"):
        assert rules.decide(state, SPEC, container()).steps == ()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (relabelled(spec="old"), "spec: old instead of abc"),
        (relabelled(epoch="e-0"), "epoch: e-0 instead of e-1"),
        (relabelled(release="r-0"), "release: r-0 instead of r-1"),
        (container(image_id="sha256:2"), "image: sha256:2 instead of sha256:1"),
        (container(running=False, state="exited", exit_code=137), "does not run (exited, exit code 137)"),
        (container(labels={"io.dspark-ops.site": "desk"}), "spec: none instead of abc"),
    ],
)
def test_any_difference_replaces_it_and_is_named(found: Any, reason: str) -> None:
    stop = ("stop",) if found.running else ()
    decision = rules.decide("started", SPEC, found)
    assert decision.steps == (*stop, "remove", "create", "start")
    assert reason in decision.reason
    assert rules.decide("matching", SPEC, found).steps == (*stop, "remove")


@pytest.mark.parametrize("state", ["started", "stopped", "absent", "matching"])
@pytest.mark.parametrize("labels", [{}, {"com.docker.compose.project": "x"}, {**LABELS, "io.dspark-ops.site": "lab"}])
def test_what_is_not_our_sites_is_refused_whatever_is_wanted(state: str, labels: dict[str, str]) -> None:
    decision = rules.decide(state, SPEC, container(labels=labels))
    assert (decision.foreign, decision.steps) == (True, ())
    assert ("site 'lab'" if "io.dspark-ops.site" in labels else "somebody else") in decision.reason


def test_what_is_foretold_is_what_an_inspection_then_says() -> None:
    """Check mode's prediction has the shape and values of the container that the steps make."""
    started = rules.decide("started", SPEC, None)
    assert rules.predict(None, SPEC, started.steps) == rules.describe(container())
    absent = rules.decide("absent", SPEC, container())
    assert rules.predict(container(), SPEC, absent.steps) == rules.describe(None)
    stopped = rules.decide("stopped", SPEC, container())
    assert rules.predict(container(), SPEC, stopped.steps) == rules.describe(container(state="exited"))


def test_a_container_without_labels_is_read() -> None:
    """Docker says null, not an empty map."""
    state = {"Status": "exited", "Running": False, "ExitCode": 1}
    found = rules.parse_inspect({"Id": "c", "Image": "i", "Config": {"Labels": None}, "State": state})
    assert (found.labels, found.site, found.exit_code) == ({}, None, 1)


@pytest.mark.parametrize("missing", ["name", "image_id", "command", "labels"])
def test_a_spec_that_lacks_something_is_told(missing: str) -> None:
    assert rules.spec_problems(SPEC) == []
    problems = rules.spec_problems({**SPEC, missing: None})
    assert f"the spec has no {missing!r}" in problems
    without = {key: value for key, value in LABELS.items() if key != "io.dspark-ops.epoch"}
    assert rules.spec_problems({**SPEC, "labels": without}) == ["the spec has no label 'io.dspark-ops.epoch'"]


def test_a_rank_never_comes_back_by_itself_and_is_never_pulled() -> None:
    args = arguments(restart="always")
    assert values(args, "--restart") == ["no"]
    assert values(args, "--pull") == ["never"]


def test_limits_devices_and_memory() -> None:
    args = arguments(
        ulimits={"stack": 67108864, "memlock": -1}, devices=["/dev/infiniband"], cap_add=["IPC_LOCK"], shm_size_bytes=1
    )
    assert values(args, "--ulimit") == ["memlock=-1:-1", "stack=67108864:67108864"]
    assert values(args, "--device") == ["/dev/infiniband"]
    assert values(args, "--cap-add") == ["IPC_LOCK"]
    assert values(args, "--shm-size") == ["1"]
    assert values(args, "--gpus") == []
    # The host's shared memory has the host's size: docker refuses the two together.
    assert values(arguments(shm_size_bytes=1, ipc="host"), "--shm-size") == []


@given(env=st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), TEXT), words=st.lists(TEXT))
def test_environment_and_command_arrive_as_they_are(env: dict[str, str], words: list[str]) -> None:
    """Blanks, quotes, equals signs, newlines and leading dashes: each value is one argument, unchanged."""
    args = arguments(env=env, command=["vllm", *words])
    assert dict(value.split("=", 1) for value in values(args, "--env")) == env
    assert args[args.index("--entrypoint") :] == ["--entrypoint", "vllm", "sha256:1", *words]


@pytest.mark.parametrize("source", ["/data", "/data with, comma", '/data "quoted"', "/a:b"])
def test_a_mount_is_one_line_of_csv(source: str) -> None:
    """As docker reads it: a comma in a path must not start another option."""
    args = arguments(mounts=[{"source": source, "target": "/m", "read_only": True}, {"source": source, "target": "/n"}])
    lines = [next(csv.reader([text])) for text in values(args, "--mount")]
    assert lines == [
        ["type=bind", f"source={source}", "target=/m", "readonly"],
        ["type=bind", f"source={source}", "target=/n"],
    ]
