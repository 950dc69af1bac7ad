"""What the exporter says of recorded nodes: a GB10 with both cages, with one, a VM, and one with nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dspark_ops.observe.exporter.config import Config, parse_config
from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.host import export_aer, export_memory
from dspark_ops.observe.exporter.polling import SourceError
from dspark_ops.observe.exporter.rails import Rails
from dspark_ops.observe.exporter.rdma import export_counters
from dspark_ops.observe.exporter.tree import Tree
from tests.unit.observe.exporter import trees

HCAS = {"rocep1s0f0", "rocep1s0f1", "roceP2p1s0f0", "roceP2p1s0f1"}


def configured(**changes: object) -> Config:
    return parse_config(json.dumps(trees.configuration(**changes)))


def rails_of(root: Path, config: Config | None = None) -> Families:
    into = Families()
    Rails(Tree(root), (config or configured()).rails).read(into)
    return into


def by_rail(into: Families, name: str) -> dict[str, float]:
    """Values by the rail's name, the first label of every rail metric."""
    return {key[0]: value for key, value in into.values.get(name, {}).items()}


class TestBothCages:
    def test_every_rail_is_told_with_its_cage_and_half(self, tmp_path: Path) -> None:
        trees.gb10(tmp_path)
        into = rails_of(tmp_path)
        assert {key[0]: key[4:] for key in into.values["dspark_rail_info"]} == {
            "p0a": ("0", "A"),
            "p0b": ("0", "B"),
            "p1a": ("1", "A"),
            "p1b": ("1", "B"),
        }
        assert by_rail(into, "dspark_rail_carrier") == dict.fromkeys(["p0a", "p0b", "p1a", "p1b"], 1.0)
        assert set(by_rail(into, "dspark_rail_mtu_bytes").values()) == {9000.0}
        assert set(by_rail(into, "dspark_rail_gid_index").values()) == {3.0}
        assert set(by_rail(into, "dspark_rail_roce_v2_ipv4_gids").values()) == {1.0}
        assert set(by_rail(into, "dspark_rail_pcie_width_lanes").values()) == {4.0}

    def test_bytes_are_words_times_four(self, tmp_path: Path) -> None:
        trees.gb10(tmp_path)
        assert set(by_rail(rails_of(tmp_path), "dspark_rail_transmit_bytes_total").values()) == {4e9}

    @pytest.mark.parametrize(
        ("capture", "shares", "balance"),
        [
            ("two-cables-four-rails-25", [0.25, 0.25, 0.25, 0.25], 1.0),
            ("TRAP-two-cables-one-half", [0.5, 0.0, 0.5, 0.0], 0.0),
            ("skew-92-8", [0.0, 0.0, 0.92, 0.08], 0.0),
        ],
    )
    def test_the_shares_of_the_last_interval(
        self, tmp_path: Path, capture: str, shares: list[float], balance: float
    ) -> None:
        trees.gb10(tmp_path, counters=capture)
        rails = Rails(Tree(tmp_path), configured().rails)
        first, second = Families(), Families()
        rails.read(first)
        trees.set_counters(tmp_path, capture, "after", HCAS)
        rails.read(second)
        assert "dspark_rail_share_ratio" not in first.values
        found = by_rail(second, "dspark_rail_share_ratio")
        assert [found[name] for name in ("p0a", "p0b", "p1a", "p1b")] == pytest.approx(shares, abs=0.001)
        assert second.values["dspark_rail_balance_ratio"][()] == pytest.approx(balance, abs=0.001)

    @pytest.mark.parametrize("capture", ["idle-too-few-bytes", "reset-between-snapshots"])
    def test_no_share_of_an_idle_fabric_or_of_counters_that_went_back(self, tmp_path: Path, capture: str) -> None:
        trees.gb10(tmp_path, counters=capture)
        rails = Rails(Tree(tmp_path), configured().rails)
        rails.read(Families())
        trees.set_counters(tmp_path, capture, "after", HCAS)
        into = Families()
        rails.read(into)
        assert "dspark_rail_share_ratio" not in into.values
        assert "dspark_rail_balance_ratio" not in into.values

    def test_one_counter_that_went_back_spoils_the_interval_however_much_the_others_moved(self, tmp_path: Path) -> None:
        trees.gb10(tmp_path)
        rails = Rails(Tree(tmp_path), configured().rails)
        rails.read(Families())
        trees.set_counters(tmp_path, "two-cables-four-rails-25", "after", HCAS)
        for name in ("port_xmit_data", "port_rcv_data"):
            trees.write(tmp_path, f"/sys/class/infiniband/rocep1s0f0/ports/1/counters/{name}", "5\n")
        into = Families()
        rails.read(into)
        assert "dspark_rail_interval_bytes" not in into.values
        assert "dspark_rail_share_ratio" not in into.values

    def test_error_counters_have_their_class_and_rail(self, tmp_path: Path) -> None:
        trees.gb10(tmp_path, counters="split-ok-but-retransmits")
        trees.set_counters(tmp_path, "split-ok-but-retransmits", "after", HCAS)
        into = Families()
        export_counters(Tree(tmp_path), configured().rails, into)
        errors = {
            (key[2], key[4]): value
            for key, value in into.values["dspark_rdma_counter_total"].items()
            if key[5] == "fail" and value
        }
        assert errors
        assert {rail for rail, _ in errors} <= {"p0a", "p0b", "p1a", "p1b"}
        counters = {key[4] for key in into.values["dspark_rdma_counter_total"]}
        assert counters & {"port_xmit_data", "port_rcv_data", "lifespan"} == set()
        assert {key[3] for key in into.values["dspark_rdma_setting"]} == {"lifespan"}

    def test_pcie_errors_by_severity(self, tmp_path: Path) -> None:
        trees.gb10(tmp_path)
        into = Families()
        export_aer(Tree(tmp_path), into)
        assert into.values["dspark_pcie_aer_errors_total"]["0000:01:00.0", "mlx5_core", "correctable"] == 2
        assert into.values["dspark_pcie_aer_errors_total"]["0002:01:00.1", "mlx5_core", "fatal"] == 0

    def test_the_floor_has_a_margin_and_it_can_be_negative(self, tmp_path: Path) -> None:
        trees.host(tmp_path, "meminfo-seed-conflict")
        into = Families()
        export_memory(Tree(tmp_path), 4 << 30, into)
        assert into.values["dspark_memory_floor_margin_bytes"][()] < 0
        export_memory(Tree(tmp_path), None, bare := Families())
        assert "dspark_memory_floor_margin_bytes" not in bare.values


