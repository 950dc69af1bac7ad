"""The node's end of an image transfer: one at a time in the spool, no other image's leftovers, what docker said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.roles.conftest import PLAYBOOKS, load

node = load(PLAYBOOKS / "module_utils/dspark_image_node.py", "dspark_image_node")
OnPath = Callable[[str, str], None]


def test_the_spool_is_private_keeps_its_own_image_and_drops_others(tmp_path: Path) -> None:
    base = tmp_path / "spool"
    for name in ("mine", "other"):
        with node.spool(base, name) as folder:
            (folder / "layer.part").write_text(name)
            assert folder.stat().st_mode & 0o777 == base.stat().st_mode & 0o777 == 0o700
    with node.spool(base, "other") as folder:
        assert (folder / "layer.part").read_text() == "other"
    assert [path.name for path in base.iterdir() if path.is_dir()] == ["other"]


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    with (
        node.spool(tmp_path, "a") as folder,
        pytest.raises(node.NodeError, match=r"\[image.sync_busy\]"),
        node.spool(tmp_path, "b", wait_s=0.1),
    ):
        pass
    assert folder.is_dir()
    with node.spool(tmp_path, "b", wait_s=0.1):
        pass


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    node.require_space(tmp_path / "not" / "yet", 1, "a test")
    with pytest.raises(node.NodeError, match=r"needs up to .* nothing was written \[image.disk_space\]"):
        node.require_space(tmp_path / "not" / "yet", 1 << 60, "a test")


def test_a_load_that_fails_says_what_the_engine_said_even_if_it_did_not_read(on_path: OnPath) -> None:
    on_path("docker", "sys.stderr.write('open layer.tar: no such file or directory\\n'); sys.exit(1)")
    with pytest.raises(node.NodeError, match=r"kept nothing: open layer.tar: no such file .*\[image.load\]"):
        node.stream_in(["load"], lambda out: out.write(bytes(1 << 22)), 10)


def test_a_load_that_hangs_is_ended(on_path: OnPath) -> None:
    on_path("docker", "import time; time.sleep(60)")
    with pytest.raises(node.NodeError, match=r"did not end within 0\.5 s"):
        node.stream_in(["load"], lambda _: None, 0.5)


def test_a_name_is_absent_only_when_the_engine_says_so(on_path: OnPath) -> None:
    on_path("docker", "sys.stderr.write('Error: No such image: a:b\\n'); sys.exit(1)")
    assert node.id_of("a:b") is None
    on_path("docker", "sys.stderr.write('Cannot connect to the Docker daemon\\n'); sys.exit(1)")
    with pytest.raises(node.NodeError, match=r"Cannot connect .*\[host.docker_down\]"):
        node.id_of("a:b")
