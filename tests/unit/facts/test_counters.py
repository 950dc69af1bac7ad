from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.fabric.error_counters import grown, severity_of
from dspark_ops.facts.counters import NodeCounters, parse_counters, parse_uptime, read_counters
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.facts.captures import expect, names, text

ROOT = "/sys/class/infiniband"
WORDS = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=12)


def probe_files(tree: dict[str, dict[str, dict[str, int]]]) -> dict[str, str]:
    """Counters by device and directory, as the probe returns them."""
    return {
        f"{ROOT}/{device}/ports/1/{kind}/{name}": f"{value}\n"
        for device, kinds in tree.items()
        for kind, values in kinds.items()
        for name, value in values.items()
    }


@pytest.mark.parametrize("name", names("counters/"))
def test_every_capture_is_read_whole(name: str) -> None:
    document = json.loads(text(name))
    for moment in ("before", "after"):
        seen = parse_counters(probe_files(document[moment]))
        assert {d.name for d in seen.devices or ()} == set(document[moment])
        for device in seen.devices or ():
            assert device.counters == document[moment][device.name]["counters"]
            assert device.hw_counters == document[moment][device.name]["hw_counters"]
            assert device.xmit_bytes == 4 * document[moment][device.name]["counters"]["port_xmit_data"]


def test_an_unhealthy_sample_is_named_by_the_counters_that_grew() -> None:
    name = "rdma/hw-counters-bad-mlx5-generic.txt"
    files = dict(line.rsplit(":", 1) for line in text(name).splitlines() if line)
    device = parse_counters(files).device("mlx5_0")
    assert device is not None
    assert device.counters is None
    assert device.xmit_bytes is None
    clean = dict.fromkeys(device.all(), 0)
    growth = grown(clean, device.all())
    assert sorted(key for key in growth if severity_of(key) == "fail") == sorted(expect(name)["bad"])
    assert "lifespan" not in growth


def test_soft_roce_has_packets_and_no_bytes() -> None:
    """rdma_rxe has no counters directory; its hw_counters name packets otherwise."""
    files = {f"{ROOT}/rxe0/ports/1/hw_counters/sent_pkts": "12\n", f"{ROOT}/rxe0/ports/1/hw_counters/rcvd_pkts": "7\n"}
    device = parse_counters(files).device("rxe0")
    assert device is not None
    assert (device.xmit_bytes, device.rcv_bytes) == (None, None)
    assert (device.xmit_packets, device.rcv_packets) == (12, 7)


def test_a_node_that_was_not_reached_counts_nothing() -> None:
    assert read_counters(NodeReading(node="head", reachable=False)) == NodeCounters()


def test_the_clock_and_the_boot_come_along() -> None:
    files = {"/proc/uptime": "350735.47 234388.90\n", "/proc/sys/kernel/random/boot_id": "38795f08\n"}
    reading = NodeReading(
        node="head", reachable=True, results={"counters.files": ProbeResult(id="counters.files", files=files)}
    )
    assert read_counters(reading) == NodeCounters(uptime_s=350735.47, boot_id="38795f08", devices=())


@given(st.dictionaries(WORDS, st.dictionaries(WORDS, st.integers(0, 2**64 - 1), max_size=4), max_size=4))
def test_whatever_was_counted_comes_back(tree: dict[str, dict[str, int]]) -> None:
    seen = parse_counters(probe_files({device: {"counters": values} for device, values in tree.items()}))
    assert {d.name: d.counters for d in seen.devices or ()} == {k: v for k, v in tree.items() if v}


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from([f"{ROOT}/x/ports/1/counters/a", f"{ROOT}/x/ports/1/hw_counters/b", "/proc/uptime", "/x"]),
        st.text(max_size=40),
    )
)
def test_no_text_breaks_the_parser(files: dict[str, str]) -> None:
    seen = parse_counters(files)
    assert NodeCounters.model_validate_json(seen.model_dump_json()) == seen


@given(st.text(max_size=20))
def test_an_uptime_is_a_number_or_unknown(value: str) -> None:
    seen = parse_uptime(value)
    assert seen is None or seen >= 0
