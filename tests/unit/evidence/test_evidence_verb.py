"""`dspark-ops evidence` end to end, with recorded nodes: what is in it, that nothing planted survives, a node down."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from dspark_ops.cli.evidence import evidence as command
from dspark_ops.config.models import ROLES, Role
from dspark_ops.doctor import run
from dspark_ops.doctor.recording.reading import load
from dspark_ops.doctor.run import Request
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.evidence import logs, verb
from dspark_ops.evidence.logs import LogEnd, read_end, wanted
from dspark_ops.evidence.verb import EvidenceRequest, evidence, render_packed
from dspark_ops.exitcodes import ExitCode
from dspark_ops.paths import state_dir
from dspark_ops.report.models import Report, now
from dspark_ops.report.store import save
from dspark_ops.transport.base import Command, NodeReading, Probe, ProbeResult
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.doctor.test_recorded_pair import SITE
from tests.unit.facts.captures import FIXTURES

PLANTED = {
    "hub token": "hf_Zq8Planted0Token1Of2The3Test4",
    "cloud token": "sk-planted0123456789abcdefXYZ",
    "api key": "planted-key-77af31",
    "password": "Planted9Password",
    "cookie": "planted0cookie1value2",
    "bearer": "planted0bearer1value2",
    "public address": "81.2.69.142",
    "hardware address": "4c:bb:47:01:1a:16",
    "serial": "1983925000117",
    "key": "b3BlbnNzaC1rZXktdjEPLANTED0123456789",
}
LOG = """2026-11-27T10:00:00Z non-default args: {{'api_key': ['{api key}'], 'port': 8888}}
2026-11-27T10:00:01Z HF_TOKEN={hub token} could not be used
2026-11-27T10:00:02Z GET /v1/models Authorization: Bearer {bearer}
2026-11-27T10:00:03Z Set-Cookie: session={cookie}; Path=/
2026-11-27T10:00:04Z fetching https://me:{password}@hub.example/x from {public address}
2026-11-27T10:00:05Z fallback to {cloud token}
2026-11-27T10:00:06Z neighbour lladdr {hardware address} serial: {serial}
-----BEGIN OPENSSH PRIVATE KEY-----
{key}
-----END OPENSSH PRIVATE KEY-----
2026-11-27T10:00:07Z again {api key}, {password}, {serial}
"""


class FakeRunner:
    """A node whose programs print lines."""

    def __init__(self, role: Role, lines: dict[str, list[str]]) -> None:
        self.node, self.lines, self.closed = role, lines, False
        self.kept = {"supervise.kept": ProbeResult(id="supervise.kept", files={})}

    def stream(self, command: Command) -> Iterator[str]:
        assert_read_only([command])
        yield from self.lines.get(command.id, [])

    def read(self, probes: list[Probe]) -> NodeReading:
        assert_read_only(probes)
        results = {probe.id: self.kept[probe.id] for probe in probes if probe.id in self.kept}
        return NodeReading(node=self.node, reachable=True, results=results)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def readings() -> dict[Role, NodeReading]:
    return {
        role: NodeReading.model_validate_json((FIXTURES / f"rehearsal/{role}.json").read_text(encoding="utf-8"))
        for role in ROLES
    }


@pytest.fixture
def pair(
    readings: dict[Role, NodeReading], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, dict[Role, NodeReading]]:
    """A site file with a secret, two recorded nodes, logs with planted secrets, and a report of an earlier run."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    image = (readings["head"].get("rank.inspect").stdout or "").split('"Image": "')[1].split('"')[0]
    site = tmp_path / "site.yml"
    told = "serve:\n  environment: {HF_TOKEN: " + PLANTED["hub token"] + "}\n"
    site.write_text(SITE.format(image=image) + told)
    lines = LOG.format(**PLANTED).splitlines()
    runners = {role: FakeRunner(role, {"logs": lines, "kernel": ["k"], "journal": lines}) for role in ROLES}
    monkeypatch.setattr(verb, "open_runner", lambda _, role: runners[role])
    monkeypatch.setattr(run.snapshot, "read_pair", lambda *_, **__: readings)
    moment = now()
    save(
        Report(
            verb="deploy",
            started_at=moment,
            finished_at=moment,
            verdict="failed",
            exit_code=5,
            message=f"the log said {PLANTED['api key']} and HF_TOKEN={PLANTED['hub token']}",
        )
    )
    return site, readings


