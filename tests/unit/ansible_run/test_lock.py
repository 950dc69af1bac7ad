"""One verb at a time per site."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dspark_ops.ansible_run.lock import inherited_descriptors, site_lock
from dspark_ops.errors import NoVerdictError, RefusedError

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


def test_a_lock_that_becomes_free_meanwhile_is_taken_by_who_waits(state: Path) -> None:
    script = HOLDER.replace("time.sleep(60)", "child.kill(); child.wait(); time.sleep(0.5)")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        waited: list[str] = []
        with site_lock("desk", wait_s=20, on_wait=waited.append):
            assert holder.wait(10) == 0
    assert waited in ([], [f"waiting for pid {holder.pid} (dspark-ops deploy), which works on site 'desk'"])


def test_the_lock_of_a_killed_holder_is_free_at_once(state: Path) -> None:
    script = HOLDER.replace("print(child.pid", "child.kill(); child.wait(); print(child.pid")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(RefusedError, match=f"pid {holder.pid} "), site_lock("desk", wait_s=0):
            pytest.fail("two holders")
        holder.kill()
        holder.wait(10)
        with site_lock("desk", wait_s=0, verb="start"):
            assert json.loads((state / "locks/desk.lock").read_text()) == {"pid": os.getpid(), "verb": "start"}


def test_a_lock_file_with_anything_in_it_is_a_lock(state: Path) -> None:
    """A crash may have left half a line: it is no holder's name, and the kernel's word counts."""
    (state / "locks").mkdir(parents=True)
    (state / "locks/desk.lock").write_text('{"pid": ')
    with site_lock("desk", wait_s=0):
        pass


def test_locks_that_cannot_be_kept_are_no_verdict(state: Path) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_text("a file")
    with pytest.raises(NoVerdictError, match=r"desk\.lock cannot be opened"), site_lock("desk"):
        pytest.fail("no lock was taken")


def test_a_name_cannot_leave_the_directory(state: Path) -> None:
    with pytest.raises(ValueError, match="lock name"), site_lock("../x"):
        pass
