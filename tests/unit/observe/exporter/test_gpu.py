"""Power and load, and whose process holds the GPU."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dspark_ops.observe.exporter import gpu
from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.polling import SourceError
from dspark_ops.observe.exporter.tree import Tree
from tests.unit.observe.exporter import trees


def answer(text: str) -> gpu.Run:
    return lambda _argv: text


def holders(root: Path, processes: str, words: Sequence[str] = trees.RANK_ARGUMENTS) -> dict[str, float]:
    into = Families()
    gpu.export_holders(Tree(root), answer(processes), words, into)
    return {key[0]: value for key, value in into.values["dspark_gpu_holders"].items()}


def test_a_wedge_shows_as_load_without_power() -> None:
    into = Families()
    gpu.export_state(answer("0, 15.80, 96, 62, 650\n"), into)
    assert into.values["dspark_gpu_power_watts"]["0",] == 15.8
    assert into.values["dspark_gpu_utilization_ratio"]["0",] == 0.96


def test_what_the_driver_does_not_say_makes_no_sample() -> None:
    into = Families()
    gpu.export_state(answer("0, [N/A], 96, 62, [Unknown Error]\n"), into)
    assert "dspark_gpu_power_watts" not in into.values
    assert "dspark_gpu_sm_clock_hertz" not in into.values
    assert into.values["dspark_gpu_temperature_celsius"]["0",] == 62


@pytest.mark.parametrize("text", ["", "No devices were found\n"])
def test_no_gpu_is_a_source_that_is_down(text: str) -> None:
    with pytest.raises(SourceError, match="no GPU"):
        gpu.export_state(answer(text), Families())


def test_the_worker_process_is_ours_by_its_container(tmp_path: Path) -> None:
    """Its own argument list is a title; the words of the rank are in its parent's, in the same container."""
    trees.host(tmp_path)
    assert holders(tmp_path, "412233, VLLM::Worker_TP0\n") == {"ours": 1, "foreign": 0}


def test_others_are_foreign_also_an_engine_of_somebody_elses(tmp_path: Path) -> None:
    trees.host(tmp_path)
    trees.process(tmp_path, 198_811, ["/opt/llama.cpp/llama-server"], "0::/user.slice\n")
    other = f"0::/system.slice/docker-{trees.OTHER_CONTAINER}.scope\n"
    trees.process(tmp_path, 201_334, ["vllm", "serve", "--node-rank=0"], other)
    processes = "412233, VLLM::Worker_TP0\n198811, /opt/llama.cpp/llama-server\n201334, python3\n"
    assert holders(tmp_path, processes) == {"ours": 1, "foreign": 2}


def test_a_free_gpu_has_no_holders_which_is_a_real_zero(tmp_path: Path) -> None:
    trees.host(tmp_path)
    assert holders(tmp_path, "") == {"ours": 0, "foreign": 0}


def test_a_process_that_ended_meanwhile_is_nobodys(tmp_path: Path) -> None:
    trees.host(tmp_path)
    assert holders(tmp_path, "999999, gone\n") == {"ours": 0, "foreign": 0}


def test_a_process_that_cannot_be_looked_at_is_not_guessed_about(tmp_path: Path) -> None:
    trees.host(tmp_path)
    (tmp_path / "proc/198811").mkdir(parents=True)
    with pytest.raises(SourceError, match="cannot be looked at"):
        holders(tmp_path, "198811, hidden\n")


def test_without_words_nothing_is_ours(tmp_path: Path) -> None:
    trees.host(tmp_path)
    assert holders(tmp_path, "412233, VLLM::Worker_TP0\n", ()) == {"ours": 0, "foreign": 1}


class TestRun:
    def test_a_program_that_hangs_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "TIMEOUT_S", 0.2)
        with pytest.raises(SourceError, match=r"took more than 0\.2 s"):
            gpu.run([sys.executable, "-c", "import time; time.sleep(60)"])

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            ([sys.executable, "-c", "raise SystemExit(9)"], "ended with 9"),
            (["/nonexistent/nvidia-smi"], "No such file"),
        ],
    )
    def test_a_program_that_fails_is_said(self, argv: list[str], message: str) -> None:
        with pytest.raises(SourceError, match=message):
            gpu.run(argv)