def make(site: Path, **options: Any) -> tuple[verb.Packed, dict[str, bytes]]:
    packed = evidence(EvidenceRequest(Request(site=site), **options))
    with tarfile.open(packed.path, mode="r:gz") as archive:
        found = {e.name.split("/", 1)[1]: archive.extractfile(e).read() for e in archive.getmembers()}  # type: ignore[union-attr]
    return packed, found


def test_it_holds_what_a_bug_report_needs(pair: Any, tmp_path: Path) -> None:
    packed, files = make(pair[0], output=tmp_path / "e.tar.gz")
    wanted_names = {
        "manifest.json",
        "README.txt",
        "doctor.json",
        "doctor.txt",
        "control/site.yml",
        "recording/recording.json",
        "recording/head.json",
        "recording/worker.json",
        "recording/site.json",
        *(f"{role}/{name}" for role in ROLES for name in ("rank.log", "kernel.log", "system-warnings.log")),
    }
    assert wanted_names <= files.keys()
    assert [name for name in files if name.startswith("control/reports/")]
    assert packed.exit_code == ExitCode.OK
    assert packed.path.stat().st_size == packed.size_bytes
    assert json.loads(files["doctor.json"])["verb"] == "doctor"
    assert packed.manifest.missing == ()
    assert packed.manifest.versions["dspark-ops"]


def test_nothing_that_was_planted_survives(pair: Any, tmp_path: Path) -> None:
    _, files = make(pair[0], output=tmp_path / "e.tar.gz")
    for name, content in files.items():
        for what, secret in PLANTED.items():
            assert secret not in content.decode(), f"{what} in {name}"
    assert "fetching https://me:" in files["head/rank.log"].decode(), "what is no secret stays"


def test_what_the_supervisor_keeps_is_in_it_without_secrets(pair: Any, tmp_path: Path) -> None:
    """`supervise remove` throws it away, and says that this packs it first."""
    runner: FakeRunner = vars(verb)["open_runner"](None, "head")
    root, said = "/var/lib/dspark/supervise", LOG.format(**PLANTED)
    runner.kept = {
        "supervise.kept": ProbeResult(
            id="supervise.kept", files={f"{root}/state.json": '{"number": 3}', f"{root}/journal.jsonl": said}
        ),
        "supervise.incidents": ProbeResult(id="supervise.incidents", rc=0, stdout=".i4.new\ni3\ni2\n"),
        "supervise.incident": ProbeResult(id="supervise.incident", files={f"{root}/evidence/i3/worker/log.txt": said}),
    }
    packed, files = make(pair[0], output=tmp_path / "e.tar.gz")
    assert packed.manifest.missing == ()
    assert json.loads(files["supervisor/state.json"]) == {"number": 3}
    for name in ("supervisor/journal.jsonl", "supervisor/i3/worker/log.txt"):
        assert "fetching https://me:" in files[name].decode()
        assert not [what for what, secret in PLANTED.items() if secret in files[name].decode()], name


def test_what_was_taken_out_is_listed_by_kind_and_number(pair: Any, tmp_path: Path) -> None:
    packed, files = make(pair[0], output=tmp_path / "e.tar.gz")
    kinds = {item.kind for item in packed.manifest.redacted}
    assert {
        "variable",
        "cookie",
        "authorization",
        "private key",
        "hardware address",
        "address",
        "serial number",
    } <= kinds
    assert json.loads(files["manifest.json"])["redacted"]
    shown = render_packed(packed)
    assert "replaced or hidden: " in shown
    assert shown.splitlines()[-1].startswith("Read it before you mail it")
    assert "head/rank.log" in shown


def test_the_recording_in_it_can_be_replayed(pair: Any, tmp_path: Path) -> None:
    _, files = make(pair[0], output=tmp_path / "e.tar.gz")
    place = tmp_path / "recording"
    place.mkdir()
    for name, content in files.items():
        if name.startswith("recording/"):
            (place / name.removeprefix("recording/")).write_bytes(content)
    assert load(place).manifest.site == "lab"


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar")
def test_the_archive_is_one_that_tar_reads(pair: Any, tmp_path: Path) -> None:
    packed, _ = make(pair[0], output=tmp_path / "e.tar.gz")
    done = subprocess.run(["tar", "-tzf", str(packed.path)], capture_output=True, text=True, check=True)
    folder = {line.split("/")[0] for line in done.stdout.splitlines()}
    assert len(folder) == 1
    assert folder.pop().startswith("dspark-evidence-lab-")


