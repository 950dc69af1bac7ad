"""`monitor install` as an operator has it: the distribution's programs on real nodes, alerts that come and are told."""

from __future__ import annotations

import http.server
import itertools
import json
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.lab.conftest import HEAD, WORKER, RehearsalPair
from tests.lab.operator_cli import Operator

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(1500)]

#: Everything that monitoring may bring to a node. The account `prometheus` is of Debian's packages, which leave it.
_LEFT = r"""
sudo ls -d /etc/dspark/monitoring /etc/dspark/exporter.json /usr/local/lib/dspark/exporter.pyz 2>/dev/null
sudo ls -d /etc/prometheus /var/lib/dspark/monitoring-packages /var/lib/prometheus 2>/dev/null
sudo find /var/lib /var/lib/private -maxdepth 1 -name "dspark-prometheus" -o -maxdepth 1 -name "dspark-alertmanager"
sudo find /etc/systemd/system /lib/systemd/system -name "*prometheus*" -o -name "dspark-alertmanager*" \
  -o -name "dspark-exporter*" -o -name "dspark-node-exporter*"
sudo ss -Hltn | grep -E ":(9090|9093|9100|9835) "
true
"""
_PACKAGES = "dpkg-query --show --showformat='${Package} ${db:Status-Status}\n' | sort"
_RAIL = "enP2p1s0f1np1"


@dataclass
class Receiver:
    """A receiver of alerts on this machine, as the head reaches it. posts: (moment, path, body); refuses: with 403."""

    port: int
    posts: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    refuses: bool = False

    def heard(self, name: str, status: str = "firing") -> bool:
        """Whether people were told that this alert fires, or is over."""
        return any(
            alert["labels"]["alertname"] == name and alert["status"] == status
            for _, path, body in list(self.posts)
            if path == "/people"
            for alert in body["alerts"]
        )

    def beats(self) -> list[float]:
        """When the heartbeat came."""
        return [at for at, path, _ in list(self.posts) if path == "/dead-man"]


