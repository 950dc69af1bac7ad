from __future__ import annotations

import pytest

from dspark_ops.fabric import bands
from dspark_ops.fabric.bands import CABLE, FOUR_RAILS, HALF, LATENCY, is_wedge, judge_collective
from dspark_ops.facts.nccl_tests import parse_nccl_tests
from dspark_ops.facts.perftest import parse_perftest
from tests.unit.facts.captures import expect, names, text

GOOD = "perf/nccl-all_gather-16g-good.txt"


@pytest.mark.parametrize("name", [n for n in names("perf/ib_write_bw") if "avg_gbps" in expect(n)])
def test_every_measured_half_is_judged_by_what_it_was(name: str) -> None:
    run = parse_perftest(text(name))
    assert run is not None
    assert run.average_gbps is not None
    wedged = "wedged" in name
    assert HALF.judge(run.average_gbps) == ("fail" if wedged else "ok")
    assert is_wedge(run.average_gbps, errors_grew=False) is wedged


def test_the_two_halves_of_one_cable_make_its_band() -> None:
    halves = [parse_perftest(text(f"perf/ib_write_bw-half-{half}-concurrent-mtu1024.txt")) for half in "ab"]
    total = sum(run.average_gbps or 0 for run in halves if run is not None)
    assert total == pytest.approx(189.85, abs=0.01)
    assert CABLE.judge(total) == "ok"
    assert CABLE.judge(111.7) == "warn", "one half's worth over a whole cable"
    assert (FOUR_RAILS.judge(218.4), FOUR_RAILS.judge(196.1)) == ("ok", "warn")


def test_less_latency_is_better() -> None:
    run = parse_perftest(text("perf/ib_write_lat.txt"))
    assert run is not None
    assert run.typical_us is not None
    assert LATENCY.judge(run.typical_us) == "ok"
    assert LATENCY.judge(3.1) == "warn"
    assert LATENCY.expected.startswith("at most 3 us")


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        (GOOD, "ok", "23.2 GB/s"),
        ("perf/nccl-all_gather-16g-mtu1500.txt", "warn", "19.945"),
        ("perf/nccl-all_gather-socket-fallback.txt", "fail", "TCP sockets"),
        ("perf/nccl-all_reduce-small.txt", "unknown", "too small to judge"),
        ("perf/nccl-no-mpi-world-of-one.txt", "unknown", "only one rank"),
    ],
)
def test_nccl_results(name: str, status: str, says: str) -> None:
    finding = judge_collective(parse_nccl_tests(text(name)))
    assert finding.status == status
    assert says in finding.observed
    assert (finding.remedy is None) == (status == "ok")
    assert expect(name).get("ok", status == "ok") is (status == "ok")


@pytest.mark.parametrize(
    ("gbytes", "status", "says"),
    [
        ("21.9", "ok", ""),
        ("21.8", "warn", ""),
        ("15.0", "warn", ""),
        ("12.8", "fail", "one PCIe half"),
        ("1.6", "fail", "wedge"),
        ("0.2", "fail", "no known cause"),
        ("5.0", "fail", "no known cause"),
    ],
)
def test_what_a_bus_bandwidth_is_known_to_mean(gbytes: str, status: str, says: str) -> None:
    finding = judge_collective(parse_nccl_tests(text(GOOD).replace("bandwidth    : 23.2", f"bandwidth    : {gbytes}")))
    assert finding.status == status
    assert says in finding.observed


def test_debug_lines_of_sockets_outweigh_a_good_number() -> None:
    finding = judge_collective(parse_nccl_tests(text(GOOD) + "node-a:1 [0] NCCL INFO Using network Socket\n"))
    assert finding.status == "fail"


def test_wrong_values_fail_whatever_the_bandwidth() -> None:
    finding = judge_collective(parse_nccl_tests(text(GOOD).replace("23.20       0 ", "23.20       7 ", 1)))
    assert finding.status == "fail"
    assert "7 values came back wrong" in finding.observed


def test_every_band_names_who_measured_it_and_when() -> None:
    found = [item for item in vars(bands).values() if isinstance(item, bands.Band)]
    assert len(found) == 5
    for band in found:
        assert band.source
        assert band.measured
        assert band.date.year == 2026