def test_names_are_hidden_when_asked_for(pair: Any, tmp_path: Path) -> None:
    packed, files = make(pair[0], output=tmp_path / "e.tar.gz", hide_names=True)
    assert packed.manifest.names_hidden
    for name, content in files.items():
        assert "spark-worker" not in content.decode(), name


def test_a_node_that_is_down_is_said_to_be_and_the_rest_is_packed(pair: Any, tmp_path: Path) -> None:
    site, readings = pair
    readings["worker"] = NodeReading(node="worker", reachable=False, error="spark-worker: no answer within 10 s")
    packed, files = make(site, output=tmp_path / "e.tar.gz")
    assert packed.exit_code == ExitCode.OK
    assert packed.manifest.missing == ("worker: not reached: spark-worker: no answer within 10 s",)
    assert "missing: worker: not reached" in render_packed(packed)
    assert "head/rank.log" in files
    assert not [name for name in files if name.startswith("worker/")]


def test_with_both_down_what_is_known_here_is_packed(pair: Any, tmp_path: Path) -> None:
    site, readings = pair
    for role in ROLES:
        readings[role] = NodeReading(node=role, reachable=False, error="no answer")
    packed, files = make(site, output=tmp_path / "e.tar.gz")
    assert packed.exit_code == ExitCode.NO_VERDICT
    assert "control/site.yml" in files


