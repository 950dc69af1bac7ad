"""The look-alike of /sys/class/infiniband, written into a scratch directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import board
    import rdma_tree

    monkeypatch.setattr(board, "TREE", tmp_path)
    monkeypatch.setattr(rdma_tree, "TREE", tmp_path)
    monkeypatch.setattr(rdma_tree, "_SCRATCH", tmp_path / "scratch")
    return rdma_tree


def link(tree: Any, name: str, *, running: bool, addresses: tuple[str, ...] = ()) -> Any:
    return tree.Link(name, "02:00:47:01:1a:16", True, running, addresses)


def port_directory(root: Path) -> Path:
    return root / "devices/pci0000:00/0000:00:00.0/0000:01:00.0/infiniband/rocep1s0f0/ports/1"


def test_a_running_port_is_active_and_its_address_is_at_index_3(tree: Any, tmp_path: Path) -> None:
    tree.refresh({"enp1s0f0np0": link(tree, "enp1s0f0np0", running=True, addresses=("192.168.100.11",))})
    port = port_directory(tmp_path)
    assert (port / "state").read_text() == "4: ACTIVE\n"
    assert (port / "rate").read_text() == "200 Gb/sec (2X NDR)\n"
    assert (port / "gids/3").read_text() == "0000:0000:0000:0000:0000:ffff:c0a8:640b\n"
    assert (port / "gid_attrs/types/3").read_text() == "RoCE v2\n"
    assert (port / "gid_attrs/ndevs/3").read_text() == "enp1s0f0np0\n"


def test_an_empty_entry_reads_einval_and_its_gid_is_zero(tree: Any, tmp_path: Path) -> None:
    tree.refresh({"enp1s0f0np0": link(tree, "enp1s0f0np0", running=True)})
    port = port_directory(tmp_path)
    assert (port / "gids/2").read_text().strip() == ":".join(["0000"] * 8)
    with pytest.raises(OSError, match="Invalid argument"):
        (port / "gid_attrs/types/2").read_text()


def test_an_address_that_goes_empties_its_entry_again(tree: Any, tmp_path: Path) -> None:
    tree.refresh({"enp1s0f0np0": link(tree, "enp1s0f0np0", running=True, addresses=("192.168.100.11",))})
    tree.refresh({"enp1s0f0np0": link(tree, "enp1s0f0np0", running=False)})
    port = port_directory(tmp_path)
    assert (port / "state").read_text() == "1: DOWN\n"
    assert (port / "phys_state").read_text() == "3: Disabled\n"
    with pytest.raises(OSError, match="Invalid argument"):
        (port / "gid_attrs/ndevs/3").read_text()


def test_a_port_that_is_gone_takes_its_device_off_the_class(tree: Any, tmp_path: Path) -> None:
    tree.refresh({"enp1s0f0np0": link(tree, "enp1s0f0np0", running=True)})
    assert (tmp_path / "class/infiniband/rocep1s0f0").is_symlink()
    tree.refresh({})
    assert not (tmp_path / "class/infiniband/rocep1s0f0").is_symlink()
    assert not port_directory(tmp_path).exists()


def test_guids_are_made_from_the_mac_as_mlx5_does() -> None:
    import board

    assert board.guid("02:00:47:01:1a:16") == "0200:4703:0001:1a16"


def test_config_space_shows_a_link_of_32_gt_and_four_lanes() -> None:
    import pci_functions

    space = pci_functions.config_space()
    capability = space[0x34]
    assert space[:4] == bytes.fromhex("b3152110")
    assert space[capability] == 0x10
    assert int.from_bytes(space[capability + 0x12 : capability + 0x14], "little") == (4 << 4) | 5
