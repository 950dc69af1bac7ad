"""A container may be started on a node only to look into an image, in exactly one shape."""

from __future__ import annotations

import pytest

from dspark_ops.images.inspection import look_command
from dspark_ops.transport.base import Command
from dspark_ops.transport.readonly import ReadOnlyViolationError, assert_read_only

IMAGE = "sha256:" + "a" * 64
GOOD = ("docker", *look_command(IMAGE, "files_check.py", "--quick"))


def test_a_look_passes() -> None:
    assert_read_only([Command("x", GOOD), Command("y", ("docker", *look_command(IMAGE, "engine_check.py", "{}")))])


@pytest.mark.parametrize(
    "argv",
    [
        ("docker", "run", IMAGE),
        tuple(word for word in GOOD if word != "--network=none"),
        tuple(word for word in GOOD if word != "--read-only"),
        tuple(word for word in GOOD if word != "--rm"),
        tuple("--network=host" if word == "--network=none" else word for word in GOOD),
        (*GOOD[:2], "--privileged", *GOOD[2:]),
        (*GOOD[:12], "--volume=/:/host", *GOOD[12:]),
        tuple("engine:latest" if word == IMAGE else word for word in GOOD),
        tuple("/bin/sh" if word.endswith("files_check.py") else word for word in GOOD),
        tuple("-c" if word == "-B" else word for word in GOOD),
        GOOD[:-3],
    ],
)
def test_any_other_shape_is_never_sent(argv: tuple[str, ...]) -> None:
    with pytest.raises(ReadOnlyViolationError, match="x"):
        assert_read_only([Command("x", argv)])
