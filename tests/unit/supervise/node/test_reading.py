"""What is read of a node and of the engine: nothing that could not be read becomes a number or a verdict."""

from __future__ import annotations

import http.server
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.supervise.node import engine, holders, kernel_log, last_boot, rank, sight
from dspark_ops.supervise.node.commands import run
from dspark_ops.supervise.node.config import Api, Canary
from dspark_ops.supervise.node.seeing import node_sight, rank_sight, unreachable

XID = "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
AER = "pcieport 0000:00:00.0: AER: Uncorrected (Fatal) error received: 0000:01:00.0"


def test_metrics_of_old_and_new_names_are_summed_over_labels_without_created() -> None:
    sums = engine.parse_metrics(
        'vllm:num_requests_running{engine="0",model_name="a b"} 2.0\n'
        'vllm:num_requests_running{engine="1"} 1\n'
        "vllm:gpu_cache_usage_perc 0.5\n"
        "vllm:generation_tokens_created 1.7e9\n"
        "vllm:generation_tokens_total 12 1700000000\n"
        "# HELP x y\nbroken line here\nvllm:bad NaN\n"
    )
    assert sums == {
        "vllm:num_requests_running": 3.0,
        "vllm:gpu_cache_usage_perc": 0.5,
        "vllm:generation_tokens_total": 12.0,
    }


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    engine.parse_metrics(text)
    engine.whole_text(text)
    engine.streamed_text(text)
    rank.parse_event(text)
    kernel_log.parse_record(text)
    sight.mem_available(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_field_of_a_look_is_trusted(value: object) -> None:
    raw = dict.fromkeys(
        ("boot_id", "taken", "gpu", "mem_available_bytes", "kernel", "container", "port_holders", "clock_synced"), value
    )
    seen = node_sight("worker", {**raw, "container_known": True}, "desk", 8000)
    assert seen.rank.state in ("unknown", "absent")


def test_a_rank_that_could_not_be_asked_is_unknown_and_one_of_others_is_foreign() -> None:
    assert rank_sight(None, known=False, site="desk").state == "unknown"
    assert rank_sight(None, known=True, site="desk").state == "absent"
    assert rank_sight({"state": "running", "site": "other"}, known=True, site="desk").state == "foreign"
    assert rank_sight({"state": "paused", "site": "desk"}, known=True, site="desk").state == "unknown"
    assert unreachable({"management": False, "fabric": None}).reachable is False


def test_a_stream_that_breaks_off_or_holds_an_error_has_no_text() -> None:
    part = 'data: {"choices": [{"delta": {"content": "the "}}]}\n\n'
    assert engine.streamed_text(part * 2 + 'data: {"choices": []}\n\ndata: [DONE]\n\n') == "the the "
    assert engine.streamed_text(part) is None
    assert engine.streamed_text(part + 'data: {"error": {"message": "x"}}\n\ndata: [DONE]\n\n') is None


def test_fatal_lines_are_kept_although_a_harmless_one_repeats() -> None:
    noise = [(float(at), "NVRM: Xid (PCI:0000:01:00): 13, Graphics Exception") for at in range(5, 200)]
    found = kernel_log.fatal_lines([(1.0, XID), (2.0, AER), (3.0, "AER: Corrected error received"), *noise])
    assert [(line.code, line.boot_s) for line in found[:2]] == [(79, 1.0), (None, 2.0)]
    assert len(found) == 7
    record = f"4,1234,5000000,-;{XID}\n SUBSYSTEM=pci\n"
    assert kernel_log.parse_record(record) == (5.0, XID)


@pytest.mark.parametrize(("machine", "size"), [("x86_64", 384), ("aarch64", 400)])
def test_how_the_last_boot_ended(tmp_path: Path, machine: str, size: int) -> None:
    def record(kind: int, user: str) -> bytes:
        raw = bytearray(size)
        struct.pack_into("=h", raw, 0, kind)
        raw[44 : 44 + len(user)] = user.encode()
        return bytes(raw)

    boot, down, login = record(2, "reboot"), record(1, "shutdown"), record(7, "nvidia")
    path = tmp_path / "wtmp"
    for records, expected in (
        ((boot, login, down, boot, login), True),
        ((boot, down, boot, login, boot), False),
        ((boot, login), None),
        ((), None),
    ):
        path.write_bytes(b"".join(records))
        assert last_boot.ended_in_order(path, machine) is expected
    assert last_boot.ended_in_order(tmp_path / "absent", machine) is None


def test_who_holds_a_port_is_named() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        assert sight.taken_ports([port, 1]) == [port]
        assert holders.of_ports([port])[0].endswith(f"(process {os.getpid()})")
    assert sight.taken_ports([port]) == []
    assert sight.taken_ports([port], proc=Path("/absent")) is None


def test_a_program_that_hangs_or_floods_or_leaves_a_child_is_bounded() -> None:
    hung = run(["sleep", "600"], timeout_s=0.2)
    assert (hung.rc, hung.ok) == (None, False)
    assert "did not end within" in hung.said()
    flood = run(["sh", "-c", "yes | head -c 3000000; exit 3"], timeout_s=30, max_bytes=1000)
    assert (flood.rc, len(flood.out)) == (3, 1000)
    began = time.monotonic()
    assert run(["sh", "-c", "sleep 600 & echo done"], timeout_s=300).out == "done\n"
    assert time.monotonic() - began < 200, "a child that keeps the pipe open is not waited for"
    assert "could not be started" in run(["/absent/program"], timeout_s=1).said()
    assert run(["cat"], timeout_s=30, stdin="x" * 300_000).out == "x" * 300_000


@pytest.fixture
def dribbler() -> Iterator[int]:
    """A server that sends a header every moment and never an answer."""
    stop = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not stop.wait(0.05):
                try:
                    self.wfile.write(b"X-More: 1\r\n")
                except OSError:
                    return

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server.server_address[1]
    stop.set()
    server.shutdown()
    server.server_close()


def test_an_engine_that_dribbles_is_a_timeout_and_a_closed_port_is_refused(dribbler: int, tmp_path: Path) -> None:
    def api(port: int, key_file: Path | None = None) -> Api:
        return Api(f"http://127.0.0.1:{port}", "m", Canary("p", "e", 8, thinking=False), key_file)

    assert engine.send_canary(api(dribbler), limit_s=0.4, clock=time.monotonic).verdict == "timeout"
    assert engine.send_canary(api(1), limit_s=5, clock=time.monotonic).verdict == "refused"
    lost_key = engine.send_canary(api(1, tmp_path / "absent"), limit_s=5, clock=time.monotonic)
    assert lost_key.verdict == "unknown", "a fault of our own says nothing of the engine"
    assert engine.read_health("http://127.0.0.1:1") == "refused"
