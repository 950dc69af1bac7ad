"""The record of the last GID reading: kept whole, recalled, and compared address by address."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.errors import NoVerdictError
from dspark_ops.fabric.gid_record import drift, recall, record_of, record_path, remember
from dspark_ops.facts.gids import GidRecord, GidRecordEntry
from tests.unit.doctor.pair_fixture import pair_facts

MOVED: list[Any] = [["worker", "rdma", "roceP2p1s0f0", "gids", 3, "index"], 4]
ADDRESSES = st.ip_addresses(v=4).map(lambda a: IPv4Address(int(a)))
ENTRIES = st.builds(
    GidRecordEntry,
    node=st.sampled_from(["head", "worker"]),
    hca=st.sampled_from(["rocep1s0f0", "roceP2p1s0f0"]),
    address=ADDRESSES,
    indexes=st.lists(st.integers(0, 9), max_size=2).map(tuple),
)
RECORDS = st.builds(GidRecord, entries=st.lists(ENTRIES, max_size=6).map(tuple))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_a_reading_is_recalled_as_it_was() -> None:
    assert recall("fixture") is None
    remember("fixture", pair_facts())
    record = recall("fixture")
    assert record is not None
    assert record.problem is None
    assert record.read_at is not None
    assert {(e.node, e.hca, str(e.address), e.indexes) for e in record.entries} == {
        ("head", "rocep1s0f0", "192.168.100.10", (3,)),
        ("head", "roceP2p1s0f0", "192.168.101.10", (3,)),
        ("worker", "rocep1s0f0", "192.168.100.11", (3,)),
        ("worker", "roceP2p1s0f0", "192.168.101.11", (3,)),
    }
    assert drift(record, record_of(pair_facts())) == ()


def test_an_index_that_moved_is_named_with_where_it_was() -> None:
    (move,) = drift(record_of(pair_facts()), record_of(pair_facts({"set": [MOVED]})))
    assert (move.node, move.hca, str(move.address)) == ("worker", "roceP2p1s0f0", "192.168.101.11")
    assert (move.was, move.now) == ((3,), (4,))


def test_a_device_that_is_not_active_is_not_recorded() -> None:
    down = pair_facts({"set": [[["worker", "rdma", "roceP2p1s0f0", "state"], "1: DOWN"]]})
    assert {e.hca for e in record_of(down).entries if e.node == "worker"} == {"rocep1s0f0"}


def test_an_address_that_came_or_went_is_no_drift() -> None:
    before = record_of(pair_facts())
    renumbered = [["worker", "rdma", "roceP2p1s0f0", "gids", 3, "ipv4"], "10.9.9.9"]
    one = record_of(
        pair_facts({"set": [renumbered, [["worker", "rdma", "roceP2p1s0f0", "gids", 2, "ipv4"], "10.9.9.9"]]})
    )
    assert drift(before, one) == ()
    # Still in the table, but its RoCE v2 entry is gone: that one did move, to nowhere.
    (gone,) = drift(before, record_of(pair_facts({"set": [renumbered]})))
    assert gone.now == ()


def test_a_broken_file_is_no_record_and_says_so() -> None:
    path = record_path("fixture")
    path.parent.mkdir(parents=True)
    for content in ("", "{", '{"entries": [{"node": "head"}]}', "[]"):
        path.write_text(content)
        record = recall("fixture")
        assert record is not None
        assert record.entries == ()
        assert str(path) in (record.problem or "")


def test_a_node_that_was_not_read_keeps_what_is_known_of_it() -> None:
    remember("fixture", pair_facts())
    assert remember("fixture", pair_facts({"set": [[["worker", "rdma"], None], [["head", "rdma"], None]]})) is None
    remember("fixture", pair_facts({"set": [[["worker", "rdma"], None]]}))
    record = recall("fixture")
    assert record is not None
    assert {e.node for e in record.entries} == {"head", "worker"}


def test_a_state_directory_that_cannot_be_written_is_said(state: Path) -> None:
    (state / "dspark-ops").write_text("a file where the directory belongs")
    with pytest.raises(NoVerdictError, match="cannot be kept"):
        remember("fixture", pair_facts())


@given(RECORDS, RECORDS)
def test_drift_is_of_common_addresses_only_and_none_with_itself(old: GidRecord, new: GidRecord) -> None:
    assert drift(old, old) == ()
    common = {(e.node, e.hca, e.address) for e in old.entries} & {(e.node, e.hca, e.address) for e in new.entries}
    assert {(m.node, m.hca, m.address) for m in drift(old, new)} <= common


@given(RECORDS)
def test_a_record_survives_json(record: GidRecord) -> None:
    dated = record.model_copy(update={"read_at": datetime(2026, 11, 25, tzinfo=UTC)})
    assert GidRecord.model_validate_json(dated.model_dump_json()) == dated