@pytest.fixture(scope="module")
def receiver(pair: RehearsalPair) -> Iterator[Receiver]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(403 if made.refuses else 200)
            self.end_headers()
            if not made.refuses:
                made.posts.append((time.monotonic(), self.path, json.loads(raw)))

        def log_message(self, *_: Any) -> None:
            """Silence."""

    address = pair.run(HEAD, "ip -4 route show default | cut -d' ' -f3")
    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    made = Receiver(server.server_address[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def before(operator: Operator, pair: RehearsalPair) -> dict[str, str]:
    """Which packages the nodes had."""
    return {node: pair.run(node, _PACKAGES) for node in (HEAD, WORKER)}


@pytest.fixture(scope="module")
def monitored(
    operator: Operator,
    before: dict[str, str],
    receiver: Receiver,
    pair: RehearsalPair,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Operator]:
    """The pair with monitoring that tells the receiver, and an engine that serves."""
    operator.run("monitor remove", "--yes")
    done = operator.run("deploy", "--yes")
    assert done.rc == 0, done
    folder = tmp_path_factory.mktemp("monitoring")
    address = pair.run(HEAD, "ip -4 route show default | cut -d' ' -f3")
    for name in ("people", "dead-man"):
        (folder / name).write_text(f"http://{address}:{receiver.port}/{name}\n")
    site = folder / "site.yml"
    told = f"monitoring:\n  webhook_file: {folder / 'people'}\n  dead_man_file: {folder / 'dead-man'}\n"
    site.write_text(operator.site.read_text() + told)
    someone = Operator(site, operator.ssh_config)
    done = someone.run("monitor install", "--yes", "--json")
    assert (done.rc, done.document()["verdict"]) == (0, "changed"), done
    yield someone
    someone.run("monitor remove", "--yes")


def eventually(what: str, look: Callable[[], Any], limit_s: float) -> Any:
    deadline = time.monotonic() + limit_s
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:.0f} s"
        time.sleep(2)


def status(operator: Operator) -> dict[str, Any]:
    found: dict[str, Any] = operator.run("monitor status", "--json").document()
    return found


def alert(operator: Operator, name: str) -> str | None:
    """Its state in Prometheus, the graver one where there are several."""
    found = sorted(one["state"] for one in status(operator)["alerts"] if one["name"] == name)
    return found[0] if found else None


def ask(pair: RehearsalPair, query: str) -> list[dict[str, Any]]:
    """What Prometheus on the head answers."""
    asked = shlex.quote(f"query={query}")
    text = pair.run(HEAD, f"curl -sSG http://127.0.0.1:9090/api/v1/query --data-urlencode {asked}")
    found: list[dict[str, Any]] = json.loads(text)["data"]["result"]
    return found


def test_every_target_answers_and_nothing_of_it_is_open(monitored: Operator, pair: RehearsalPair) -> None:
    def up() -> Any:
        found = status(monitored)
        return found if found["heartbeat"] and {t["health"] for t in found["targets"]} == {"up"} else None

    found = eventually("every target up", up, 90)
    assert {(t["job"], t["role"]) for t in found["targets"]} - {("dspark-supervisor", "head")} == {
        *((job, role) for job in ("dspark", "node") for role in ("head", "worker")),
        *((job, "head") for job in ("vllm", "prometheus", "alertmanager")),
    }
    # Loopback, and the worker's end of the first rail: nothing else listens for it.
    listening = {
        node: set(pair.run(node, "sudo ss -Hltn | awk '{print $4}' | grep -E ':(9090|9093|9100|9835)$'").split())
        for node in (HEAD, WORKER)
    }
    assert all(at.startswith("127.0.0.1:") for at in listening[HEAD])
    assert {at.rpartition(":")[0] for at in listening[WORKER]} == {"127.0.0.1", "10.77.0.2"}


def test_the_receivers_address_is_in_no_file_for_all_and_in_no_process_list(
    monitored: Operator, receiver: Receiver, pair: RehearsalPair
) -> None:
    assert pair.run(HEAD, f"grep -rl ':{receiver.port}/' /etc 2>/dev/null; true") == ""
    assert pair.run(HEAD, f"ps axww -o args | grep -c '[:]{receiver.port}/'; true") == "0"
    assert str(receiver.port) in pair.run(HEAD, "sudo cat /etc/dspark/monitoring/alertmanager.yml")


def test_a_second_installation_changes_nothing(monitored: Operator) -> None:
    done = monitored.run("monitor install", "--yes", "--json")
    assert (done.rc, done.document()["verdict"], done.document()["changes"]) == (0, "unchanged", []), done


def test_a_rail_that_is_down_is_told_to_people(monitored: Operator, receiver: Receiver, pair: RehearsalPair) -> None:
    pair.run(WORKER, f"sudo ip link set {_RAIL} down")
    try:
        eventually("the alert in Prometheus", lambda: alert(monitored, "RailDown"), 60)
        eventually("the message", lambda: receiver.heard("RailDown"), 120)
        assert monitored.run("monitor status").rc == 1
    finally:
        pair.run(WORKER, f"sudo ip link set {_RAIL} up")
    eventually("its end", lambda: alert(monitored, "RailDown") is None, 90)


def test_the_heartbeat_comes_every_minute(monitored: Operator, receiver: Receiver) -> None:
    begun = time.monotonic()
    beats = eventually("four heartbeats", lambda: (b := [at for at in receiver.beats() if at >= begun])[3:] and b, 400)
    gaps = [later - earlier for earlier, later in itertools.pairwise(beats)]
    assert max(gaps) < 90, gaps


def test_a_receiver_that_refuses_is_told_of(monitored: Operator, receiver: Receiver) -> None:
    receiver.refuses = True
    try:
        # The heartbeat is refused within a minute; there is nobody else to tell.
        eventually("the alert", lambda: alert(monitored, "AlertsNotDelivered") == "firing", 240)
        assert monitored.run("monitor status").rc == 1
    finally:
        receiver.refuses = False


def test_a_dead_engine_is_told_and_its_return_too(monitored: Operator, receiver: Receiver, pair: RehearsalPair) -> None:
    """Without a supervisor nobody restarts it: it stays down for longer than the two minutes of the alert."""
    pair.run(HEAD, "sudo pkill -9 -f [V]LLM::EngineCore")
    eventually("the message", lambda: receiver.heard("TargetMissing"), 400)
    # What is not known is absent, and never 0.
    assert ask(pair, 'dspark_source_up{source="engine"} == 0')
    assert ask(pair, "dspark_kv_pool_tokens or dspark_model_max_len or dspark_steps_per_second") == []
    assert ask(pair, 'dspark_rail_present{role="head"} == 1')
    assert monitored.run("start", "--yes").rc == 0
    eventually("the target", lambda: ask(pair, 'up{job="vllm"} == 1'), 120)
    eventually("its end", lambda: receiver.heard("TargetMissing", "resolved"), 500)


def test_an_installation_that_was_killed_is_finished_by_the_next(monitored: Operator, pair: RehearsalPair) -> None:
    assert monitored.run("monitor remove", "--yes").rc == 0
    assert monitored.kill_at("monitor install", "apply ...", "--yes", delay_s=25)
    done = monitored.run("monitor install", "--yes")
    assert done.rc == 0, done
    assert monitored.run("monitor install", "--yes", "--json").document()["verdict"] == "unchanged"
    eventually("every target up", lambda: {t["health"] for t in status(monitored)["targets"]} == {"up"}, 90)


def test_removing_leaves_nothing_and_the_pair_serves_on(
    monitored: Operator, pair: RehearsalPair, before: dict[str, str]
) -> None:
    done = monitored.run("monitor remove", "--yes")
    assert done.rc == 0, done
    assert {node: pair.run(node, _LEFT) for node in (HEAD, WORKER)} == {HEAD: "", WORKER: ""}
    assert {node: pair.run(node, _PACKAGES) for node in (HEAD, WORKER)} == before
    assert monitored.run("status").rc == 0
    done = monitored.run("monitor remove", "--yes", "--json")
    assert (done.rc, done.document()["verdict"]) == (0, "unchanged"), done
