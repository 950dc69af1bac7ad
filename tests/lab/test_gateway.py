"""The gateway on the head as a client and a stranger meet it: the pair first, a cloud while the pair is away."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.asking import chat
from tests.gateway.stand_in import StandIn, wait_until
from tests.lab.operator_cli import Operator
from tests.lab.serving_bench import ServingBench, run_trial
from tests.lab.serving_faults import BY_NAME
from tests.openai_server.answers import Solution
from tests.openai_server.setup import KnownRate, ServerSetup

# The environment of the router is 750 MB; two deploys' worth of waiting in all.
pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(1800)]

MODEL, CLOUD_WORD = "dspark-rehearsal", "meadow"
#: The steady client asks the same again and again, which a gateway takes for an agent's loop.
_CLOUD = {
    "model": "vendor/flash",
    "max_context": 200_000,
    "input_usd_per_million": 1.0,
    "output_usd_per_million": 2.0,
    "day_usd": 10.0,
    "hour_usd": 10.0,
    "repeats": 1000,
}
#: Its users and the ledger stay: what was spent today is spent, also if it comes back.
_LEFT = """
ls -d /etc/dspark/gateway /usr/local/lib/dspark/gateway* 2> /dev/null
find /etc/systemd/system -name dspark-edge* -o -name dspark-gateway*
ls /var/lib/dspark-gateway
true
"""


@dataclass(frozen=True)
class Gateway:
    """The gateway in service. url: the edge, from outside the pair. key, private: a client's, a local-only client's."""

    operator: Operator
    cloud: StandIn
    url: str
    trust: ssl.SSLContext
    key: str
    private: str
    installed: dict[str, Any]

    def ask(self, key: str | None, **more: Any) -> httpx.Response:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        body = chat("hello", model=MODEL, max_tokens=16, temperature=0) | more
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, verify=self.trust, timeout=60)

    def backend(self, key: str) -> str:
        return self.ask(key).headers["x-dspark-backend"]


@pytest.fixture(scope="module")
def gateway(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The pair, kept by its supervisor, behind its gateway, with a stand-in cloud on this machine."""
    for verb in ("deploy", "supervise install"):
        done = operator.run(verb, "--yes")
        assert done.rc == 0, done
    setup = ServerSetup(
        model=str(_CLOUD["model"]),
        context_length=200_000,
        known_rate=KnownRate(ttft_s=0.005, step_s=0.002),
        prose_tokens=12,
        metrics="lean",
        api_key="ck-rehearsal",
    )
    cloud = StandIn(setup, solver=lambda _: Solution(" ".join([CLOUD_WORD] * 12)))
    # A key goes over plain HTTP on a loopback alone, so the head has the stand-in on its own.
    there = f"127.0.0.1:{cloud.port}:127.0.0.1:{cloud.port}"
    argv = ["ssh", "-F", str(operator.ssh_config), "-N", "-o", "ExitOnForwardFailure=yes", "-R", there, "spark-head"]
    tunnel = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "cloud.key").write_text("ck-rehearsal\n")
    (folder / "cloud.key").chmod(0o600)
    site = folder / "site.yml"
    section = {"cloud": {**_CLOUD, "base_url": f"{cloud.url}/v1", "key_file": str(folder / "cloud.key")}}
    site.write_text(f"{operator.site.read_text()}\ngateway: {json.dumps(section)}\n")
    mine = Operator(site, operator.ssh_config)
    done = mine.run("gateway install", "--yes", "--json", timeout_s=1200)
    assert done.rc == 0, done
    keys = [mine.run("gateway key add", name, *words) for name, *words in (("alice",), ("bob", "--local-only"))]
    assert [key.rc for key in keys] == [0, 0], keys
    address = _address(operator.ssh_config)
    certificate = operator.on("head", "cat", "/etc/dspark/gateway/credentials/tls.pem")
    trust = ssl.create_default_context(cadata=certificate)
    try:
        yield Gateway(
            mine, cloud, f"https://{address}:8443", trust, *(key.out.split()[0] for key in keys), done.document()
        )
    finally:
        for verb in ("gateway remove", "supervise remove"):
            done = mine.run(verb, "--yes")
            assert done.rc == 0, done
        tunnel.terminate()
        tunnel.wait(20)
        cloud.close()


