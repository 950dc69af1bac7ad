"""On the rehearsal pair: a port of the head through its real sshd, and both ranks read back from their processes."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import Documents
from dspark_ops.deploy.spec import render_pair
from dspark_ops.errors import NoVerdictError
from dspark_ops.releases.effective import compare, own_argv, read_back
from dspark_ops.releases.gate import run_gate
from dspark_ops.transport.forward import forward
from dspark_ops.transport.ssh import SshRunner, open_runner, resolve_target
from tests.lab.conftest import HEAD, RehearsalPair
from tests.lab.operator_cli import Operator

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

PORT = 18273
SERVE = f"""
cd $(mktemp -d) && echo "from $(hostname)" > name
nohup python3 -m http.server --bind 127.0.0.1 {PORT} >/dev/null 2>&1 & echo $!
for i in $(seq 50); do (exec 3<>/dev/tcp/127.0.0.1/{PORT}) 2>/dev/null && exit 0; sleep 0.1; done; exit 1
"""
# Reads what the gate is given and asks the API through it, as a site's own gate would.
GATE = """
import json, os, urllib.request
names = json.load(urllib.request.urlopen(os.environ["DSPARK_API_URL"] + "/v1/models", timeout=20))["data"]
print(os.environ["DSPARK_RELEASE"], *[model["id"] for model in names])
raise SystemExit(os.environ["DSPARK_MODEL"] not in [model["id"] for model in names])
"""


@pytest.fixture
def head(pair: RehearsalPair) -> Iterator[SshRunner]:
    runner = SshRunner("head", resolve_target(HEAD, pair.ssh_config, 10.0))
    yield runner
    runner.close()


def test_a_port_of_the_heads_loopback_is_reached_from_here(pair: RehearsalPair, head: SshRunner) -> None:
    pid = pair.run(HEAD, SERVE).split()[0]
    try:
        with forward(head, "127.0.0.1", PORT) as local:
            with urllib.request.urlopen(f"http://127.0.0.1:{local.port}/name", timeout=10) as answer:
                assert answer.read().decode() == f"from {HEAD}\n"
            assert (local.connections, local.failures) == (1, [])
    finally:
        pair.run(HEAD, f"kill {pid}")


def test_a_port_without_a_service_is_said_in_one_sentence(head: SshRunner) -> None:
    told = f"{HEAD}: no connection to 127.0.0.1 port 18274 there"
    with pytest.raises(NoVerdictError, match=told), forward(head, "127.0.0.1", 18274):
        pytest.fail("it was opened")


@pytest.fixture
def runners(serving: Operator) -> Iterator[dict[Role, SshRunner]]:
    site = load_site(serving.site).site
    opened = {role: open_runner(site, role) for role in ROLES}
    yield opened
    for runner in opened.values():
        runner.close()


def test_both_ranks_run_as_they_were_asked_to(serving: Operator, runners: dict[Role, SshRunner]) -> None:
    loaded = load_site(serving.site)
    seen = read_back(runners)
    assert seen.why == {}
    assert {runner.round_trips for runner in runners.values()} == {2}
    documents = Documents.of(render_pair(loaded.site, loaded.profile), "any").per_role
    assert compare(documents, seen.effective) == ()
    for role in ROLES:
        rank, host = seen.effective[role], seen.hosts[role]
        assert rank is not None
        raw = serving.on(role, "cat", f"/proc/{serving.rank_pid(role)}/cmdline")
        assert rank.argv == tuple(raw.rstrip("\0").split("\0"))
        assert own_argv(["vllm"], rank.argv) == tuple(documents[role]["command"])
        assert seen.images[role] == loaded.site.image.id
        assert any(process.title.startswith("VLLM::") for process in rank.processes)
        assert None not in (host.kernel, host.docker, host.mem_total_kib, host.driver)


def test_what_was_not_asked_for_is_found(serving: Operator, runners: dict[Role, SshRunner]) -> None:
    loaded = load_site(serving.site, overrides=["serve.max_num_seqs=3", "serve.environment={NCCL_DEBUG: INFO}"])
    documents = Documents.of(render_pair(loaded.site, loaded.profile), "any").per_role
    found = compare(documents, read_back(runners).effective)
    told = [(d.role, d.what, d.asked) for d in found]
    assert told == [
        (role, what, asked) for role in ROLES for what, asked in (("argv", "--max-num-seqs=3"), ("env", "INFO"))
    ]


def gated(serving: Operator, *command: str) -> LoadedSite:
    return load_site(serving.site, overrides=[f"gate.command={json.dumps(command)}", "gate.timeout_s=60"])


def test_a_gate_asks_the_api_that_only_the_head_can_reach(
    serving: Operator, runners: dict[Role, SshRunner], tmp_path: Path
) -> None:
    program = tmp_path / "gate.py"
    program.write_text(GATE)
    loaded = gated(serving, sys.executable, str(program))
    result = run_gate(loaded, runners["head"], "r-abcdef", print)
    assert result is not None
    assert result.passed, result
    assert result.tail == (f"r-abcdef {loaded.site.model.served_name}",)
    failed = run_gate(gated(serving, "/bin/false"), runners["head"], "r-abcdef", print)
    assert failed is not None
    assert (failed.outcome, failed.rc) == ("failed", 1)