class TestLess:
    def test_an_empty_cage_is_told_as_down_and_not_left_out(self, tmp_path: Path) -> None:
        trees.gb10(tmp_path, "infiniband-p1-up-ok", "one-cable-twins-50-50")
        into = rails_of(tmp_path)
        assert by_rail(into, "dspark_rail_carrier") == {"p0a": 0.0, "p0b": 0.0, "p1a": 1.0, "p1b": 1.0}
        assert by_rail(into, "dspark_rail_port_state_id") == {"p0a": 1.0, "p0b": 1.0, "p1a": 4.0, "p1b": 4.0}
        assert set(by_rail(into, "dspark_rail_speed_bits_per_second")) == {"p1a", "p1b"}
        assert by_rail(into, "dspark_rail_roce_v2_ipv4_gids")["p0a"] == 0.0

    def test_an_address_without_its_gid_has_no_index(self, tmp_path: Path) -> None:
        trees.gb10(tmp_path, "infiniband-active-no-ipv4")
        into = rails_of(tmp_path)
        assert "dspark_rail_gid_index" not in into.values
        assert set(by_rail(into, "dspark_rail_roce_v2_ipv4_gids").values()) == {0.0}

    def test_the_index_is_found_and_not_assumed(self, tmp_path: Path) -> None:
        trees.gb10(tmp_path, "infiniband-drift-one-hca")
        found = by_rail(rails_of(tmp_path), "dspark_rail_gid_index")
        assert len(set(found.values())) > 1

    def test_a_rail_whose_device_is_gone_is_told(self, tmp_path: Path) -> None:
        trees.gb10(tmp_path, "infiniband-absent")
        into = rails_of(tmp_path)
        assert set(by_rail(into, "dspark_rail_present").values()) == {0.0}
        assert "dspark_rail_carrier" not in into.values
        assert "dspark_rail_port_state_id" not in into.values

    def test_a_device_that_is_down_cannot_tell_its_carrier(self, tmp_path: Path) -> None:
        trees.gb10(tmp_path)
        (tmp_path / "sys/class/net/enp1s0f0np0/carrier").unlink()
        assert set(by_rail(rails_of(tmp_path), "dspark_rail_carrier")) == {"p0b", "p1a", "p1b"}

    def test_no_rdma_at_all_is_a_source_that_is_down(self, tmp_path: Path) -> None:
        trees.host(tmp_path)
        with pytest.raises(SourceError, match="modules are not loaded"):
            export_counters(Tree(tmp_path), (), Families())

    def test_no_meminfo_is_no_memory_and_not_zero(self, tmp_path: Path) -> None:
        into = Families()
        with pytest.raises(SourceError):
            export_memory(Tree(tmp_path), 4 << 30, into)
        assert into.values == {}


class TestVm:
    def rails(self) -> Config:
        rail = {"name": "p0a", "netdev": "enp1s0f0np0", "hca": None, "address": "10.77.0.1", "mtu": 9000}
        return configured(rails=[rail])

    def test_soft_roce_counts_no_bytes_and_its_device_is_found(self, tmp_path: Path) -> None:
        trees.vm(tmp_path)
        into = rails_of(tmp_path, self.rails())
        assert next(iter(into.values["dspark_rail_present"]))[2] == "rocep1s0f0"
        assert by_rail(into, "dspark_rail_port_state_id") == {"p0a": 4.0}
        assert "dspark_rail_transmit_bytes_total" not in into.values
        assert "dspark_rail_pcie_width_lanes" not in into.values

    def test_its_hw_counters_are_told(self, tmp_path: Path) -> None:
        trees.vm(tmp_path, "after-traffic")
        into = Families()
        export_counters(Tree(tmp_path), self.rails().rails, into)
        found = {(key[2], key[4]) for key in into.values["dspark_rdma_counter_total"]}
        assert ("p0a", "sent_pkts") in found
        assert {key[3] for key in into.values["dspark_rdma_counter_total"]} == {"hw_counters"}
