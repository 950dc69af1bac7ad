"""Reading a log on a node: only known lines come back, in bounded time, size and memory, and a cut is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.transport import collector
from dspark_ops.transport.base import LogScan
from dspark_ops.transport.readonly import ReadOnlyViolationError, assert_read_only
from tests.unit.transport.test_collector import collect

MARKS = (("dead", "engine dead", r"engine dead at \d+"), ("born", "engine born", "engine born"))


def scan(argv: list[str], **options: Any) -> dict[str, Any]:
    probe = LogScan("log", tuple(argv), MARKS, **options).wire()
    return collector.scan_log(probe, sudo=False)


def document(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer["stdout"])
    return found


def stamped(count: int, text: str, begin: int = 0) -> str:
    """Lines a second apart, from eight o'clock on."""
    return "".join(
        f"2026-11-23T{8 + i // 3600:02d}:{i // 60 % 60:02d}:{i % 60:02d}.{0:09d}Z {text}\n"
        for i in range(begin, begin + count)
    )


def test_known_lines_are_counted_and_the_first_and_last_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(stamped(50, "engine dead at 7") + stamped(9, "nothing", 50) + stamped(1, "engine dead at noon", 59))
    found = document(scan(["cat", str(log)], keep=6))
    assert found["cut"] is None
    assert list(found["marks"]) == ["dead"]
    seen = found["marks"]["dead"]
    assert seen["count"] == 50, "words without the pattern do not count"
    assert [line[17:19] for line in (*seen["first"], *seen["last"])] == ["00", "01", "02", "47", "48", "49"]
    assert found["from"].startswith("2026-11-23T08:00:00")
    assert found["until"] == found["reached"]
    assert found["until"].startswith("2026-11-23T08:00:59")


def test_an_odd_number_keeps_one_more_of_the_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(stamped(9, "engine born"))
    seen = document(scan(["cat", str(log)], keep=3))["marks"]["born"]
    assert [len(seen["first"]), len(seen["last"])] == [2, 1]


def test_it_goes_through_the_round_trip_of_a_node(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(stamped(3, "engine born"))
    result = collect([LogScan("log", ("cat", str(log)), MARKS)]).get("log")
    assert result.ok
    assert json.loads(result.text() or "")["marks"]["born"]["count"] == 3


def test_what_is_too_large_is_cut_and_its_end_is_looked_at(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(stamped(1, "engine born") + stamped(40_000, "x" * 100, 1) + stamped(2, "engine dead at 1", 40_001))
    found = document(scan(["cat", str(log)], tail_argv=("tail", "-n", "10", str(log)), max_bytes=1 << 20))
    assert found["cut"] == "size"
    assert found["bytes"] < 3 << 20
    assert found["marks"]["born"]["count"] == 1
    assert found["marks"]["dead"]["count"] == 2
    assert found["reached"] < found["until"]


def test_lines_that_both_readings_saw_count_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(stamped(20_000, "engine dead at 1"))
    found = document(scan(["cat", str(log)], tail_argv=("cat", str(log)), max_bytes=600_000))
    assert found["cut"] == "size"
    assert found["marks"]["dead"]["count"] == 20_000


def test_a_block_that_the_time_ended_in_counts_only_when_it_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr(collector.time, "monotonic", lambda: float(next(ticks)))
    looked, block = collector.Scan([list(m) for m in MARKS], 6), stamped(9, "engine born").encode()
    assert looked.take(block, "", 5.0) is False
    assert (looked.found, looked.last) == ({}, "")
    looked.begin()
    assert looked.take(block, looked.last, float("inf"))
    assert looked.found["born"]["count"] == 9


def test_a_line_of_many_blocks_counts_once_and_keeps_its_time(tmp_path: Path) -> None:
    log, filler = tmp_path / "log", "x" * (5 << 19)
    words = "engine born "
    log.write_text(f"1795464000.5 {words}{filler}{words}{filler}{words}\n1795464001.5 {words}\n")
    found = document(scan(["cat", str(log)], tail_argv=("cat", str(log)), max_bytes=4 << 20, timeout_s=20))
    assert found["cut"] == "size"
    assert found["reached"].startswith("1795464000.5 ")
    seen = found["marks"]["born"]
    assert seen["count"] == 2
    assert [line[:13] for line in (*seen["first"], *seen["last"])] == ["1795464000.5 ", "1795464001.5 "]


def test_nothing_more_to_read_leaves_the_end_as_it_was() -> None:
    looked = collector.Scan([list(m) for m in MARKS], 6)
    looked.take(b"1795464000.5 engine born\n", "", float("inf"))
    looked.take(b"", "", float("inf"))
    assert looked.last == "1795464000.5 engine born"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([b"engine dead at 1", b"engine born", b"", b"x" * 5000])), st.integers(1, 40))
def test_lines_may_go_on_in_the_next_block(lines: list[bytes], step: int) -> None:
    data = b"".join(b"T%06d " % i + line + b"\n" for i, line in enumerate(lines))
    pieces = collector.Scan([list(m) for m in MARKS], 6)
    for at in range(0, len(data), step):
        pieces.take(data[at : at + step], "", float("inf"))
    counted = {name: seen["count"] for name, seen in pieces.found.items()}
    wanted = {"dead": lines.count(b"engine dead at 1"), "born": lines.count(b"engine born")}
    assert counted == {name: count for name, count in wanted.items() if count}


