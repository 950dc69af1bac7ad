"""The look-alike tools print what the captures of a GB10 hold, byte for byte where a byte matters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Tool = Callable[[str], ModuleType]
Capture = Callable[[str], str]


def without_date_and_driver(text: str) -> list[str]:
    return [line for line in text.splitlines()[1:] if "Driver Version" not in line]


def test_nvidia_smi_idle_has_the_layout_of_a_gb10(
    node_tool: Tool, capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    smi = node_tool("nvidia-smi")
    smi.table({**smi.fields(busy=False), "temperature.gpu": "39"}, [])
    printed = capsys.readouterr().out
    assert without_date_and_driver(printed) == without_date_and_driver(capture("idle-headless-580.105.08.txt"))


def test_nvidia_smi_header_line_is_the_captures(
    node_tool: Tool, capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    smi = node_tool("nvidia-smi")
    smi.table(smi.fields(busy=False), [])
    assert capsys.readouterr().out.splitlines()[2] == capture("busy-p0-580.126.09.txt").splitlines()[2]


def test_nvidia_smi_process_row_is_laid_out_as_on_a_gb10(
    node_tool: Tool, capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    smi = node_tool("nvidia-smi")
    tenant = {"pid": 198811, "name": "/opt/llama.cpp/llama-server", "used_mib": 104448}
    smi.table(smi.fields(busy=True), [tenant])
    wanted = [line for line in capture("tenant-llama-server.txt").splitlines() if "198811" in line]
    assert [line for line in capsys.readouterr().out.splitlines() if "198811" in line] == wanted


def test_nvidia_smi_refuses_an_unknown_field_and_keeps_memory_na(
    node_tool: Tool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smi = node_tool("nvidia-smi")
    monkeypatch.setattr(smi, "processes", list)
    assert smi.main(["--query-gpu=name,memory.total", "--format=csv"]) == 0
    assert capsys.readouterr().out == "name, memory.total [MiB]\nNVIDIA GB10, [N/A]\n"
    assert smi.main(["--query-gpu=nonsense", "--format=csv"]) == 2
    assert 'Field "nonsense" is not a valid field' in capsys.readouterr().out


@pytest.fixture
def fabric(node_tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The RDMA tools over a tree with cage 1 cabled and MTU 9000, as in the captures."""
    tool = node_tool("rdma-lookalike")
    monkeypatch.setattr(tool, "CLASS", tmp_path / "infiniband")
    monkeypatch.setattr(tool, "NET", tmp_path / "net")
    guids = {"rocep1s0f0": "1a16", "rocep1s0f1": "1a17", "roceP2p1s0f0": "1a1a", "roceP2p1s0f1": "1a1b"}
    for device, last in guids.items():
        up = device.endswith("f1")
        port = device.replace("roce", "en") + ("np1" if up else "np0")
        directory = tmp_path / "infiniband" / device
        (directory / "ports/1").mkdir(parents=True)
        (directory / "device/net" / port).mkdir(parents=True)
        (tmp_path / "net" / port).mkdir(parents=True)
        (tmp_path / "net" / port / "operstate").write_text("up\n" if up else "down\n")
        (tmp_path / "net" / port / "mtu").write_text("9000\n")
        (directory / "ports/1/state").write_text("4: ACTIVE\n" if up else "1: DOWN\n")
        for name, value in {
            "fw_ver": "28.45.4028",
            "board_id": "NVD0000000087",
            "node_guid": f"0200:0003:0000:{last}",
            "sys_image_guid": "0200:0003:0000:1a16",
        }.items():
            (directory / name).write_text(value + "\n")
    return tool


def test_ibv_devinfo_prints_what_a_gb10_prints(
    fabric: ModuleType, capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fabric.ibv_devinfo([]) == 0
    assert capsys.readouterr().out.strip() == capture("ibv_devinfo-p1-up-mtu9000.txt").strip()


def test_ibdev2netdev_prints_what_a_gb10_prints(
    fabric: ModuleType, capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    fabric.ibdev2netdev()
    assert capsys.readouterr().out == capture("ibdev2netdev-p1-up.txt")


@pytest.mark.parametrize(("mtu", "active"), [(1500, 1024), (4191, 2048), (4192, 4096), (9000, 4096)])
def test_active_mtu_follows_the_ports_mtu(fabric: ModuleType, mtu: int, active: int) -> None:
    (fabric.NET / "enp1s0f1np1/mtu").write_text(f"{mtu}\n")
    assert fabric.active_mtu(fabric.CLASS / "rocep1s0f1") == active


def test_a_port_that_is_down_says_1024_whatever_its_mtu(fabric: ModuleType) -> None:
    assert fabric.active_mtu(fabric.CLASS / "rocep1s0f0") == 1024
