"""The packed daemon as a process of its own, with stand-ins for docker and ssh: what an operator relies on."""

from __future__ import annotations

import json
import os
import resource
import stat
from pathlib import Path

import pytest

from tests.unit.supervise.node.stand_in import RELEASE, Pair, container, fetch, rank_document

pytestmark = pytest.mark.timeout(600)


def alerts(pair: Pair) -> list[str]:
    """The keys of the alerts that last."""
    return [alert["key"] for alert in pair.status()["alerts"]]


def _put(path: Path, text: str) -> None:
    """Whole or not at all: the stand-ins read it meanwhile."""
    fresh = path.with_suffix(".put")
    fresh.write_text(text)
    fresh.replace(path)


def test_a_death_is_heard_evidence_is_kept_and_both_ranks_come_back_as_one(pair: Pair) -> None:
    first = pair.until_serving()
    pair.until(lambda: pair.get("/route") == (200, "local\n"), "the route follows what was saved")
    before, asked = len(pair.calls("head")), len(pair.engine.asked)
    kept = set((pair.root / "state").glob("evidence/*"))
    pair.die("worker")
    pair.until(lambda: pair.serves() and pair.epochs()[0] != first, "another start serves")
    # The head of the old start was stopped before anything of the new one was begun.
    assert pair.calls("head")[before:] == [
        f"stop {first}", f"remove {first}", f"create {pair.epochs()[0]}", f"start {pair.epochs()[0]}",
    ]  # fmt: skip
    (bundle,) = set((pair.root / "state").glob("evidence/*")) - kept
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o700
    for role in ("head", "worker"):
        assert "Application startup complete" in (bundle / role / "log.txt").read_text()
        assert "planted-secret-value" not in (bundle / role / "inspect.json").read_text()
        assert "MemAvailable" in (bundle / role / "meminfo.txt").read_text()
    status = json.loads((bundle / "supervisor/status.json").read_text())
    assert status["incident"]["reason"] == "the rank on worker ended, exit code 0"
    told = json.loads(pair.ask("status").stdout)
    assert told["schema"] == "dspark-ops/supervise/v1"
    assert told["last_recovery"]["detect_s"] >= 0
    assert told["restarts"]["process"] == 1
    assert 'dspark_supervisor_state{state="serving"} 1' in pair.get("/metrics")[1]
    # 1 canary and 5 more, whole and streamed by turns, before each start serves.
    gate = ["whole", "whole", "stream", "whole", "stream", "whole"]
    since = pair.engine.asked[asked:]
    assert any(since[at : at + 6] == gate for at in range(len(since)))


def test_what_runs_as_wanted_is_taken_over_and_the_pair_is_left_when_the_daemon_ends(pair: Pair) -> None:
    epoch = pair.until_serving()
    before = pair.calls("head")
    assert pair.terminate() == 0
    assert pair.epochs() == (epoch, epoch)
    (pair.root / "state/state.json").unlink()
    (pair.root / "state/state.json.previous").unlink()
    pair.start()
    assert pair.until_serving() == epoch
    assert pair.calls("head") == before


def test_a_hold_is_kept_over_a_restart_and_nothing_is_done_meanwhile(pair: Pair) -> None:
    first = pair.until_serving()
    words = ("--reason", "a new image", "--owner", "run@desk", "--for-s", "600")
    assert pair.ask("hold", *words).returncode == 0
    assert stat.S_IMODE((pair.root / "run/supervise.sock").stat().st_mode) == 0o600
    other = pair.ask("hold", "--reason", "mine", "--owner", "someone", "--for-s", "5")
    assert other.returncode == 3
    assert "run@desk" in other.stderr
    pair.kill()
    pair.die("head")
    pair.start()
    pair.until(lambda: pair.saved()["state"] == "cooling", "it sees the death")
    status = pair.status()
    assert (status["held"], status["hold"]["owner"]) == (True, "run@desk")
    assert pair.epochs() == (None, first), "held: the worker that is left is not touched"
    assert "run@desk" in pair.ask("explain").stdout
    refused = pair.ask("resume", "--owner", "someone")
    assert refused.returncode == 3
    assert pair.ask("resume", "--owner", "run@desk").returncode == 0
    assert pair.until_serving() != first


def test_a_held_drain_takes_the_route_away_without_stopping_anything(pair: Pair) -> None:
    epoch = pair.until_serving()
    pair.ask("hold", "--reason", "r", "--owner", "o", "--for-s", "600", "--drain")
    assert pair.get("/route") == (404, "draining\n")
    pair.ask("resume")
    assert pair.get("/route") == (200, "local\n")
    assert pair.epochs() == (epoch, epoch)


