"""The file: whole lines, readable wherever the run was ended, partial without an end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dspark_ops.bench.predictable import PredictableFlag
from dspark_ops.bench.records import (
    DEFINITIONS,
    Block,
    End,
    Header,
    Line,
    RunWriter,
    Server,
    WarmUp,
    read_run,
)
from dspark_ops.errors import ConfigError, NoVerdictError
from tests.unit.bench.answers import counters, failed_answer, made_sample
from tests.unit.bench.harness import small

AT = datetime(2026, 1, 2, 3, tzinfo=UTC)
HEADER = Header(
    run_id="r1",
    began=AT,
    tool="dspark-ops 0",
    servers=(Server(base_url="http://127.0.0.1:8000", model="m", flags=("--tp", "2")),),
    plan=small(),
    definitions=DEFINITIONS,
    prompts=(),
)
BLOCK = Block(
    index=3,
    round=0,
    content_class="prose",
    concurrency=1,
    cache="cold",
    load="closed",
    began=AT,
    began_s=1.0,
    ended_s=20.0,
    wall_s=6.5,
    requests=2,
    before=counters(),
    after=counters(at_s=20.0),
    state="sound",
    predictable=PredictableFlag(predictable=False),
)
END = End(at=AT, reason="done", blocks_planned=1, blocks_run=1, elapsed_s=21.0)
LINES: tuple[Line, ...] = (
    HEADER,
    WarmUp(at_s=0.0, rates=(1.0,), stable=True, why="so"),
    made_sample(),
    made_sample(failed_answer(), number=1),
    BLOCK,
    END,
)


def _written(path: Path, lines: tuple[Line, ...] = LINES) -> bytes:
    with RunWriter(path) as writer:
        for line in lines:
            writer.write(line)
    return path.read_bytes()


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.jsonl"
    data = _written(path)
    run = read_run(path)
    assert (run.header, *run.warm_ups, *run.samples, *run.blocks, run.end) == LINES
    assert (run.partial, run.partial_reason, run.torn) == (False, None, False)
    assert data.count(b"\n") == len(LINES)
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_cut_anywhere_is_readable_and_partial(tmp_path: Path) -> None:
    data = _written(tmp_path / "whole.jsonl")
    header = data.index(b"\n") + 1
    path = tmp_path / "cut.jsonl"
    # Every byte near the ends of lines, where it matters, and a sample of the others.
    ends = [i for i, byte in enumerate(data) if byte == 10]
    places = {end + offset for end in ends for offset in (-1, 0, 1, 2)} | set(range(header, len(data), 97))
    for place in sorted(place for place in places if header <= place < len(data)):
        path.write_bytes(data[:place])
        run = read_run(path)
        assert run.partial
        assert run.end is None
        assert run.partial_reason is not None
        assert run.torn == (data[place - 1] != 10)
        assert len(run.samples) + len(run.blocks) + len(run.warm_ups) == data[:place].count(b"\n") - 1


def test_samples_of_an_unfinished_or_void_block_are_not_used(tmp_path: Path) -> None:
    _written(tmp_path / "a.jsonl", LINES[:4])
    assert len(read_run(tmp_path / "a.jsonl").samples) == 2
    assert read_run(tmp_path / "a.jsonl").used_samples() == ()
    _written(tmp_path / "b.jsonl", (*LINES[:4], BLOCK.model_copy(update={"state": "void"})))
    assert read_run(tmp_path / "b.jsonl").used_samples() == ()
    _written(tmp_path / "c.jsonl")
    used = read_run(tmp_path / "c.jsonl").used_samples()
    assert [sample.outcome for sample in used] == ["valid", "failed"]


def test_a_run_that_its_budget_ended_is_partial_too(tmp_path: Path) -> None:
    end = END.model_copy(update={"reason": "budget", "blocks_planned": 9})
    _written(tmp_path / "a.jsonl", (*LINES[:5], end))
    run = read_run(tmp_path / "a.jsonl")
    assert run.partial
    assert "1 of 9" in str(run.partial_reason)


def test_a_new_run_is_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    data = _written(path)
    with pytest.raises(ConfigError, match="exists"):
        RunWriter(path)
    assert path.read_bytes() == data


def test_a_line_damaged_in_the_middle_is_not_passed_over(tmp_path: Path) -> None:
    lines = _written(tmp_path / "a.jsonl").splitlines(keepends=True)
    path = tmp_path / "b.jsonl"
    path.write_bytes(b"".join([lines[0], lines[1][:20] + b"\n", *lines[2:]]))
    with pytest.raises(NoVerdictError, match="line 2 is not JSON"):
        read_run(path)
    path.write_bytes(b"".join([lines[0], lines[1].replace(b'"stable"', b'"stabel"'), *lines[2:]]))
    with pytest.raises(NoVerdictError, match="line 2: stab"):
        read_run(path)
    path.write_bytes(lines[0] + b'{"record":"new"}\n')
    with pytest.raises(NoVerdictError, match="'new' is not known"):
        read_run(path)


@pytest.mark.parametrize("text", [b"", b"{}\n", b"[]\n", b"\x00\xff\n", b'{"record": "header"}'])
def test_what_is_no_run_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(text)
    with pytest.raises(NoVerdictError):
        read_run(path)
    with pytest.raises(ConfigError):
        read_run(tmp_path / "none.jsonl")


def test_two_runs_in_one_file_are_refused(tmp_path: Path) -> None:
    data = _written(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_bytes(data + data)
    with pytest.raises(NoVerdictError, match="more than one run"):
        read_run(tmp_path / "b.jsonl")


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    import os

    writer = RunWriter(tmp_path / "a.jsonl")
    handle = writer._handle
    assert handle is not None
    os.dup2(os.open(full, os.O_WRONLY), handle)
    with pytest.raises(NoVerdictError, match="cannot be written any more"):
        writer.write(HEADER)
    writer.close()
    with pytest.raises(NoVerdictError, match="closed"):
        writer.write(HEADER)


def test_what_is_unknown_stays_unknown(tmp_path: Path) -> None:
    _written(tmp_path / "a.jsonl")
    failed = read_run(tmp_path / "a.jsonl").samples[1]
    assert (failed.n, failed.decode_rate, failed.correct, failed.cached_tokens) == (None, None, None, None)
    assert read_run(tmp_path / "a.jsonl").header.plan.mixed_at is None  # the plan's None is not its default


@pytest.mark.parametrize(
    ("lines", "said"),
    [(LINES[:4], "before its first block was whole"), (LINES[:5], "after 1 whole block:")],
)
def test_how_far_an_interrupted_run_came_is_said_in_words(tmp_path: Path, lines: tuple[Line, ...], said: str) -> None:
    _written(tmp_path / "a.jsonl", lines)
    assert said in str(read_run(tmp_path / "a.jsonl").partial_reason)