def _address(ssh_config: Path) -> str:
    """The head's management address, as ssh has it."""
    argv = ["ssh", "-G", "-F", str(ssh_config), "spark-head"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout
    return next(line.split()[1] for line in text.splitlines() if line.startswith("hostname "))


def test_a_second_installation_changes_nothing(gateway: Gateway) -> None:
    assert gateway.installed["verdict"] == "changed"
    done = gateway.operator.run("gateway install", "--yes", "--json")
    assert (done.rc, done.document()["verdict"], done.document()["changes"]) == (0, "unchanged", []), done


def test_the_pair_answers_first_and_only_with_a_key(gateway: Gateway) -> None:
    assert gateway.ask(None).status_code == 401
    assert gateway.ask("dsk-nobody").status_code == 401
    answer = gateway.ask(gateway.key)
    assert (answer.status_code, answer.headers["x-dspark-backend"]) == (200, "local"), answer.text
    assert gateway.cloud.door.asked() == []


def test_no_route_lets_a_stranger_in(gateway: Gateway) -> None:
    done = gateway.operator.run("exposure routes", "--json")
    assert done.rc == 0, done


def test_a_revoked_key_is_of_no_use_at_once(gateway: Gateway) -> None:
    made = gateway.operator.run("gateway key add", "carol")
    key = made.out.split()[0]
    assert gateway.ask(key).status_code == 200
    assert gateway.operator.run("gateway key revoke", "carol").rc == 0
    assert gateway.ask(key).status_code == 401


def test_a_drain_sends_to_the_cloud_and_what_is_private_nowhere(gateway: Gateway) -> None:
    done = gateway.operator.run("supervise hold", "-r", "trial", "-m", "5", "--drain", "--yes")
    assert done.rc == 0, done
    try:
        wait_until(lambda: gateway.backend(gateway.key) == "cloud", "the cloud answers", timeout_s=30)
        refused = gateway.ask(gateway.private)
        assert (refused.status_code, refused.headers["x-dspark-reason"]) == (503, "local-down")
        assert int(refused.headers["retry-after"]) > 0
    finally:
        assert gateway.operator.run("supervise resume", "--yes").rc == 0
    wait_until(lambda: gateway.backend(gateway.key) == "local", "the pair answers again", timeout_s=30)
    assert gateway.backend(gateway.private) == "local"


def test_the_cloud_answers_while_the_pair_restarts(gateway: Gateway) -> None:
    gateway.operator.on("head", "sh", "-c", f"'umask 077; echo {gateway.key} > /run/gateway-trial.key'")
    try:
        bench = ServingBench(gateway.operator, url="https://127.0.0.1:8443", key_file="/run/gateway-trial.key")
        measured = run_trial(bench, replace(BY_NAME["kill -9 engine core"])).measured
    finally:
        gateway.operator.on("head", "rm", "-f", "/run/gateway-trial.key")
    assert measured.problems == (), measured
    # The one request that ran, and those of the moment until the status says so, which the gateway tries elsewhere.
    assert measured.cloud > 10 > measured.lost, measured


def test_removed_it_leaves_its_books_alone(gateway: Gateway) -> None:
    done = gateway.operator.run("gateway remove", "--yes", "--json")
    assert (done.rc, done.document()["verdict"]) == (0, "changed"), done
    assert gateway.operator.on("head", "sh", "-c", f"'{_LEFT}'").split() == ["ledger.json", "ledger.lock"]
    again = gateway.operator.run("gateway remove", "--yes", "--json")
    assert (again.rc, again.document()["changes"]) == (0, []), again
