"""The one file that goes to a node: the same bytes every time, and it serves with Python's standard library alone."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from dspark_ops.observe.zipapp import build_exporter, write_exporter
from tests.unit.observe.exporter import trees
from tests.unit.observe.exporter.recording import RECORDED


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exporter") / "exporter.pyz"
    write_exporter(path)
    return path


@contextmanager
def running(program: Path, root: Path, config: dict[str, object]) -> Iterator[str]:
    """The exporter as systemd starts it, without site-packages and with nothing of this environment; its address."""
    file = root / "exporter.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    argv = [sys.executable, "-I", "-S", str(program), "--config", str(file), "--root", str(root)]
    environment = {"PATH": f"{root}/bin:/usr/bin:/bin"}
    process = subprocess.Popen(argv, env=environment, cwd="/", stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        heard: list[str] = []
        for line in process.stderr:
            heard.append(line)
            if found := re.match(r"listening on (\S+)", line):
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield f"http://{found[1]}"
                return
        pytest.fail(f"the exporter ended: {''.join(heard)}")
    finally:
        process.terminate()
        assert process.wait(10) == 0


def scrape(url: str, accept: str = "") -> str:
    return httpx.get(f"{url}/metrics", headers={"Accept": accept}).raise_for_status().text


def values(text: str, name: str) -> dict[str, float]:
    """Values of a series by its source label."""
    return {s.labels.get("source", ""): s.value for f in text_format(text) for s in f.samples if s.name == name}


def until_up(url: str, wanted: set[str]) -> str:
    """The first scrape in which these sources are up; the first readings take a moment."""
    for _ in range(600):
        text = scrape(url)
        if wanted <= {source for source, up in values(text, "dspark_source_up").items() if up}:
            return text
        time.sleep(0.05)
    pytest.fail(f"not up: {values(text, 'dspark_source_up')}")


def test_the_same_versions_make_the_same_bytes(program: Path) -> None:
    assert build_exporter() == program.read_bytes()


def test_it_holds_the_library_its_licence_and_what_it_was_made_of(program: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(program.read_bytes())) as archive:
        names = archive.namelist()
        made_of = json.loads(archive.read("bundle.json"))
    assert "prometheus_client/registry.py" in names
    assert "prometheus_client/LICENSE" in names
    assert set(made_of["sha256"]) == set(names) - {"bundle.json"}
    ours = {name for name in names if name.startswith("dspark_ops/")}
    assert {name.split("/")[1] for name in ours} == {"__init__.py", "fabric", "observe"}
    assert not any(part in name for name in names for part in ("django", "twisted", "aiohttp"))


def test_it_serves_a_worker_with_the_standard_library_alone(program: Path, tmp_path: Path) -> None:
    trees.gb10(tmp_path)
    smi = '#!/bin/sh\ncase "$1" in --query-gpu*) echo "0, 45.1, 95, 60, 2400";; *) echo "412233, VLLM::Worker";; esac\n'
    trees.write(tmp_path, "/bin/nvidia-smi", smi)
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    config = trees.configuration(role="worker", engine_url=None, supervisor_url=None, max_model_len=None)
    with running(program, tmp_path, config) as url:
        text = until_up(url, {"memory", "pcie", "kernel", "rdma", "rails", "gpu", "gpu_holders"})
        strict = scrape(url, "application/openmetrics-text; version=1.0.0")
        assert httpx.get(f"{url}/").status_code == 404
        assert httpx.post(f"{url}/metrics").status_code == 501
    recorded = (RECORDED / "worker.prom").read_text(encoding="utf-8")
    only_later = {"dspark_rail_share_ratio", "dspark_rail_balance_ratio", "dspark_rail_interval_bytes"}
    assert _names(text) | only_later == _names(recorded) | only_later
    assert {family.name for family in open_metrics(strict)} >= {"dspark_rail_carrier", "dspark_xid"}  # type: ignore[no-untyped-call]


def _names(text: str) -> set[str]:
    return {sample.name for family in text_format(text) for sample in family.samples}


def test_a_scrape_waits_for_none_of_its_sources(program: Path, tmp_path: Path) -> None:
    """Everything that can hang does: nvidia-smi, the services, and files that are pipes which nobody writes to."""
    trees.gb10(tmp_path)
    trees.write(tmp_path, "/bin/nvidia-smi", "#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    for name in ("proc/meminfo", "doctor.prom"):
        (tmp_path / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        services = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = trees.configuration(
            engine_url=services, supervisor_url=services, gateway_url=services, doctor_textfile="/doctor.prom"
        )
        with running(program, tmp_path, config) as url:
            text = until_up(url, {"pcie", "rails", "rdma"})
            up = values(text, "dspark_source_up")
    hanging = {"memory", "gpu", "gpu_holders", "engine", "model", "supervisor", "gateway", "doctor"}
    assert {source for source, value in up.items() if not value} >= hanging
    assert values(text, "dspark_source_age_seconds").keys() & hanging == set()
    assert "dspark_memory_available_bytes" not in text
    assert "dspark_rail_carrier{" in text


def test_a_configuration_that_cannot_be_used_ends_it_with_2(program: Path, tmp_path: Path) -> None:
    bad = tmp_path / "exporter.json"
    bad.write_text("{}", encoding="utf-8")
    argv = [sys.executable, "-I", "-S", str(program), "--config", str(bad)]
    ended = subprocess.run([*argv, "--check"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "missing keys" in ended.stderr
    bad.write_text(json.dumps(trees.configuration()), encoding="utf-8")
    assert subprocess.run([*argv, "--check"], check=False).returncode == 0
