"""The doctor's requests to an API that answers as vLLM does, through the program that really runs on a node."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from dspark_ops.facts import metrics, replies, service
from tests.unit.doctor.pair_fixture import load_case_site
from tests.unit.facts.captures import FIXTURES
from tests.unit.transport.test_collector import collect

SCRAPE = (FIXTURES / "vllm-metrics" / "half-draft.prom").read_text(encoding="utf-8")
STREAM = (FIXTURES / "vllm-metrics" / "stream.sse").read_bytes()
DELAY_S = 1.0
CALL = {"function": {"name": replies.TOOL, "arguments": json.dumps(replies.TOOL_ARGUMENTS)}}


class _Engine(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        text = SCRAPE
        if _Engine.asked:
            text = text.replace("vllm:generation_tokens_total{engine", "vllm:generation_tokens_total{later")
        self._answer(text.encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(DELAY_S)
        _Engine.asked.append(self.path)
        if body.get("stream"):
            self._answer(STREAM)
            return
        short, tool = body["max_tokens"] == 1, "tools" in body
        message = {"content": None, "tool_calls": [CALL]} if tool else {"content": "42"}
        finish = "length" if short else "tool_calls" if tool else "stop"
        document = {"choices": [{"message": message, "finish_reason": finish}], "usage": {"completion_tokens": 2}}
        self._answer(json.dumps(document).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    _Engine.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_two_looks_and_four_completions_in_one_reading(port: int) -> None:
    loaded = load_case_site(f"serve.api_port={port}")
    asked = [
        service.canary_probe(loaded.site, loaded.profile),
        *replies.probes(loaded.site, loaded.profile),
        *service.probes(loaded.site),
        *metrics.probes(loaded.site, twice=True),
    ]
    reading = collect(asked)
    assert _Engine.asked == ["/v1/chat/completions"] * 4
    scrape = metrics.read_metrics(reading)
    assert scrape is not None
    assert scrape.first is not None
    assert scrape.later is not None
    assert scrape.interval_s is not None
    # All at once: four completions one after the other would take four times as long.
    assert 0 < scrape.interval_s < 4 * DELAY_S
    found = replies.read_replies(reading)
    assert found is not None
    assert found.canary is not None
    assert found.canary.content == "42"
    assert found.stream is not None
    assert found.stream.done
    assert found.short is not None
    assert found.short.finish_reason == "length"
    assert found.tool is not None
    assert [call.name for call in found.tool.tool_calls] == [replies.TOOL]


def test_the_second_look_is_later_than_every_completion(port: int) -> None:
    loaded = load_case_site(f"serve.api_port={port}")
    reading = collect([service.canary_probe(loaded.site, loaded.profile), *metrics.probes(loaded.site, twice=True)])
    assert "generation_tokens_total{later" in (reading.get("metrics.later").stdout or "")
    assert "generation_tokens_total{engine" in (reading.get("metrics.first").stdout or "")


def test_nobody_answers() -> None:
    loaded = load_case_site("serve.api_port=1")
    reading = collect([*replies.probes(loaded.site, loaded.profile), *metrics.probes(loaded.site)])
    scrape, found = metrics.read_metrics(reading), replies.read_replies(reading)
    assert scrape is not None
    assert scrape.first is None
    assert "refused" in (scrape.error or "")
    assert found is not None
    assert found.stream is not None
    assert "refused" in (found.stream.error or "")
