"""`dspark-ops doctor HEAD WORKER`, `--record`, `--simulate` and `evidence` on a pair that another recipe runs.

The recipe is a stand-in: a container under a name of its own, in which a program called `vllm` was told what the
article's script tells it, and answers `/health` and `/v1/models`. No engine is loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import HEAD, WORKER
from tests.lab.operator_cli import RANK, Operator
from tests.lab.real_tenants import Nodes

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

NAME = "dspark-vllm-dspark-1"
PLACE = "/opt/other-recipe"
PORT = 18888
SECRET = "planted-key-77af31"  # noqa: S105 - to be found in nothing that leaves the node
PROGRAM = r"""
import http.server, json, sys, time
options = dict(word.split("=", 1) for word in sys.argv if word.startswith("--") and "=" in word)
if "--headless" in sys.argv:
    time.sleep(3600)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = {"data": [{"id": "deepseek-v4-flash-dspark", "max_model_len": 1048576}], "version": "0.21.1"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode() if self.path != "/health" else b"")
    def log_message(self, *words):
        print("GET", self.path, "Authorization: Bearer PLANTED", flush=True)
http.server.HTTPServer((options["--host"], int(options["--port"])), Answer).serve_forever()
""".replace("PLANTED", SECRET)


def dspark_ops(*words: str, timeout_s: float = 60) -> tuple[int, str, str]:
    """A command without a site."""
    done = subprocess.run(
        [sys.executable, "-m", "dspark_ops", *words],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def first_address(nodes: Nodes, role: str) -> str:
    """The node's address on its first fabric port; given to it where it has none."""
    shown = nodes.run(role, "ip -4 -o addr show dev enp1s0f0np0 | awk '{print $4}'").split()
    if shown:
        return shown[0].split("/")[0]
    address = "10.77.0.1" if role == "head" else "10.77.0.2"
    nodes.root(role, f"ip addr add {address}/24 dev enp1s0f0np0")
    return address


@pytest.fixture(scope="module")
def recipe(operator: Operator) -> Iterator[Nodes]:
    """The stand-in on both nodes, and no rank of ours beside it; gone afterwards."""
    nodes = Nodes(operator.ssh_config)
    if not all(nodes.root(role, "docker images -q") for role in ("head", "worker")):
        done = operator.run("deploy", "--yes")
        assert done.rc == 0, done
    stopped = operator.run("stop", "--yes")
    assert stopped.rc == 0, stopped
    for role in ("head", "worker"):
        nodes.root(role, f"docker rm -f {RANK}", check=False)
    head = first_address(nodes, "head")
    for rank, role in enumerate(("head", "worker")):
        address = first_address(nodes, role)
        nodes.root(role, f"mkdir -p {PLACE} && cat > {PLACE}/vllm <<'END'\n{PROGRAM}\nEND\nchmod -R a+rX {PLACE}")
        nodes.root(role, f"docker rm -f {NAME}", check=False)
        told = (
            f"serve deepseek-ai/DeepSeek-V4-Flash-DSpark --served-model-name=deepseek-v4-flash-dspark --host=127.0.0.1 "
            f"--port={PORT} --tensor-parallel-size=2 --kv-cache-dtype=nvfp4_ds_mla --max-model-len=1048576 "
            f"--max-num-seqs=6 --nnodes=2 --node-rank={rank} --master-addr={head} --master-port=25000 "
            f"--api-key {SECRET}"
        )
        env = f"-e VLLM_HOST_IP={address} -e NCCL_IB_GID_INDEX= -e NCCL_SOCKET_IFNAME=enp1s0f0np0 -e HF_TOKEN={SECRET}"
        nodes.root(
            role,
            f"docker run -d --name {NAME} --network host --restart unless-stopped {env} "
            f"--label com.docker.compose.project=dspark -v {PLACE}:{PLACE}:ro --entrypoint python3 "
            f"{nodes.image(role)} {PLACE}/vllm {told} {'--headless' if role == 'worker' else ''}",
        )
    time.sleep(1)
    yield nodes
    for role in ("head", "worker"):
        nodes.root(role, f"docker rm -f {NAME}; rm -rf {PLACE}", check=False)


@pytest.fixture(scope="module")
def recorded(recipe: Nodes, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What the doctor says of it, and the recording of that look."""
    place = tmp_path_factory.mktemp("foreign") / "rec"
    code, out, err = dspark_ops(
        "doctor", HEAD, WORKER, "--ssh-config", str(recipe.ssh_config), "--record", str(place), "--json"
    )
    assert code == 1, err
    document: dict[str, Any] = json.loads(out)
    return document, place


def statuses(document: dict[str, Any], check: str) -> set[str]:
    """What was said by one check, on either node."""
    return {f["status"] for f in document["findings"] if f["id"] == check}


def test_it_is_found_by_its_command_and_judged(recorded: tuple[dict[str, Any], Path]) -> None:
    document, _ = recorded
    assert f"head container {NAME} (compose project dspark)" in document["message"]
    assert "not set up by dspark-ops" in document["message"]
    assert statuses(document, "nccl.gid_index_unset") == {"fail"}
    assert statuses(document, "service.restart_policy") == {"fail"}
    assert statuses(document, "service.ranks_paired") == {"ok"}
    assert statuses(document, "service.health") == {"ok"}
    assert statuses(document, "service.release_current") == {"skip"}
    assert statuses(document, "reach.ssh") == {"ok"}
    assert not [f for f in document["findings"] if "the rule broke" in f["observed"]]


def test_the_recording_says_the_same_without_a_node(recorded: tuple[dict[str, Any], Path]) -> None:
    document, place = recorded
    code, out, err = dspark_ops("doctor", "--simulate", str(place), "--json")
    assert code == 1, err
    again = json.loads(out)
    assert again["message"].startswith("replay of ")
    assert [(f["id"], f["node"], f["status"]) for f in again["findings"]] == [
        (f["id"], f["node"], f["status"]) for f in document["findings"]
    ]


def test_no_secret_leaves_the_nodes(recorded: tuple[dict[str, Any], Path], recipe: Nodes, tmp_path: Path) -> None:
    _, place = recorded
    assert all(SECRET not in path.read_text() for path in place.iterdir())
    path = tmp_path / "e.tar.gz"
    code, out, err = dspark_ops("evidence", HEAD, WORKER, "-F", str(recipe.ssh_config), "-o", str(path))
    assert code == 0, err
    assert "Read it before you mail it" in out
    with tarfile.open(path) as archive:
        names = archive.getnames()
        texts = [handle.read().decode() for e in archive.getmembers() if (handle := archive.extractfile(e)) is not None]
    assert any(name.endswith("head/rank.log") for name in names)
    assert all(SECRET not in text for text in texts)


def test_when_it_is_gone_that_is_said(recipe: Nodes) -> None:
    for role in ("head", "worker"):
        recipe.root(role, f"docker rm -f {NAME}")
    _, out, _ = dspark_ops("doctor", HEAD, WORKER, "--ssh-config", str(recipe.ssh_config), "--json")
    document = json.loads(out)
    assert "head no vLLM server, worker no vLLM server" in document["message"]
    assert statuses(document, "service.health") == {"skip"}
    assert statuses(document, "reach.ssh") == {"ok"}
