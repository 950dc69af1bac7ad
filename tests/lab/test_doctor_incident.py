"""`doctor --incident` on the rehearsal pair: what really ended a rank is the first cause, and its peer's cry is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lab.doctor_bench import Bench
from tests.lab.operator_cli import RANK, Done, Operator
from tests.lab.steady_client import steady_client

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

_RUNNING = f"$(docker container inspect -f '{{{{.State.Running}}}}' {RANK})"
#: Until the rank of that node has ended by itself.
_UNTIL_ENDED = f"for i in $(seq 240); do [ {_RUNNING} = false ] && exit 0; sleep 0.5; done; exit 1"
_PIDS = f"docker container top {RANK} -eo pid,args"


def incident(operator: Operator, *words: str) -> tuple[Done, dict[str, Any]]:
    """One judgement of what happened in the last minutes."""
    done = operator.run("doctor", "--incident", "--json", *words, timeout_s=120)
    return done, done.document()


def harm(operator: Operator, role: str, script: str, until: str) -> None:
    """Harm one rank while a client asks, and wait until the named rank is gone."""
    bench = Bench(operator)
    with steady_client(operator.ssh_config, at_most_s=150):
        bench.root(role, script)
        bench.root(until, _UNTIL_ENDED)


@pytest.mark.soak
def test_a_killed_rank_is_the_cause_and_the_peer_that_cries_is_not(serving: Operator) -> None:
    harm(serving, "worker", f"docker kill {RANK} > /dev/null", "head")
    done, document = incident(serving, "--since", "10m")
    assert done.rc == 1, done
    cause = document["cause"]
    assert (cause["check"], cause["nodes"][0]) == ("log.rank_killed", "worker"), done
    assert "head" in {event["node"] for event in document["followed"]}, done
    assert document["others"] == [], done
    assert all(clock["offset_s"] is not None for clock in document["clocks"])
    # The same from what `logs` or a recording keeps, without a node.
    text = serving.run("doctor", "--incident", "--since", "10m", timeout_s=120)
    assert text.rc == 1
    assert text.out.splitlines()[-1].startswith("first cause: log.rank_killed on the worker"), text


@pytest.mark.soak
def test_an_engine_that_is_gone_without_a_word_is_told_as_that_and_no_cause_is_made_up(serving: Operator) -> None:
    harm(serving, "head", f"kill -9 $({_PIDS} | grep VLLM::EngineCore | head -1 | cut -d' ' -f1)", "head")
    done, document = incident(serving, "--since", "10m")
    assert (done.rc, document["verdict"], document["cause"]) == (3, "not-known", None), done
    sign = document["nearest"] or document["first_sign"]
    assert "head" in (sign.get("node"), *sign.get("nodes", ())), done


@pytest.mark.soak
def test_a_killed_worker_process_is_named_before_what_follows(serving: Operator) -> None:
    harm(serving, "worker", f"kill -9 $({_PIDS} | grep VLLM::Worker | head -1 | cut -d' ' -f1)", "head")
    done, document = incident(serving, "--since", "10m")
    assert done.rc == 1, done
    assert document["cause"]["nodes"][0] == "worker", done


@pytest.mark.soak
def test_a_pair_that_was_asked_to_stop_has_no_incident(serving: Operator) -> None:
    stopped = serving.run("stop", "--yes")
    assert stopped.rc == 0, stopped
    done, document = incident(serving, "--since", "30s")
    assert (done.rc, document["verdict"], document["cause"]) == (0, "nothing", None), done


@pytest.mark.soak
def test_a_pair_that_serves_has_no_incident(serving: Operator) -> None:
    done, document = incident(serving, "--since", "10s")
    assert (done.rc, document["verdict"]) == (0, "nothing"), done


@pytest.mark.soak
def test_a_recording_of_it_is_judged_alike_without_a_node(serving: Operator, tmp_path: Path) -> None:
    harm(serving, "worker", f"docker kill {RANK} > /dev/null", "head")
    place = tmp_path / "rec"
    serving.run("doctor", "--record", str(place), "--json", timeout_s=120)
    _, live = incident(serving)
    done, kept = incident(serving, "--from", str(place))
    assert done.rc == 1, done
    assert kept["cause"]["check"] == live["cause"]["check"]
    assert kept["cause"]["nodes"] == live["cause"]["nodes"]
