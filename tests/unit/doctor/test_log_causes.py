"""One cause is one root, over both nodes: what a rank's log says explains how the pair ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.models import Role
from dspark_ops.doctor.engine import run_checks
from tests.unit.doctor.pair_fixture import base_document, load_case_site, pair_facts

LINES: dict[str, str] = {
    entry["signature"]: entry["line"]
    for entry in json.loads((Path(__file__).parents[2] / "fixtures/logs/known-lines.json").read_text("utf-8"))["lines"]
}
START_S = 1795464000.0


def said(role: Role, at_s: float, *signatures: str) -> list[Any]:
    """Known lines in the log of a rank, so many seconds after its start."""
    return [
        [
            [role, "engine_log", "hits", "+"],
            {"signature": name, "count": 1, "lines": [{"at_s": START_S + at_s, "text": LINES[name]}]},
        ]
        for name in signatures
    ]


def ended(role: Role, code: int) -> list[Any]:
    """A rank that is not there any more and was not asked to go."""
    state = {"state": "exited", "exit_code": code, "ended_in_order": False, "pids": None}
    return [[[role, "rank", key], value] for key, value in state.items()]


def never_ready() -> list[Any]:
    """The head's log up to where the API would have been ready."""
    hits = base_document()["head"]["engine_log"]["hits"]
    return [[["head", "engine_log", "hits"], [hit for hit in hits if hit["signature"] != "api_ready"]]]


@pytest.mark.parametrize(
    ("changes", "root"),
    [
        (
            [*never_ready(), *ended("head", 1), *said("head", 30, "kv_too_small", "core_init_failed")],
            ("boot.kv_cache_fits", "head"),
        ),
        (
            [
                *never_ready(),
                *ended("head", 1),
                *ended("worker", 1),
                *said("worker", 30, "shard_damaged"),
                *said("head", 33, "peer_closed", "core_init_failed"),
            ],
            ("boot.shard_whole", "worker"),
        ),
        (
            [
                *never_ready(),
                *ended("head", 1),
                *said("head", 5, "port_in_use"),
                *said("worker", 65, "rendezvous_unreachable"),
            ],
            ("boot.port_free", "head"),
        ),
        (
            [
                *ended("head", 0),
                *ended("worker", 0),
                *said("worker", 900, "collective_mismatch", "worker_signalled"),
                *said("head", 901, "peer_reset", "engine_dead", "engine_fatal"),
            ],
            ("log.ranks_agree", "worker"),
        ),
        (
            [
                *ended("head", 0),
                *ended("worker", 137),
                *said("head", 901, "peer_closed", "engine_fatal", "engine_dead"),
            ],
            ("log.rank_killed", "worker"),
        ),
        (
            [*ended("head", 0), *said("head", 900, "rpc_timeout", "engine_dead"), *said("worker", 600, "nccl_retry")],
            ("log.rail_retries", "worker"),
        ),
    ],
)
def test_one_cause_is_one_root(changes: list[Any], root: tuple[str, str]) -> None:
    report = run_checks(
        pair_facts({"set": changes}),
        load_case_site(),
        only=["boot.*", "log.*", "service.ranks_paired", "service.exit_code_zero_is_death"],
    )
    bad = [f for f in report.findings if f.status not in ("ok", "skip")]
    assert len(bad) > 1, "it has consequences"
    assert [(f.id, f.node) for f in bad if f.caused_by is None] == [root]
    assert {f.caused_by for f in bad if f.caused_by is not None} == {root[0]}


def test_a_log_that_was_cut_is_one_root_and_no_failure() -> None:
    report = run_checks(
        pair_facts({"set": [[["head", "engine_log", "cut"], "time"]]}), load_case_site(), only=["boot.*", "log.*"]
    )
    bad = [f for f in report.findings if f.status not in ("ok", "skip")]
    assert {f.status for f in bad} == {"warn", "unknown"}
    assert [(f.id, f.node) for f in bad if f.caused_by is None] == [("log.read_whole", "head")]
    assert not [f for f in bad if f.id.startswith("boot.")], "the start was read"


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_pair_that_was_never_deployed_is_not_judged(role: Role) -> None:
    changes = [[[r, key], None] for r in ("head", "worker") for key in ("rank", "engine_log")]
    report = run_checks(pair_facts({"set": changes}), load_case_site(), only=["boot.*", "log.*"])
    assert {f.status for f in report.findings if f.node in (role, "pair")} == {"skip"}
