"""One verb at a time per site."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dspark_ops.ansible_run.lock import inherited_descriptors, site_lock
from dspark_ops.errors import RefusedError

HOLDER = textwrap.dedent(
    """
    import subprocess, sys, time
    from dspark_ops.ansible_run.lock import inherited_descriptors, site_lock
    with site_lock("desk", verb="deploy"):
        child = subprocess.Popen(["sleep", "60"], pass_fds=inherited_descriptors(), stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
        time.sleep(60)
    """
)


def test_a_second_verb_is_refused_with_the_holders_name(state: Path) -> None:
    waited: list[str] = []
    with site_lock("desk", verb="deploy"):
        assert len(inherited_descriptors()) == 1
        with pytest.raises(RefusedError) as refusal, site_lock("desk", wait_s=0.3, on_wait=waited.append):
            pytest.fail("two holders")
        with site_lock("other", wait_s=0):
            pass
    assert f"pid {os.getpid()} (dspark-ops deploy)" in refusal.value.message
    assert len(waited) == 1
    assert inherited_descriptors() == ()
    with site_lock("desk", wait_s=0):
        pass


def test_a_survivor_of_a_killed_verb_keeps_the_lock_until_it_ends(state: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    survivor = int(holder.stdout.readline())
    try:
        holder.kill()
        holder.wait(10)
        with pytest.raises(RefusedError) as refusal, site_lock("desk", wait_s=0):
            pytest.fail("the survivor still works")
        assert "itself gone" in refusal.value.message
    finally:
        os.kill(survivor, 9)
    with site_lock("desk", wait_s=10):
        pass


def test_a_name_cannot_leave_the_directory(state: Path) -> None:
    with pytest.raises(ValueError, match="lock name"), site_lock("../x"):
        pass
