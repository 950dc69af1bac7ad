"""Pairs that another recipe runs: found without their names, judged by the same catalogue, without nonsense."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.models import ROLES
from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.foreign import look as looking
from dspark_ops.doctor.foreign.facts import PROCESS, probes_after
from dspark_ops.doctor.foreign.look import ForeignRequest, Look, combine, prepare
from dspark_ops.doctor.recording import session
from dspark_ops.doctor.recording.reading import load
from dspark_ops.doctor.recording.writing import Recorded, write
from dspark_ops.doctor.run import Request
from dspark_ops.errors import ConfigError
from dspark_ops.facts.rank import RANK_CONTAINER
from dspark_ops.report.models import Finding, Report
from dspark_ops.transport.base import Command, Files, LogScan, NodeReading, ProbeResult
from dspark_ops.transport.readonly import assert_read_only
from tests.ssh_nodes import SimulatedNodes
from tests.unit.doctor.foreign_pair import (
    NAMES,
    PID,
    REQUEST,
    first_readings,
    look_at_recipe,
    recipe,
    second_readings,
)
from tests.unit.doctor.pair_fixture import load_case_site, pair_facts

MOMENT = datetime(2026, 11, 27, 17, 0, tzinfo=UTC)
WISHES = Request(site=Path("site.yml"))
#: What these reconstructed pairs can be judged by: the recorded nodes below them are a rehearsal's.
DOMAINS = ("nccl.", "service.", "tenant.", "image.")


def judged(seen: Look, wishes: Request = WISHES) -> Recorded:
    return session.judged(seen, wishes, MOMENT)


def report_of(seen: Look) -> Report:
    report = judged(seen).report
    assert report is not None
    return report


def by_id(report: Report, identity: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.id == identity]


def document(name: str) -> dict[str, Any]:
    return copy.deepcopy(recipe(name))


def test_there_are_recipes_enough() -> None:
    assert len(NAMES) >= 7
    assert "article" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_serves_is_found_by_its_command(name: str) -> None:
    expected = document(name)["expect"]
    seen = look_at_recipe(document(name))
    server = seen.pair.head.server
    assert server is not None
    assert (server.keeper, server.place) == (expected["keeper"], expected["place"])
    assert server.running
    assert {PID, PID + 1} <= set(server.pids)
    assert seen.loaded.profile.name == expected["profile"]
    assert seen.loaded.site.serve.api_port == expected["port"]
    assert seen.loaded.site.serve.max_model_len == expected["length"]
    assert next(str(rail.head.address) for rail in seen.loaded.site.fabric.rails) == "10.77.0.1/24"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_judged_and_only_what_is_wrong_is_told(name: str) -> None:
    expected = document(name)["expect"]
    report = report_of(look_at_recipe(document(name)))
    wrong = {f.id for f in report.findings if f.status == "fail" and f.id.startswith(DOMAINS)}
    known = {"nccl.rdma_device", "nccl.memlock"} if name == "ray" else set()
    assert wrong - known == set(expected["fail"])
    assert not [f for f in report.findings if "the rule broke" in f.observed]
    assert report.message.splitlines()[0].count("not set up by dspark-ops") == 1
    assert f"judged by profile {expected['profile']}" in report.message


@pytest.mark.parametrize("name", NAMES)
def test_what_only_we_write_is_skipped_with_the_reason(name: str) -> None:
    report = report_of(look_at_recipe(document(name)))
    for identity in ("service.release_current", "tenant.foreign_name", "image.present", "image.reference"):
        assert {f.status for f in by_id(report, identity)} == {"skip"}, identity
    assert all("dspark-ops" in f.observed for f in by_id(report, "image.present"))
    commands = [f.remedy.command for f in report.findings if f.remedy is not None and f.remedy.command is not None]
    assert not [command for command in commands if "--site" in command]
    assert "--site" not in (report.next_step or "")
    assert report.site is None


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_of_it_says_the_same(name: str, tmp_path: Path) -> None:
    found = judged(look_at_recipe(document(name)))
    assert found.report is not None
    manifest = write(found, tmp_path / "rec")
    assert manifest.foreign
    recording = load(tmp_path / "rec")
    again = session.replay(recording, WISHES)
    assert recording.report is not None
    assert [f.model_dump() for f in again.findings] == [f.model_dump() for f in recording.report.findings]
    assert again.exit_code == found.report.exit_code
    text = "".join(path.read_text() for path in (tmp_path / "rec").iterdir())
    for secret in ("PlantedTokenAbc", "mia-9f3c7712ab", "198392500"):
        assert secret not in text


def test_the_articles_pair_has_the_faults_that_its_recipe_gives_it() -> None:
    report = report_of(look_at_recipe(document("article")))
    told = {f.observed for f in by_id(report, "nccl.gid_index_unset")}
    assert told == {"NCCL_IB_GID_INDEX is defined and empty, which is not unset"}
    held = "container dspark-vllm-dspark-1 (compose project dspark)"
    paired = [f.observed for f in by_id(report, "service.ranks_paired")]
    assert paired == [f"both run: head {held}, worker {held}"]
    assert {f.status for f in by_id(report, "service.models_endpoint")} == {"ok"}


def test_the_process_counts_and_not_what_its_container_was_told() -> None:
    seen = look_at_recipe(document("reederey87"))
    rank = seen.facts.head.rank
    assert rank is not None
    assert "NCCL_IB_GID_INDEX" not in rank.env, "its entry unsets the empty variable"
    assert rank.args[:2] == ("vllm", "serve")
    assert "NODE_RANK" not in rank.env


def test_a_server_below_docker_exec_is_found_in_its_container() -> None:
    server = look_at_recipe(document("eugr")).pair.head.server
    assert server is not None
    assert server.container_name == "vllm_node"
    assert {4000, PID} <= set(server.pids), "all of the container"
    assert server.where == "container vllm_node"


def test_a_bare_process_is_judged_and_its_container_is_not_missed() -> None:
    report = report_of(look_at_recipe(document("screen")))
    assert {f.status for f in by_id(report, "nccl.gid_index_unset")} == {"fail"}
    assert {f.status for f in by_id(report, "service.restart_policy")} == {"skip"}
    assert {f.observed for f in by_id(report, "service.restart_policy")} == {
        "what serves runs outside of a container of Docker"
    }
    assert "head process 4242 (a screen session)" in report.message


def test_a_bare_process_whose_variables_cannot_be_read_is_unknown_and_not_wrong() -> None:
    recipe_ = document("screen")
    first, second = first_readings(recipe_), second_readings(recipe_)
    found = prepare(REQUEST, first)
    shut = {}
    for role in ROLES:
        cmdline = {p: t for p, t in (second[role].get(PROCESS).files or {}).items() if p.endswith("cmdline")}
        results = {**second[role].results, PROCESS: ProbeResult(id=PROCESS, files=cmdline)}
        shut[role] = second[role].model_copy(update={"results": results})
    seen = combine(found.loaded, found.pair, first, shut, found.probes(active=False))
    report = report_of(seen)
    assert {f.status for f in by_id(report, "nccl.gid_index_unset")} == {"unknown"}


def test_an_api_that_wants_a_key_is_skipped_and_not_unknown() -> None:
    report = report_of(look_at_recipe(document("miaai")))
    assert [(f.status, f.observed) for f in by_id(report, "service.models_endpoint")] == [
        ("skip", "the API asks for a key, which is not known here")
    ]


def test_workers_of_ray_are_said_to_be_started_by_it() -> None:
    report = report_of(look_at_recipe(document("ray")))
    assert "worker: Ray runs" in report.message
    assert {f.status for f in by_id(report, "service.ranks_paired")} == {"skip"}
    assert {(f.node, f.status) for f in by_id(report, "tenant.gpu_process")} == {("head", "ok"), ("worker", "skip")}


def test_when_nothing_serves_that_is_said_and_the_hosts_are_judged() -> None:
    recipe_ = document("article")
    recipe_["on"] = []
    recipe_["container"]["own_command"] = ["sleep", "infinity"]
    report = report_of(look_at_recipe(recipe_))
    assert "found: head no vLLM server, worker no vLLM server" in report.message
    assert {f.status for f in by_id(report, "service.health")} == {"skip"}
    assert {f.status for f in by_id(report, "fabric.mtu")} == {"ok"}
    assert {f.status for f in by_id(report, "nccl.gid_index_unset")} == {"skip"}


def test_a_container_that_has_ended_is_found_by_its_command() -> None:
    recipe_ = document("article")
    recipe_["container"]["state"] = "exited"
    recipe_["on"] = []
    seen = look_at_recipe({**recipe_, "on": []})
    server = seen.pair.head.server
    assert server is not None
    assert not server.running
    assert server.node_rank == 0
    assert "which has ended" in report_of(seen).message


def test_ranks_that_were_named_the_other_way_round_are_believed() -> None:
    recipe_ = document("article")
    first, second = first_readings(recipe_), second_readings(recipe_)
    turned = {"head": first["worker"], "worker": first["head"]}
    found = prepare(ForeignRequest("gx10-b", "gx10-a"), turned)  # type: ignore[arg-type]
    assert found.pair.swapped
    assert found.loaded.site.nodes.head.host == "gx10-a"
    seen = combine(
        found.loaded, found.pair, {r: turned[found.order[r]] for r in ROLES}, second, dict.fromkeys(ROLES, ())
    )
    assert seen.readings["head"].node == "head"
    assert seen.facts.head.rank is not None
    assert seen.facts.head.rank.env["VLLM_HOST_IP"] == "10.77.0.1"
    assert "gx10-a runs rank 0" in report_of(seen).message


def test_two_servers_of_which_none_is_told_of_a_pair_are_not_guessed_about() -> None:
    recipe_ = document("article")
    first = first_readings(recipe_)
    single = document("article")
    single["argv"] = [w for w in single["argv"] if w not in ("--nnodes",)]
    first = first_readings(single)
    head = first["head"]
    files = {p: dict(head.get(f"proc.{p}").files or {}) for p in ("stat", "status", "cgroup", "cmdline")}
    for part, found in files.items():
        found[f"/proc/7777/{part}"] = found[f"/proc/{PID}/{part}"].replace(str(PID), "7777")
    results = {**head.results, **{f"proc.{p}": ProbeResult(id=f"proc.{p}", files=f) for p, f in files.items()}}
    first["head"] = head.model_copy(update={"results": results})
    found = prepare(REQUEST, first)
    assert found.pair.head.server is None
    assert len(found.pair.head.others) == 2
    assert any("which is the rank is not known" in note for note in found.pair.notes)


def test_a_node_that_is_down_leaves_the_other_judged() -> None:
    recipe_ = document("article")
    first = first_readings(recipe_)
    first["worker"] = NodeReading(node="worker", reachable=False, error="gx10-b: no answer within 10 s")
    found = prepare(REQUEST, first)
    assert not found.pair.rails_known
    second = {"head": second_readings(recipe_)["head"]}
    seen = combine(found.loaded, found.pair, first, second, found.probes(active=False))  # type: ignore[arg-type]
    report = report_of(seen)
    assert report.exit_code == 3
    assert "worker not reached" in report.message
    assert {f.status for f in by_id(report, "reach.ssh")} == {"ok", "fail"}
    assert not [f for f in report.findings if f.node == "head" and "rail-unknown" in f.observed + (f.expected or "")]
    assert [f.status for f in by_id(report, "nccl.gid_index_unset") if f.node == "head"] == ["fail"]


def test_rails_without_addresses_are_not_judged_by_invented_ones() -> None:
    recipe_ = document("article")
    first, second = first_readings(recipe_), second_readings(recipe_)
    for readings in (first, second):
        for role in ROLES:
            found = readings[role].get("links.addr")
            bare = (
                (found.stdout or "").replace('"local":"10.77.', '"local":"169.77.')
                if role == "worker"
                else found.stdout
            )
            results = {**readings[role].results, "links.addr": found.model_copy(update={"stdout": bare})}
            readings[role] = readings[role].model_copy(update={"results": results})
    prepared = prepare(REQUEST, first)
    assert prepared.pair.invented
    seen = combine(prepared.loaded, prepared.pair, first, second, prepared.probes(active=False))
    report = report_of(seen)
    told = [f for f in report.findings if f.status != "skip"]
    assert not [f for f in told if any(word in f.observed + (f.expected or "") for word in prepared.pair.invented)]


@pytest.mark.parametrize("name", ["article", "screen"])
def test_every_probe_reads_only_and_asks_for_the_found_container(name: str) -> None:
    seen = look_at_recipe(document(name))
    assert_read_only(looking.FIRST)
    for role in ROLES:
        asked = probes_after(seen.loaded.site, role, seen.pair.of(role).server)
        assert_read_only(asked)
        words = [w for p in asked if isinstance(p, Command | LogScan) for w in p.argv]
        assert RANK_CONTAINER not in words
        server = seen.pair.of(role).server
        assert server is not None
        assert server.container is None or server.container in words
        assert any(isinstance(p, Files) and f"/proc/{PID}/environ" in p.patterns for p in asked)


def test_what_served_the_search_is_not_kept() -> None:
    seen = look_at_recipe(document("article"))
    assert not [name for name in seen.readings["head"].results if name.startswith(("proc.", "find.", "init."))]


@pytest.mark.parametrize(
    "request_",
    [
        ForeignRequest("a", "a"),
        ForeignRequest("-oProxyCommand=x", "b"),
        ForeignRequest("a", "b", ssh_config=Path("/absent/config")),
        ForeignRequest("a", "b", user="-x"),
        ForeignRequest("a", "b", user=""),
    ],
)
def test_a_wrong_request_contacts_nothing(request_: ForeignRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "read_nodes", lambda *_: pytest.fail("a node was contacted"))
    with pytest.raises(ConfigError):
        session.foreign(request_, WISHES)


def test_a_wrong_id_contacts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "read_nodes", lambda *_: pytest.fail("a node was contacted"))
    with pytest.raises(ConfigError):
        session.foreign(REQUEST, Request(site=Path("s"), only=("no.such",)))


def test_two_round_trips_a_node_and_the_login_that_was_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe_ = document("article")
    answers = [first_readings(recipe_), second_readings(recipe_)]
    users = []

    def read_nodes(runners: dict[Any, Any], probes: dict[Any, Any]) -> dict[Any, NodeReading]:
        users.append({runner.target.user for runner in runners.values()})
        return answers.pop(0)

    monkeypatch.setattr(looking, "read_nodes", read_nodes)
    config = tmp_path / "config"
    config.write_text("")
    request = ForeignRequest("gx10-a", "gx10-b", ssh_config=config, user="nvidia")
    report, manifest = session.foreign(request, WISHES, tmp_path / "rec")
    assert users == [{"nvidia"}, {"nvidia"}]
    assert manifest is not None
    assert report.exit_code == session.simulate(WISHES, tmp_path / "rec").exit_code == 1
    assert answers == []


def test_the_rest_of_a_healthy_pair_is_not_blamed_for_being_somebody_elses() -> None:
    seen = look_at_recipe(document("article"))
    facts = pair_facts()
    lent = {role: seen.facts.of(role).rank for role in ROLES}
    renamed = {}
    for role in ROLES:
        node, rank = facts.of(role), lent[role]
        assert node.rank is not None
        assert rank is not None
        mixed = node.rank.model_copy(update={"labels": rank.labels, "env": rank.env, "args": rank.args})
        rows = tuple(
            row.model_copy(update={"name": "dspark-vllm-dspark-1", "labels": {}}) if row.name == RANK_CONTAINER else row
            for row in node.containers or ()
        )
        renamed[role] = node.model_copy(update={"rank": mixed, "containers": rows})
    theirs = load_case_site()
    known = {"fabric": theirs.site.fabric, "nodes": theirs.site.nodes, "image": theirs.site.image}
    loaded = replace(seen.loaded, site=seen.loaded.site.model_copy(update=known))
    both = facts.model_copy(update=renamed)  # type: ignore[arg-type]
    report = report_of(Look(loaded, seen.pair, seen.readings, seen.probes, both))
    of_others = (
        "host.",
        "gpu.",
        "nic.",
        "fabric.",
        "memory.",
        "weights.",
        "operations.",
        "security.",
        "tenant.",
        "image.",
    )
    wrong = {f.id: f.observed for f in report.findings if f.status not in ("ok", "skip") and f.id.startswith(of_others)}
    assert wrong == {}


def test_every_id_that_is_retold_is_in_the_catalogue_or_a_pattern() -> None:
    from dspark_ops.doctor.foreign import retelling

    known = load_catalogue()
    for group in (retelling.OURS, retelling.PROFILE, retelling.MODEL):
        missing = [name for name in group if "*" not in name and name not in known]
        assert missing == []


def test_over_real_ssh_each_node_is_logged_into_once_and_asked_twice(tmp_path: Path) -> None:
    recipe_ = document("article")
    first, second = first_readings(recipe_), second_readings(recipe_)
    whole = []
    for role in ROLES:
        results = {**first[role].results, **second[role].results}
        whole.append(first[role].model_copy(update={"results": results, "sudo": True}).model_dump(mode="json"))
    nodes = SimulatedNodes(2, whole)
    try:
        config = nodes.write_access(tmp_path)
        report, _ = session.foreign(ForeignRequest("node-0", "node-1", ssh_config=config), WISHES, tmp_path / "rec")
    finally:
        nodes.close()
    assert [(c.sessions, c.programs) for c in nodes.counts] == [(1, 2), (1, 2)]
    assert "proc.cmdline" in nodes.counts[0].asked[0]
    assert PROCESS in nodes.counts[0].asked[1]
    assert {f.status for f in by_id(report, "nccl.gid_index_unset")} == {"fail"}
    assert session.simulate(WISHES, tmp_path / "rec").exit_code == report.exit_code


def test_a_rank_of_ours_without_its_site_file_is_said_to_be_ours() -> None:
    recipe_ = document("article")
    first = first_readings(recipe_)
    for role in ROLES:
        rows = (first[role].get("find.ps").stdout or "").replace(
            '"Labels": "', '"Labels": "io.dspark-ops.site=lab,io.dspark-ops.role=' + role + ","
        )
        results = {**first[role].results, "find.ps": ProbeResult(id="find.ps", rc=0, stdout=rows)}
        first[role] = first[role].model_copy(update={"results": results})
    found = prepare(REQUEST, first)
    seen = combine(found.loaded, found.pair, first, second_readings(recipe_), found.probes(active=False))
    report = report_of(seen)
    assert "set up by dspark-ops as site lab, whose site file was not named" in report.message
    assert {f.status for f in by_id(report, "service.release_current")} == {"skip"}


def keyed(*answers: ProbeResult) -> Report:
    """A pair whose API wants a key for what lies below /v1, and answers so elsewhere."""
    recipe_ = document("miaai")
    first, second = first_readings(recipe_), second_readings(recipe_)
    found = prepare(REQUEST, first)
    results = second[found.order["head"]].results | {answer.id: answer for answer in answers}
    placed = {role: second[found.order[role]] for role in ROLES}
    placed["head"] = placed["head"].model_copy(update={"results": results})
    return report_of(
        combine(found.loaded, found.pair, {r: first[found.order[r]] for r in ROLES}, placed, found.probes(active=False))
    )


def test_a_key_hides_nothing_of_what_is_answered_without_one() -> None:
    sleeping = 'vllm:engine_sleep_state{sleep_state="awake"} 0.0\n'
    report = keyed(
        ProbeResult(id="service.health", rc=503, stdout=""),
        ProbeResult(id="metrics.first", rc=200, stdout=sleeping),
    )
    assert [(f.status, f.observed[-11:]) for f in by_id(report, "service.health")] == [("fail", "answers 503")]
    assert {f.status for f in report.findings if f.id.startswith("runtime.")} - {"skip"}
    shut = keyed(*(ProbeResult(id=name, rc=401, stdout="") for name in ("service.health", "metrics.first")))
    assert [(f.status, f.observed) for f in by_id(shut, "service.health")] == [
        ("skip", "the API asks for a key, which is not known here")
    ]
