"""Xid errors and the like, counted once each, from recorded messages and from a device that gives one record a call."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.kernel import KMSG, KernelMessages
from dspark_ops.observe.exporter.tree import Tree
from tests.unit.observe.exporter import trees

XID_79 = "NVRM: Xid (PCI:000f:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
XID_119 = (trees.GB10 / "dmesg/gsp-init-timeout.txt").read_text(encoding="utf-8").splitlines()[0]


def counts(messages: KernelMessages, name: str = "dspark_xid_total") -> dict[str, float]:
    into = Families()
    messages.read(into)
    return {key[0]: value for key, value in into.values[name].items()}


def test_a_healthy_boot_has_every_fatal_code_at_zero(tmp_path: Path) -> None:
    """So that the first error is an increase, and not a series that begins."""
    trees.host(tmp_path)
    assert counts(KernelMessages(Tree(tmp_path))) == dict.fromkeys(["48", "79", "94", "95", "119", "140", "154"], 0.0)


def test_both_spellings_of_the_driver_are_known(tmp_path: Path) -> None:
    trees.write(tmp_path, KMSG, trees.kmsg(f"{XID_79}\n{XID_119}\nNVRM: Xid (PCI:000f:01:00): 13, pid=1\n"))
    found = counts(KernelMessages(Tree(tmp_path)))
    assert (found["79"], found["119"], found["13"], found["48"]) == (1, 1, 1, 0)


def test_messages_are_counted_once_and_new_ones_are_added(tmp_path: Path) -> None:
    trees.write(tmp_path, KMSG, trees.kmsg(XID_79))
    messages = KernelMessages(Tree(tmp_path))
    assert counts(messages)["79"] == 1
    assert counts(messages)["79"] == 1
    with (tmp_path / KMSG.lstrip("/")).open("a", encoding="utf-8") as log:
        log.write(trees.kmsg(XID_79, first=1))
    assert counts(messages)["79"] == 2


def test_a_ring_that_is_opened_again_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.write(tmp_path, KMSG, trees.kmsg(f"{XID_79}\n{XID_79}\n"))
    messages = KernelMessages(Tree(tmp_path))
    assert counts(messages)["79"] == 2
    with monkeypatch.context() as broken:
        broken.setattr(os, "read", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "gone")))
        with pytest.raises(OSError, match="gone"):
            messages.read(Families())
    assert counts(messages)["79"] == 2


def test_what_was_overwritten_is_told_as_lost(tmp_path: Path) -> None:
    trees.write(tmp_path, KMSG, trees.kmsg("first", first=10) + trees.kmsg("later", first=15))
    messages = KernelMessages(Tree(tmp_path))
    assert counts(messages, "dspark_kernel_event_total")["oom_kill"] == 0
    into = Families()
    messages.read(into)
    assert into.values["dspark_kernel_messages_lost_total"][()] == 4


def test_a_device_gives_records_and_says_when_it_has_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As /dev/kmsg: one record a call, EPIPE for a lost place, EAGAIN at the end."""
    records = [line.encode() + b"\n" for line in trees.kmsg(f"{XID_79}\n{XID_79}").splitlines()]
    answers: list[bytes | OSError] = [records[0] + records[1], OSError(errno.EPIPE, "lost"), records[2] + records[3]]

    def read(_file: int, _size: int) -> bytes:
        if not answers:
            raise BlockingIOError
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    trees.write(tmp_path, KMSG, "")
    messages = KernelMessages(Tree(tmp_path))
    monkeypatch.setattr(os, "read", read)
    assert counts(messages)["79"] == 2


def test_what_a_program_wrote_into_the_ring_is_no_error_of_the_gpu(tmp_path: Path) -> None:
    trees.write(tmp_path, KMSG, f"12,1,1,-;{XID_79}\n")
    assert counts(KernelMessages(Tree(tmp_path)))["79"] == 0


def test_other_events(tmp_path: Path) -> None:
    removed = (trees.GB10 / "dmesg/nic-removed.txt").read_text(encoding="utf-8")
    memory = (trees.GB10 / "dmesg/nvrm-no-memory.txt").read_text(encoding="utf-8")
    killed = "Out of memory: Killed process 4242 (vllm) total-vm:1kB"
    trees.write(tmp_path, KMSG, trees.kmsg(f"{removed}{memory}{killed}\n"))
    found = counts(KernelMessages(Tree(tmp_path)), "dspark_kernel_event_total")
    assert found["oom_kill"] == 1
    assert found["nic_removed"] >= 1
    assert found["gpu_no_memory"] >= 1
    assert found["pcie_uncorrected"] == 0


def test_messages_that_may_not_be_read_are_a_source_that_is_down(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KernelMessages(Tree(tmp_path)).read(Families())
