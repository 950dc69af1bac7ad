"""/proc/meminfo of the nodes: the limit of the node, else a GB10's total, and what is used comes off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def parsed(text: str) -> dict[str, int]:
    return {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()}


def test_an_idle_node_without_a_limit_shows_a_gb10s_total_and_about_118_gib_available() -> None:
    import memory

    figures = parsed(memory.render(used_kib=0, cache_kib=0, claimed_kib=0))
    assert figures["MemTotal"] == 127_600_748
    assert 117 < figures["MemAvailable"] / 2**20 < 119


def test_a_node_with_a_limit_shows_the_limit_and_all_of_it_is_available() -> None:
    import memory

    figures = parsed(memory.render(used_kib=2**20, cache_kib=2**19, claimed_kib=0, limit_kib=9 * 2**20))
    assert (figures["MemTotal"], figures["MemAvailable"]) == (9 * 2**20, 8 * 2**20)
    assert figures["MemFree"] == 8 * 2**20 - 2**19


@pytest.mark.parametrize(
    ("name", "text", "kib"),
    [
        ("memory.limit_in_bytes", "9663676416\n", 9 * 2**20),
        ("memory.limit_in_bytes", "9223372036854771712\n", None),
        ("memory.max", "9663676416\n", 9 * 2**20),
        ("memory.max", "max\n", None),
        ("nothing", "", None),
    ],
)
def test_the_limit_is_read_from_either_cgroup_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, kib: int | None
) -> None:
    import memory

    monkeypatch.setattr(memory, "_V1", tmp_path)
    monkeypatch.setattr(memory, "_V2", tmp_path)
    (tmp_path / name).write_text(text)
    assert memory.cgroup_limit_kib() == kib


def test_use_and_claims_come_off_and_never_go_below_zero() -> None:
    import memory

    idle = parsed(memory.render(used_kib=0, cache_kib=0, claimed_kib=0))["MemAvailable"]
    busy = parsed(memory.render(used_kib=2**20, cache_kib=0, claimed_kib=2**21))["MemAvailable"]
    assert idle - busy == 3 * 2**20
    over = parsed(memory.render(used_kib=0, cache_kib=2**20, claimed_kib=2**28))
    assert over["MemAvailable"] == over["MemFree"] == 0


def test_the_text_never_changes_its_length_so_a_write_in_place_is_whole() -> None:
    import memory

    few = memory.render(used_kib=1, cache_kib=1, claimed_kib=0)
    many = memory.render(used_kib=99_999_999, cache_kib=12_345, claimed_kib=77)
    assert len(few) == len(many)


def test_a_claim_counts_while_its_process_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import memory

    monkeypatch.setattr(memory, "CLAIMS", tmp_path)
    (tmp_path / str(os.getpid())).write_text("512\n")
    (tmp_path / "4194399").write_text("4096\n")
    (tmp_path / "notes.txt").write_text("1")
    assert memory.claims_mib() == {os.getpid(): 512}
    assert not (tmp_path / "4194399").exists()
