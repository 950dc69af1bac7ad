"""A scrape of each node of a pair, from the recorded trees: `python -m tests.unit.observe.exporter.recording` writes
tests/fixtures/observe/{head,worker}.prom anew. The clock is held, so that the same code gives the same bytes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dspark_ops.observe.exporter.config import parse_config
from dspark_ops.observe.exporter.polling import SourceError, make_pollers
from dspark_ops.observe.exporter.scrape import Exposition
from dspark_ops.observe.exporter.sources import make_sources
from dspark_ops.observe.exporter.tree import Tree
from tests.unit.observe.exporter import documents, trees

RECORDED = trees.FIXTURES / "observe"
HCAS = {"rocep1s0f0", "rocep1s0f1", "roceP2p1s0f0", "roceP2p1s0f1"}
STARTED = 1_796_000_000.0
INTERVAL_S = 15.0


class HeldClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def nvidia_smi(argv: Sequence[str]) -> str:
    """Answers as a GB10 under load does (tests/fixtures/gb10/nvidia-smi/csv), and one stranger beside our rank."""
    if argv[1].startswith("--query-gpu="):
        return "0, 62.40, 96, 71, 2411\n"
    return "412233, VLLM::Worker_TP0\n198811, /opt/llama.cpp/llama-server\n"


class Services:
    """The services of a head by URL. A list answers one after the other, its last one for ever."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self._answers = {url: list(texts) for url, texts in answers.items()}

    def __call__(self, url: str) -> str:
        texts = self._answers.get(url)
        if not texts:
            raise SourceError(f"{url}: ConnectionRefusedError")
        return texts.pop(0) if len(texts) > 1 else texts[0]


def record(role: str, directory: Path) -> str:
    """The scrape of a node after two readings, in the text format 0.0.4."""
    trees.gb10(directory)
    trees.process(directory, 198_811, ["/opt/llama.cpp/llama-server"], "0::/user.slice\n")
    head = role == "head"
    changes: dict[str, object] = {"role": role}
    if head:
        trees.write(directory, documents.DOCTOR_PATH, documents.doctor())
        changes |= {"gateway_url": "http://127.0.0.1:4000", "doctor_textfile": documents.DOCTOR_PATH}
    else:
        changes |= {"engine_url": None, "supervisor_url": None, "max_model_len": None}
    config = parse_config(json.dumps(trees.configuration(**changes)))
    services = Services(
        {
            "http://127.0.0.1:8000/metrics": [documents.vllm(scale=1), documents.vllm(scale=2)],
            "http://127.0.0.1:8000/v1/models": [documents.models()],
            "http://127.0.0.1:4000/metrics": [documents.gateway(2), documents.gateway(3)],
            "http://127.0.0.1:8017/status": [documents.status(), documents.status(recovered=True)],
        }
    )
    clock = HeldClock()
    sources = make_sources(config, Tree(directory), nvidia_smi, services, clock, lambda: STARTED)
    pollers = make_pollers(sources, config.stale_after_s, lambda _: None, clock)
    for poller in pollers:
        poller.once()
    trees.set_counters(directory, "two-cables-four-rails-25", "after", HCAS)
    clock.now += INTERVAL_S
    for poller in pollers:
        poller.once()
    clock.now += 2.5
    body, _ = Exposition(config, "0.1.0", pollers, STARTED).render("")
    return body.decode("utf-8")


def main() -> None:
    """Write both recordings."""
    RECORDED.mkdir(exist_ok=True)
    for role in ("head", "worker"):
        with tempfile.TemporaryDirectory() as directory:
            (RECORDED / f"{role}.prom").write_text(record(role, Path(directory)), encoding="utf-8")


if __name__ == "__main__":
    main()