def test_what_does_not_end_is_cut_by_time() -> None:
    program = [sys.executable, "-uc", "import time\nprint('t engine born')\ntime.sleep(60)"]
    for limit_s in (1.5, 20.0):  # on a busy machine it may not have begun within the first
        found = document(scan(program, timeout_s=limit_s))
        assert found["cut"] == "time"
        if "born" in found["marks"]:
            break
    assert found["marks"]["born"]["count"] == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_line_ends_do_not_matter(tmp_path: Path, end: str) -> None:
    log = tmp_path / "log"
    log.write_bytes(f"1795464000.5 engine dead at 5{end}".encode())
    seen = document(scan(["cat", str(log)]))["marks"]["dead"]
    assert seen["first"] == ["1795464000.5 engine dead at 5"]


def test_a_line_of_megabytes_and_rubbish_do_no_harm(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"T " + b"\x00\xff\xfe" * 1_500_000 + b"engine dead at 3" + b"\n" + b"U engine born\n")
    found = document(scan(["cat", str(log)], timeout_s=10))
    assert found["marks"]["born"]["count"] == 1
    assert found["marks"]["dead"]["count"] == 1
    assert all(len(line) <= 600 for line in found["marks"]["dead"]["first"])


def test_no_more_lines_come_back_than_were_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(stamped(90, "engine born") + stamped(90, "engine dead at 1"))
    found = document(scan(["cat", str(log)], keep=40, max_lines=50))
    assert sum(len(m["first"]) + len(m["last"]) for m in found["marks"].values()) <= 50
    assert {name: mark["count"] for name, mark in found["marks"].items()} == {"dead": 90, "born": 90}


def test_no_known_line_is_lost_where_many_are_seen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(stamped(90, "engine born") + stamped(90, "engine dead at 1", begin=90))
    found = document(scan(["cat", str(log)], keep=40, max_lines=20))["marks"]
    assert all(len(mark["first"]) == len(mark["last"]) == 5 for mark in found.values()), found
    assert "T08:02:59" in found["dead"]["last"][-1], "the last line is the last that there is"


def test_a_program_that_fails_or_is_absent_is_no_log() -> None:
    missing = scan([sys.executable, "-c", "import sys; print('No such container: x'); sys.exit(1)"])
    assert missing["rc"] == 1
    assert "No such container" in missing["stderr"]
    assert "stdout" not in missing
    assert "no such program" in scan(["no-such-program-here"])["error"]


def test_a_hundred_megabytes_stay_in_bounded_memory() -> None:
    writer = (
        "import sys\nline='2026-11-23T20:00:00.000000000Z INFO throughput: 12.3 tokens/s, Running: 1 reqs\\n'\n"
        "for _ in range(1500): sys.stdout.write(line*900)\n"
    )
    program = (
        "import json,resource,sys\nfrom dspark_ops.transport import collector as c\n"
        "p={'argv':[sys.executable,'-c',sys.argv[1]],'tail_argv':[],'marks':[['dead','engine dead','engine dead']],"
        "'timeout_s':60,'max_bytes':1<<30,'keep':6,'max_lines':200,'root':False}\n"
        "before=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found=json.loads(c.scan_log(p,False)['stdout'])\n"
        "print(found['bytes'],resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, writer], capture_output=True, text=True, check=True, timeout=60
    )
    size, more_kib = map(int, done.stdout.split())
    assert size > 95_000_000
    assert more_kib < 32 * 1024


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([b"engine dead at 1", b"engine dead", b"engine born", b"\xff\x00", b"", b"x" * 5000])),
    st.integers(1, 40),
)
def test_blocks_may_be_cut_anywhere(lines: list[bytes], step: int) -> None:
    data = b"".join(b"T%06d " % i + line + b"\n" for i, line in enumerate(lines))
    whole, pieces = collector.Scan([list(m) for m in MARKS], 6), collector.Scan([list(m) for m in MARKS], 6)
    whole.take(data, "", float("inf"))
    rest = b""
    for at in range(0, len(data), step):
        block = rest + data[at : at + step]
        end = block.rfind(b"\n") + 1
        rest = block[end:]
        if end:
            pieces.take(block[:end], "", float("inf"))
    assert pieces.found == whole.found
    assert sum(m["count"] for m in whole.found.values()) == sum(
        line.startswith((b"engine dead at 1", b"engine born")) for line in lines
    )


def test_only_logs_are_scanned_and_none_is_followed() -> None:
    assert_read_only([LogScan("a", ("docker", "logs", "--timestamps", "x"), MARKS)])
    assert_read_only([LogScan("a", ("journalctl", "-k"), MARKS, tail_argv=("journalctl", "-k", "-n", "5"))])
    for argv, tail in (
        (("cat", "/etc/shadow"), ()),
        (("docker", "info"), ()),
        (("docker", "rm", "x"), ()),
        (("docker", "logs", "--follow", "x"), ()),
        (("journalctl", "-f"), ()),
        (("journalctl", "--rotate"), ()),
        (("journalctl", "-k"), ("docker", "kill", "x")),
        (("journalctl", "-k"), ("ss", "-tln")),
    ):
        with pytest.raises(ReadOnlyViolationError):
            assert_read_only([LogScan("a", argv, MARKS, tail_argv=tail)])
