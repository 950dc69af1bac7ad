"""Another profile, and back: under a client that never stops asking, with a gate that says no, and by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.operator_cli import Operator
from tests.lab.steady_client import steady_client

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


def serving_release(operator: Operator) -> str:
    status = operator.run("status", "--json").document()
    assert status["state"] == "ready", status
    (release,) = {rank["release"] for rank in status["ranks"]}
    return str(release)


def effective(operator: Operator, release: str) -> dict[str, Any]:
    """The argument lists that the processes of the last start of a release were seen with, by role."""
    shown = operator.run("releases show", release, "--json")
    assert shown.rc == 0, shown
    document = shown.document()
    assert document["differences"] == []
    return {role: rank["argv"] for role, rank in document["effective"].items()}


def cmdlines(operator: Operator) -> dict[str, str]:
    """The same, by our own eyes: /proc on both nodes."""
    return {role: operator.on(role, "cat", f"/proc/{operator.rank_pid(role)}/cmdline") for role in ("head", "worker")}


@pytest.mark.soak
def test_another_profile_and_back_with_no_wrong_answer_and_the_same_arguments(serving: Operator) -> None:
    first, words = serving_release(serving), cmdlines(serving)
    with steady_client(serving.ssh_config) as client:
        done = serving.run("deploy", "--yes", "--profile", "rehearsal-plain", "--json")
        assert (done.rc, done.document()["verdict"]) == (0, "ready"), done
        second = serving_release(serving)
        assert second != first
        client.wait_right()
        back = serving.run("rollback", "--yes", "--json")
        assert (back.rc, back.document()["verdict"]) == (0, "ready"), back
        client.wait_right()
    outages = client.outages_s()
    sys.stderr.write(f"\noutages of profile change and rollback: {outages} s, {len(client.right_at)} right answers\n")
    assert client.wrong == []
    assert len(outages) == 2
    assert serving_release(serving) == first
    assert cmdlines(serving) == words
    # The kernel's own words, from both ranks, are what the record says.
    assert {role: "\0".join(argv) + "\0" for role, argv in effective(serving, first).items()} == words
    differences = serving.run("releases diff", first, second)
    assert "--max-model-len" in differences.out, differences


def test_a_gate_that_says_no_brings_the_previous_release_back(serving: Operator, tmp_path: Path) -> None:
    first = serving_release(serving)
    gate = tmp_path / "gate"
    gate.write_text(
        '#!/bin/sh\ncurl -sf -m 10 $DSPARK_API_URL/v1/models | grep -q "$DSPARK_MODEL" || exit 7\n'
        "echo not good enough; exit 1\n"
    )
    gate.chmod(0o755)
    words = ("--profile", "rehearsal-plain", "--set", f'gate.command=["{gate}"]')
    done = serving.run("deploy", "--yes", "--json", *words)
    assert done.rc == 5, done
    document = done.document()
    assert document["verdict"] == "restored"
    assert "not good enough" in document["message"]
    assert f"release {first} serves again" in document["message"]
    assert serving_release(serving) == first
    listed = serving.run("releases", "--json").document()
    assert [r["gate"] for r in listed["releases"] if r["profile"] == "rehearsal-plain"] == ["failed"]


def test_a_release_that_is_not_kept_is_named_with_those_that_are(serving: Operator) -> None:
    first = serving_release(serving)
    done = serving.run("rollback", "r-ffffffffffff", "--yes")
    assert done.rc == 2, done
    assert first in done.err
    again = serving.run("rollback", first, "--yes", "--json")
    assert (again.rc, again.document()["verdict"]) == (0, "unchanged"), again


def test_what_serves_is_ensured_at_once(serving: Operator) -> None:
    done = serving.run("deploy", "--ensure", "--json")
    assert (done.rc, done.document()["changes"]) == (0, []), done
    assert [phase["name"] for phase in done.document()["phases"]] == ["observe"]