@pytest.mark.soak
def test_adopt_reads_the_configuration_again_and_refuses_a_wrong_one(pair: Pair) -> None:
    first = pair.until_serving()
    good = (pair.root / "supervise.json").read_text()
    (pair.root / "supervise.json").write_text(good.replace('"wanted"', '"wnated"'))
    refused = pair.ask("adopt")
    assert refused.returncode == 3
    assert "wnated" in refused.stderr or "'wanted'" in refused.stderr
    assert pair.serves()
    ranks = {role: rank_document(role, "r-ba9876543210") for role in ("head", "worker")}
    pair.configure(ranks=ranks)
    assert json.loads(pair.ask("adopt").stdout)["release"] == "r-ba9876543210"
    assert pair.epochs() == (first, first), "what serves is not stopped because another release is adopted"
    pair.die("head")
    pair.until(lambda: pair.serves() and pair.epochs()[0] != first, "the adopted release serves")
    assert container(pair.root, "head")["Config"]["Labels"]["io.dspark-ops.release"] == "r-ba9876543210"  # type: ignore[index]
    pair.configure(wanted="stopped", ranks=ranks)
    epoch = pair.epochs()[0]
    pair.ask("adopt")
    pair.until(lambda: pair.saved()["state"] == "cooling", "it stands down")
    assert pair.epochs() == (epoch, epoch), "wanted stopped: what is there is not ours to end"


@pytest.mark.soak
def test_a_lost_management_path_only_alerts_and_the_fabric_carries_on(pair: Pair) -> None:
    first = pair.until_serving()
    (pair.root / "cut-mgmt.worker").touch()
    pair.until(lambda: "management-lost" in alerts(pair), "the alert")
    assert pair.serves()
    pair.die("worker")
    pair.until(lambda: pair.serves() and pair.epochs()[0] != first, "restarted over the fabric")


def test_a_docker_that_hangs_or_is_down_is_not_a_dead_rank(pair: Pair) -> None:
    first = pair.until_serving()
    (pair.root / "head/down").touch()
    (pair.root / "hangs-mgmt.worker").touch()
    (pair.root / "hangs-fab.worker").touch()
    pair.until(lambda: "docker-head" in alerts(pair), "it tells that docker cannot be asked")
    assert pair.status()["step_age_s"] < 30, "the loop goes on beside an ssh that hangs"
    assert pair.epochs() == (first, first)
    assert pair.status()["state"] in ("serving", "suspect")


def test_a_disk_that_is_full_keeps_the_last_good_state_and_starts_nothing_until_there_is_room(pair: Pair) -> None:
    first = pair.until_serving()
    process = pair.pid
    good = (pair.root / "state/state.json").read_bytes()
    # Nothing may be written to any file any more; reading, sockets and programs go on.
    resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    pair.die("worker")
    pair.until(lambda: pair.status()["state"] == "cooling", "the old start is down")
    status = pair.status()
    assert status["state_saved"] is False
    assert any("state.json could not be written" in problem for problem in status["problems"])
    assert "state-not-saved" in [alert["key"] for alert in status["alerts"]]
    assert (pair.root / "state/state.json").read_bytes() == good
    assert pair.calls("worker")[-1] == f"start {first}", "a start that is not on disk would be forgotten"
    resource.prlimit(process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    pair.until(lambda: pair.serves() and pair.epochs()[0] != first, "it serves when there is room")


def test_a_damaged_state_is_not_guessed_around(pair: Pair) -> None:
    epoch = pair.until_serving()
    pair.kill()
    path = pair.root / "state/state.json"
    path.write_bytes(path.read_bytes().replace(b'"number":', b'"number":1'))
    pair.start()
    pair.until(lambda: pair.status().get("state") == "failed", "latched")
    status = pair.status()
    assert "checksum" in status["latched"]
    assert pair.epochs() == (epoch, epoch)
    pair.ask("resume")
    assert pair.until_serving() == epoch


def test_one_daemon_per_node_and_a_wrong_configuration_is_an_error_at_once(pair: Pair) -> None:
    second = pair.ask("run")
    assert second.returncode == 4
    assert "another supervisor runs already" in second.stderr
    pair.kill()
    (pair.root / "supervise.json").write_text("{}")
    asked = pair.ask("run")
    assert asked.returncode == 2
    assert "has no 'schema'" in asked.stderr


def test_a_container_of_somebody_else_is_never_touched(pair: Pair) -> None:
    pair.kill()
    path = pair.root / "worker/container.json"
    ours = path.read_text()
    found = json.loads(path.read_text())
    found["Config"]["Labels"]["io.dspark-ops.site"] = "other"
    before = json.dumps(found)
    _put(path, before)
    pair.start()
    pair.until(lambda: pair.saved()["state"] == "cooling", "it waits")
    pair.until(lambda: "not of this site" in json.dumps(pair.saved()["waits_for"]), "it says what for")
    assert path.read_text() == before
    _put(path, ours)


def test_nothing_that_writes_is_on_http_and_it_is_loopback_only(pair: Pair) -> None:
    port = pair.port
    assert pair.get("/status")[0] == 200
    assert pair.get("/hold")[0] == 404
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert fetch(f"http://127.0.0.1:{port}/status", method)[0] == 501
    table = Path(f"/proc/{pair.pid}/net/tcp").read_text()
    assert [line.split()[1] for line in table.splitlines() if f":{port:04X} 00000000:0000 0A" in line] == [
        f"0100007F:{port:04X}"
    ]
    assert os.listdir(pair.root / "state")  # noqa: PTH208
    assert RELEASE in pair.get("/status")[1]
