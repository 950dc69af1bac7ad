"""The module that drops the page cache: on a /proc of the test's, with what the real kernel answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils.dspark_memory_rules as rules  # type: ignore[import-not-found]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.roles.conftest import Call

MEMINFO = "MemTotal: 9437184 kB\nMemFree: {free} kB\nMemAvailable: 8000000 kB\nBuffers: 0 kB\nCached: {cached} kB\n"
LARGE, SMALL = 5 << 20, 100 << 10


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc whose settings are its own and whose page cache is large."""
    (tmp_path / "sys/vm").mkdir(parents=True)
    (tmp_path / "meminfo").write_text(MEMINFO.format(free=1 << 20, cached=LARGE))
    for name in ("drop_caches", "compact_memory"):
        (tmp_path / "sys/vm" / name).write_text("0")
    return tmp_path


def written(proc: Path) -> dict[str, str]:
    return {name: (proc / "sys/vm" / name).read_text() for name in ("drop_caches", "compact_memory")}


def test_a_large_cache_is_dropped_as_page_cache_alone_and_memory_is_compacted(call: Call, proc: Path) -> None:
    answer = call("dspark_memory_reclaim", patch={"PROC": proc})
    assert answer["changed"]
    assert written(proc) == {"drop_caches": "1", "compact_memory": "1"}
    assert answer["refused"] == []
    assert answer["dspark_summary"]["before"] == "1.0 GiB free, 7.6 GiB available"


def test_check_mode_foretells_and_touches_nothing(call: Call, proc: Path) -> None:
    answer = call("dspark_memory_reclaim", check=True, patch={"PROC": proc})
    assert answer["changed"]
    assert written(proc) == {"drop_caches": "0", "compact_memory": "0"}


@pytest.mark.parametrize("check", [True, False])
def test_a_small_cache_is_left_alone(call: Call, proc: Path, check: bool) -> None:
    (proc / "meminfo").write_text(MEMINFO.format(free=8 << 20, cached=SMALL))
    answer = call("dspark_memory_reclaim", check=check, patch={"PROC": proc})
    assert not answer["changed"]
    assert "nothing to gain" in answer["reason"]
    assert written(proc) == {"drop_caches": "0", "compact_memory": "0"}


def test_a_node_whose_settings_are_a_copy_is_left_alone_and_says_so(call: Call, proc: Path) -> None:
    answer = call("dspark_memory_reclaim", patch={"PROC": proc, "is_own": lambda: False})
    assert not answer["changed"]
    assert "rehearsal" in answer["reason"]
    assert written(proc) == {"drop_caches": "0", "compact_memory": "0"}


def test_a_kernel_that_refuses_is_reported_and_no_failure(call: Call, proc: Path) -> None:
    for name in ("drop_caches", "compact_memory"):
        (proc / "sys/vm" / name).unlink()
        (proc / "sys/vm" / name).mkdir()  # writing it is an error for root too
    answer = call("dspark_memory_reclaim", patch={"PROC": proc})
    assert not answer.get("failed")
    assert not answer["changed"]
    assert len(answer["refused"]) == 2


def test_unreadable_figures_change_nothing(call: Call, proc: Path) -> None:
    (proc / "meminfo").unlink()
    answer = call("dspark_memory_reclaim", patch={"PROC": proc})
    assert not answer["changed"]
    assert "does not say" in answer["reason"]


def test_shared_and_dirty_pages_are_not_droppable() -> None:
    figures: dict[str, int] = {"Cached": 1000, "Buffers": 100, "Shmem": 300, "Dirty": 50}
    assert rules.droppable_kib(figures) == 750
    assert rules.droppable_kib({}) is None


@settings(deadline=None)
@given(st.text())
def test_any_text_is_figures_or_none(text: str) -> None:
    found: dict[str, Any] = rules.figures(text)
    assert all(isinstance(kib, int) for kib in found.values())
    assert rules.decide(found, 1, True)[1]
