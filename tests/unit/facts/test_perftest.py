from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.facts.nccl_tests import NcclTestFacts, parse_nccl_tests
from dspark_ops.facts.perftest import PerftestFacts, parse_perftest
from tests.unit.facts.captures import expect, names, text

HEAD = " #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]\n"


@pytest.mark.parametrize("name", names("perf/ib_write_"))
def test_every_capture_says_what_its_manifest_expects(name: str) -> None:
    seen, wanted = parse_perftest(text(name)), expect(name)
    assert seen is not None
    if "avg_gbps" in wanted:
        assert seen.average_gbps == pytest.approx(wanted["avg_gbps"], abs=0.005)
        assert seen.trouble is None
    if "typ_us" in wanted:
        assert seen.typical_us == wanted["typ_us"]
        assert seen.average_gbps is None
    if "mtu" in wanted:
        assert seen.mtu_bytes == wanted["mtu"]
    if "gid_index" in wanted:
        assert seen.gid_index == wanted["gid_index"]


def test_a_gid_in_decimal_bytes_is_an_address() -> None:
    seen = parse_perftest(text("perf/ib_write_bw-half-a-concurrent-mtu1024.txt"))
    assert seen is not None
    assert (seen.local, seen.remote) == (IPv4Address("192.168.200.13"), IPv4Address("192.168.200.12"))
    assert seen.device == "rocep1s0f0"
    assert len(seen.bandwidth) == 5
    assert all(row.peak_gbps is None for row in seen.bandwidth), "0.00 is a peak that was not measured"


def test_four_queue_pairs_are_seen() -> None:
    seen = parse_perftest(text("perf/ib_write_bw-4qp-cm-111.txt"))
    assert seen is not None
    assert seen.queue_pairs == 4


def test_a_missing_device_is_a_reason_and_no_number() -> None:
    seen = parse_perftest(text("perf/ib_write_bw-no-device.txt"))
    assert seen is not None
    assert seen.average_gbps is None
    assert seen.trouble == "IB device rocep1s0f1 not found"


def test_mib_per_second_become_gigabits() -> None:
    old = " #bytes #iterations BW peak[MB/sec] BW average[MB/sec] MsgRate[Mpps]\n 65536 5000 11700.00 11641.53 0.18\n"
    seen = parse_perftest(old)
    assert seen is not None
    assert seen.average_gbps == pytest.approx(97.66, abs=0.01)


@pytest.mark.parametrize("name", names("perf/nccl-"))
def test_nccl_captures(name: str) -> None:
    seen, wanted = parse_nccl_tests(text(name)), expect(name)
    assert seen is not None
    if "busbw_avg" in wanted:
        assert seen.busbw_average == wanted["busbw_avg"]
        assert seen.ranks == 2
    if "ranks" in wanted:
        assert seen.ranks == wanted["ranks"]
        assert seen.world_of_one
    if "out" in wanted:
        assert (seen.rows[0].out_of_place_busbw, seen.rows[0].in_place_busbw) == (wanted["out"], wanted["inp"])
    if "us_8k" in wanted:
        assert seen.rows[0].size_bytes == 8192
        assert seen.rows[0].out_of_place_us == wanted["us_8k"]


@given(st.integers(1, 1 << 23), st.floats(0.01, 400).map(lambda x: round(x, 2)))
def test_a_printed_rate_comes_back(size: int, gbps: float) -> None:
    seen = parse_perftest(f"{HEAD} {size}      5000   0.00   {gbps:.2f}   0.176554\n")
    assert seen is not None
    assert seen.average_gbps == gbps
    assert seen.bandwidth[0].size_bytes == size


LINES = st.lists(
    st.one_of(
        st.sampled_from([HEAD, " #bytes #iterations t_typical[usec]\n", "GID: 1:2", " Mtu : x[B]\n", "# Rank 0\n"]),
        st.lists(st.floats().map(str) | st.integers().map(str), max_size=14).map(" ".join),
        st.text(max_size=60),
    ),
    max_size=8,
).map("\n".join)


@settings(max_examples=150)
@given(LINES)
def test_no_text_breaks_the_parsers(printed: str) -> None:
    seen = parse_perftest(printed)
    assert seen is None or PerftestFacts.model_validate_json(seen.model_dump_json()) == seen
    run = parse_nccl_tests(printed)
    assert run is None or NcclTestFacts.model_validate_json(run.model_dump_json()) == run