def test_a_pair_without_a_site_is_packed_too(pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dspark_ops.doctor.foreign import look as looking
    from tests.unit.doctor.foreign_pair import REQUEST, first_readings, recipe, second_readings

    for name, told in (("miaai", False), ("screen", True)):
        answers = [first_readings(recipe(name)), second_readings(recipe(name))]
        monkeypatch.setattr(looking, "read_nodes", lambda *_, kept=answers: kept.pop(0))
        runner: Any = FakeRunner("head", {"logs": LOG.format(**PLANTED).splitlines()})
        monkeypatch.setattr(verb, "runners_of", lambda _, one=runner: dict.fromkeys(ROLES, one))
        packed, files = make(pair[0], foreign=REQUEST, output=tmp_path / f"{name}.tar.gz")
        assert ("head/rank.log" in files) is not told
        assert any("outside of a container" in line for line in packed.manifest.missing) is told
        assert "control/site.yml" not in files
        everything = b"".join(files.values()).decode()
        # Without the log nothing says that the words in the earlier report are a key.
        for secret in (*(PLANTED.values() if not told else ()), PLANTED["hub token"], "PlantedTokenAbc", "mia-9f3c"):
            assert secret not in everything


def test_a_file_that_is_there_is_told_before_anything_is_read(pair: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(run.snapshot, "read_pair", lambda *_, **__: pytest.fail("a node was contacted"))
    (tmp_path / "e.tar.gz").write_text("")
    with pytest.raises(ConfigError):
        evidence(EvidenceRequest(Request(site=pair[0]), output=tmp_path / "e.tar.gz"))


def test_by_itself_it_is_named_by_site_and_time(pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packed, _ = make(pair[0])
    assert packed.path.name.startswith("dspark-evidence-lab-2")
    assert packed.path.name.endswith("Z.tar.gz")


def test_an_unfinished_run_and_an_unreadable_report_are_told(pair: Any, tmp_path: Path) -> None:
    (state_dir() / "runs-open").mkdir(parents=True)
    (state_dir() / "runs-open/lab.json").write_text('{"run": "abc", "token": "' + PLANTED["cloud token"] + '"}')
    (state_dir() / "reports/20991231-zz.json").mkdir()
    packed, files = make(pair[0], output=tmp_path / "e.tar.gz")
    assert "control/open-run/lab.json" in files
    assert any("20991231-zz.json cannot be read" in line for line in packed.manifest.missing)


def test_a_log_that_is_too_long_loses_its_beginning() -> None:
    runner: Any = FakeRunner("head", {"logs": [f"line {n:06}" for n in range(5000)]})
    end = read_end(runner, wanted("c")["rank.log"], limit_bytes=1200)
    lines = end.text.splitlines()
    assert lines[-1] == "line 004999"
    assert len(end.text) <= 1200
    assert end.problem is not None
    assert "earlier lines are left out" in end.problem


def test_a_log_that_does_not_end_is_left_in_time() -> None:
    over = threading.Event()

    class Endless(FakeRunner):
        def stream(self, command: Command) -> Iterator[str]:
            assert command.id == "logs"
            yield "first"
            over.wait(30)
            yield "never"

    runner: Any = Endless("head", {})
    began = time.monotonic()
    end = read_end(runner, wanted("c")["rank.log"], timeout_s=0.3)
    over.set()
    assert time.monotonic() - began < 20
    assert end == LogEnd("first\n", "no end within 0.3 s; what came until then is here")


def test_a_node_that_is_lost_meanwhile_is_told() -> None:
    class Lost(FakeRunner):
        def stream(self, command: Command) -> Iterator[str]:
            yield from self.lines.get(command.id, [])
            raise NoVerdictError("spark-head: the session was lost")

    runner: Any = Lost("head", {})
    assert read_end(runner, wanted("c")["rank.log"]).problem == "spark-head: the session was lost"


def test_what_is_read_only_reads() -> None:
    assert_read_only(wanted("dspark-rank").values())


def test_a_node_without_a_rank_has_no_log_of_it() -> None:
    runner: Any = FakeRunner("head", {"kernel": ["k"]})
    ends = logs.read_ends({"head": runner}, {"head": None})
    assert {name for _, name in ends} == {"kernel.log", "system-warnings.log"}


def test_the_archive_has_the_bytes_that_are_told(pair: Any, tmp_path: Path) -> None:
    packed, files = make(pair[0], output=tmp_path / "e.tar.gz")
    document = packed.document()
    assert document["schema"] == "dspark-ops/evidence/v1"
    assert document["bytes"] == packed.path.stat().st_size
    assert document["exit_code"] == 0
    assert {f["name"]: f["bytes"] for f in document["files"]} == {
        n: len(c) for n, c in files.items() if n != "manifest.json"
    }
    assert io.BytesIO(packed.path.read_bytes()).getbuffer().nbytes < 20 << 20


def test_the_command_prints_one_document_or_what_is_in_it(
    pair: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for as_json in (True, False):
        with pytest.raises(typer.Exit) as left:
            command(site=pair[0], output=tmp_path / f"{as_json}.tar.gz", json_=as_json)
        assert left.value.exit_code == 0
        said = capsys.readouterr()
        assert "reading and judging both nodes" in said.err
        if as_json:
            assert json.loads(said.out)["schema"] == "dspark-ops/evidence/v1"
        else:
            assert said.out.rstrip().endswith("no list of secrets is complete.")


@pytest.mark.parametrize("options", [{"hosts": ["a"]}, {"user": "me"}, {"hosts": ["a", "a"]}, {"hosts": ["a", "-x"]}])
def test_a_wrong_command_line_contacts_nothing(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(run.snapshot, "read_pair", lambda *_, **__: pytest.fail("a node was contacted"))
    with pytest.raises(ConfigError):
        command(site=pair[0], output=tmp_path / "e.tar.gz", **options)
    assert not (tmp_path / "e.tar.gz").exists()


def test_a_log_that_breaks_off_says_why() -> None:
    class Broken(FakeRunner):
        def stream(self, command: Command) -> Iterator[str]:
            yield from self.lines.get(command.id, [])
            raise EOFError("the channel is gone")

    runner: Any = Broken("head", {"logs": ["first"]})
    end = read_end(runner, wanted("c")["rank.log"])
    assert end == LogEnd("first\n", "broke off: EOFError: the channel is gone; what came until then is here")


def kept(verb_: str, site: str | None, moment: datetime) -> None:
    save(
        Report(
            verb=verb_, site=site, started_at=moment, finished_at=moment, verdict="failed", exit_code=1, message=verb_
        )
    )


def test_reports_are_of_this_site_and_a_timer_pushes_none_of_another_verb_out(pair: Any, tmp_path: Path) -> None:
    began = now()
    kept("deploy", "lab", began)
    kept("deploy", None, began)  # of a pair without a site: it is no deploy of this one
    kept("deploy", "elsewhere", began + timedelta(seconds=1))
    for number in range(15):
        kept("doctor", "lab", began + timedelta(minutes=number))
    _, files = make(pair[0], output=tmp_path / "e.tar.gz")
    found = [json.loads(files[name]) for name in files if name.startswith("control/reports/")]
    assert {document["site"] for document in found} <= {"lab", None}
    assert [document["verb"] for document in found].count("doctor") == 10
    assert [document["verb"] for document in found if document["site"] == "lab"].count("deploy") == 1
