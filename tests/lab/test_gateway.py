"""The gateway on the pair as strangers and clients beyond it meet it: every route, odd requests, streams, money."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.load import load_site
from dspark_ops.exposure.routes import disguises, load_routes, routes_in, url_of
from tests.gateway.asking import asked
from tests.gateway.stand_in import wait_until
from tests.lab.cloud_beside import Cloud, cloud_beside
from tests.lab.edge_client import LOCAL_TEXT, Edge, asking, belongs_to_one, question
from tests.lab.operator_cli import Done, Operator
from tests.lab.serving_bench import ServingBench
from tests.lab.serving_faults import PROCESSES

# The first installation brings 170 MB of wheels and builds an environment; on a machine without load some minutes.
pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(3600)]

_ALLOWED = {
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
}
_CERTIFICATE = "/etc/dspark/gateway/credentials/tls.pem"
#: The ledger stays by intent: what was spent today is spent, also if the gateway comes back. So do users and packages.
_LEFT = r"""
set +e
ls /var/lib/dspark-gateway
ls -d /etc/dspark/gateway /usr/local/lib/dspark/gateway* 2> /dev/null
find /etc/systemd/system -name 'dspark-edge*' -o -name 'dspark-gateway*'
pgrep -u dspark-edge -a; pgrep -u dspark-gateway -a
ss -Hltn 'sport = :8443 or sport = :4000 or sport = :8018'
true
"""
#: Prints the OpenAPI list of LiteLLM's application. Routes that hide from it are asked in tests/gateway/test_keys.py.
_LITELLM = """
import json
from litellm.proxy.proxy_server import app
print()
print(json.dumps({"paths": app.openapi()["paths"]}, default=str))
"""
_WEBSOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
#: First lines and headers that a gate and a server may read differently; each asks for what is not on the list.
_ODD: tuple[tuple[str, str], ...] = (
    ("GET /metrics HTTP/1.0", ""),
    ("GET http://127.0.0.1:8000/metrics HTTP/1.1", ""),
    ("GET https://127.0.0.1:4000/metrics HTTP/1.1", ""),
    ("GET /metrics HTTP/1.1", "Host: 127.0.0.1:4000\r\n"),
    ("GET http://127.0.0.1:8000/metrics HTTP/1.1", "Host: 127.0.0.1:8000\r\n"),
    ("GET /v1/models/../../metrics HTTP/1.1", ""),
    ("GET /v1/models/%2e%2e/%2e%2e/metrics HTTP/1.1", ""),
    ("GET /v1/models%2f..%2f..%2fmetrics HTTP/1.1", ""),
    ("GET /v1\\..\\metrics HTTP/1.1", ""),
    ("GET /v1/models;/metrics HTTP/1.1", ""),
    ("GET /%2fmetrics HTTP/1.1", ""),
    ("GET /metrics%00 HTTP/1.1", ""),
    ("GET /METRICS HTTP/1.1", ""),
    ("GET /v1/models/ HTTP/1.1", ""),
    ("GET /v1/realtime HTTP/1.1", _WEBSOCKET),
    ("GET /metrics HTTP/1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
    ("GET /ui/ HTTP/1.1", "X-Original-URL: /v1/models\r\nX-Rewrite-URL: /v1/models\r\n"),
    ("GET /metrics HTTP/1.1", "X-HTTP-Method-Override: POST\r\nX-Forwarded-For: 127.0.0.1\r\n"),
    ("OPTIONS * HTTP/1.1", ""),
    ("CONNECT 127.0.0.1:8000 HTTP/1.1", ""),
    ("TRACE /v1/models HTTP/1.1", ""),
    ("PRI * HTTP/2.0", ""),
)  # fmt: skip


@dataclass(frozen=True)
class Installed:
    """operator: with a site file of its own and its clients beside it. private: the key of a local-only client."""

    operator: Operator
    edge: Edge
    key: str
    private: str
    first: Done

    def status(self) -> dict[str, Any]:
        return self.operator.run("gateway status", "--json").document()


def key_for(operator: Operator, name: str, *words: str) -> str:
    done = operator.run("gateway key add", name, *words)
    assert done.rc == 0, done
    return done.out.strip()


def left_on(operator: Operator) -> str:
    return ServingBench(operator).root("head", _LEFT)


@pytest.fixture(scope="module")
def gateway(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The pair under its supervisor, and the gateway before it; afterwards neither is there, and the pair serves on."""
    folder = tmp_path_factory.mktemp("gateway")
    mine = Operator(Path(shutil.copy(operator.site, folder / "site.yml")), operator.ssh_config)
    for verb in ("deploy", "supervise install"):
        done = mine.run(verb, "--yes")
        assert done.rc == 0, done
    try:
        first = mine.run("gateway install", "--yes", "--json", timeout_s=3600)
        assert first.rc == 0, first
        site = load_site(mine.site).site
        (folder / "ca.pem").write_text(mine.on("head", "cat", _CERTIFICATE))
        edge = Edge(url_of(site).split("//")[1].rsplit(":", 1)[0], site.gateway.port, folder / "ca.pem")
        key, private = key_for(mine, "alice"), key_for(mine, "mallory", "--local-only")
        yield Installed(mine, edge, key, private, first)
    finally:
        done = mine.run("gateway remove", "--yes")
        assert done.rc == 0, done
        done = mine.run("supervise remove", "--yes")
        assert done.rc == 0, done
    assert set(left_on(mine).split()) <= {"ledger.json", "ledger.lock"}
    again = mine.run("gateway remove", "--yes", "--json")
    assert (again.rc, again.document()["verdict"]) == (0, "unchanged"), again


@pytest.fixture(scope="module")
def cloud(gateway: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The gateway with a stand-in as its cloud; afterwards without."""
    with cloud_beside(gateway.operator, tmp_path_factory.mktemp("cloud")) as beside:
        done = gateway.operator.run("gateway install", "--yes", *beside.words(), timeout_s=1200)
        assert done.rc == 0, done
        yield beside
    done = gateway.operator.run("gateway install", "--yes", timeout_s=1200)
    assert done.rc == 0, done


def test_a_second_installation_changes_nothing(gateway: Installed) -> None:
    assert gateway.first.document()["verdict"] == "changed"
    done = gateway.operator.run("gateway install", "--yes", "--json")
    assert (done.rc, done.document()["verdict"], done.document()["changes"]) == (0, "unchanged", []), done


def test_the_pair_answers_a_client_from_outside(gateway: Installed) -> None:
    with gateway.edge.client(gateway.key) as client:
        for stream in (False, True):
            answer = asked(client, question(stream=stream))
            assert (answer.status, answer.backend, answer.reason) == (200, "local", "local-first"), answer.raw
            assert answer.text == LOCAL_TEXT
    with gateway.edge.client(gateway.private) as client:
        answer = asked(client, question())
        assert (answer.status, answer.backend, answer.reason) == (200, "local", "local-only"), answer.raw


def test_no_route_answers_without_a_key_and_none_beyond_the_list_with_one(gateway: Installed) -> None:
    edge = gateway.edge
    known = load_routes(()) + routes_in(
        json.loads(gateway.operator.on("head", "curl", "-sS", "http://127.0.0.1:8000/openapi.json")), "engine"
    )
    asked_for = {(route.method, route.asked) for route in known}
    asked_for |= {("GET", spelled) for route in known if route.method == "GET" for spelled in disguises(route.asked)}
    assert len(asked_for) > 1000
    wrong = gateway.key[:-1] + ("a" if gateway.key[-1] != "a" else "b")

    def ask(pair: tuple[str, str]) -> list[str]:
        line, body = f"{pair[0]} {pair[1]} HTTP/1.1", b"{}" if pair[0] in ("POST", "PUT", "PATCH") else b""
        said = [edge.status(line, key=key, body=body) for key in (None, wrong, gateway.key)]
        good = {200} if pair == ("GET", "/v1/models") else {400} if pair in _ALLOWED else {404}
        fine = said[0] == said[1] == 401 and said[2] in good
        return [] if fine else [f"{line}: {said}"]

    with ThreadPoolExecutor(8) as pool:
        wrongly = [line for lines in pool.map(ask, sorted(asked_for)) for line in lines]
    assert wrongly == []


@pytest.mark.parametrize(("line", "headers"), _ODD, ids=[line for line, _ in _ODD])
def test_an_odd_request_reaches_nothing(gateway: Installed, line: str, headers: str) -> None:
    for key in (None, gateway.key):
        said = gateway.edge.status(line, key=key, headers=headers)
        assert said in (None, 400, 401, 404, 405), f"{line} with {'a' if key else 'no'} key: {said}"


def test_every_route_of_litellm_is_closed(gateway: Installed, tmp_path: Path) -> None:
    program = "/usr/local/lib/dspark/gateway/bin/python -I -"
    words = f"sudo -u dspark-gateway env HOME=/tmp {program} <<'PY' | tail -1\n{_LITELLM}\nPY"
    document = tmp_path / "litellm.json"
    document.write_text(ServingBench(gateway.operator).root("head", words, timeout_s=300))
    done = gateway.operator.run(
        "exposure routes", "--openapi", str(document), "--ca", str(gateway.edge.ca), "--json", timeout_s=900
    )
    assert done.rc == 0, done
    answers = done.document()["answers"]
    assert len(answers) > 500
    assert {answer["status"] for answer in answers} <= {401, 404}


def test_a_new_key_is_good_and_a_revoked_one_is_not_at_once(gateway: Installed) -> None:
    key = key_for(gateway.operator, "carol")
    assert gateway.edge.status("GET /v1/models HTTP/1.1", key=key) == 200
    done = gateway.operator.run("gateway key revoke", "carol")
    assert done.rc == 0, done
    assert gateway.edge.status("GET /v1/models HTTP/1.1", key=key) == 401
    assert gateway.edge.status("GET /v1/models HTTP/1.1", key=gateway.key) == 200


def test_the_cloud_answers_while_the_pair_is_down(gateway: Installed, cloud: Cloud) -> None:
    """kill -9 of the engine's core: local, cloud, local; whole or broken, no answer is of two backends."""
    bench = ServingBench(gateway.operator)
    bench.prepare({})
    before = bench.epoch()
    with asking(gateway.edge, gateway.key) as heard:
        wait_until(lambda: heard.count("local") >= 4, "the pair answers", timeout_s=120)
        bench.root("head", f"kill -9 {PROCESSES['engine core'][1]}")
        wait_until(lambda: heard.count("cloud") >= 4, "the cloud answers", timeout_s=120)
        with gateway.edge.client(gateway.private) as client:
            refused = asked(client, question())
        assert bench.until(lambda: bench.serves_anew(before), 600), bench.status()
        mark = len(heard.answers)
        wait_until(lambda: heard.count("local", since=mark) >= 4, "the pair answers again", timeout_s=120)
    assert (refused.status, refused.backend, refused.reason) == (503, "none", "local-down"), refused.raw
    assert int(refused.headers["retry-after"]) > 0
    assert heard.failed == []
    assert [wrong for a in heard.answers if a.status == 200 and (wrong := belongs_to_one(a))] == []
    backends = [a.backend for a in heard.answers if a.status == 200]
    first, last = backends.index("cloud"), len(backends) - 1 - backends[::-1].index("cloud")
    assert set(backends[:first]) == set(backends[last + 1 :]) == {"local"}
    # What was refused meanwhile, if anything, says how long to wait.
    assert [a.raw for a in heard.answers if a.status != 200 and "retry-after" not in a.headers] == []


def test_a_drained_pair_hands_over_until_the_budget_is_spent(gateway: Installed, cloud: Cloud) -> None:
    operator = gateway.operator
    spent = max(money["spent_usd"] for money in gateway.status()["money"])
    words = cloud.words(hour_usd=round(spent + 1, 4))
    done = operator.run("gateway install", "--yes", *words, timeout_s=1200)
    assert done.rc == 0, done
    held = operator.run("supervise hold", "--reason", "test of the gateway", "--minutes", "30", "--drain", "--yes")
    assert held.rc == 0, held
    try:
        with gateway.edge.client(gateway.key) as client:
            wait_until(lambda: asked(client, question()).backend == "cloud", "nothing new goes to the pair")
            answers = [asked(client, question(number)) for number in range(100)]
        with gateway.edge.client(gateway.private) as client:
            private = asked(client, question())
    finally:
        assert operator.run("supervise resume", "--yes").rc == 0
    assert (private.status, private.backend, private.reason) == (503, "none", "local-down"), private.raw
    reasons = [a.reason for a in answers]
    stopped = reasons.index("cloud-budget-hour")
    assert stopped > 0
    assert {a.backend for a in answers[:stopped]} == {"cloud"}
    assert {(a.status, a.backend) for a in answers[stopped:]} == {(503, "none")}, "it stays closed"
    assert all(int(a.headers["retry-after"]) > 0 for a in answers[stopped:])
    hour = next(money for money in gateway.status()["money"] if money["window"] == "hour")
    assert hour["spent_usd"] <= hour["budget_usd"]
    with gateway.edge.client(gateway.key) as client:
        wait_until(lambda: asked(client, question()).backend == "local", "the pair answers again")
