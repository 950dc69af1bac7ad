"""Keys are kept as hashes alone, and a section that does not hold together is refused in words."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dspark_ops.cli.gateway import app
from dspark_ops.config.load import load_profile, load_site
from dspark_ops.config.sample import render_sample
from dspark_ops.errors import ConfigError
from dspark_ops.gateway.clients import added, change_clients, key_hash, read_clients
from dspark_ops.gateway.install import install_variables
from dspark_ops.gateway.look import _ENDS, judged, render
from dspark_ops.gateway.settings import places_of, settings_of
from dspark_ops.transport.base import Command, NodeReading, ProbeResult
from dspark_ops.transport.readonly import ReadOnlyViolationError, assert_read_only


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yml"
    path.write_text(render_sample(load_profile("current").site))
    return path


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.stdout, done.stderr


def test_a_key_is_shown_once_and_only_its_hash_is_kept(site: Path) -> None:
    code, key, said = run("key", "add", "alice", "--local-only", "--no-apply", "--site", str(site))
    key = key.strip()
    assert code == 0
    assert key not in said
    kept = site.with_name("gateway-clients.json")
    assert key not in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    (client,) = read_clients(kept)
    assert (client.name, client.key_sha256, client.local_only) == ("alice", key_hash(key), True)
    assert key not in run("key", "list", "--json", "--site", str(site))[1]
    assert run("key", "revoke", "alice", "--no-apply", "--site", str(site))[0] == 0
    assert read_clients(kept) == ()


@pytest.mark.parametrize(
    "clients",
    [
        "no json",
        {"version": 2, "clients": []},
        {"clients": [{"name": "a", "key_sha256": "x"}]},
        {"clients": [{"name": n, "key_sha256": "0" * 64} for n in ("a", "b")]},
        {"clients": [{"name": "a", "key_sha256": d * 64} for d in ("0", "1")]},
    ],
)
def test_a_list_of_clients_that_is_not_sound_is_refused(site: Path, clients: object) -> None:
    text = clients if isinstance(clients, str) else json.dumps(clients)
    site.with_name("gateway-clients.json").write_text(text)
    with pytest.raises(ConfigError, match=r"gateway-clients\.json"):
        settings_of(load_site(site, environ={}))


CLOUD = (
    "gateway.cloud.base_url=https://cloud.example/v1",
    "gateway.cloud.model=vendor/flash",
    "gateway.cloud.key_file=cloud.key",
    "gateway.cloud.max_context=200000",
    "gateway.cloud.input_usd_per_million=0.15",
    "gateway.cloud.output_usd_per_million=0.3",
    "gateway.cloud.day_usd=10",
    "gateway.cloud.hour_usd=2",
)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["gateway.port=4000"], "both 4000"),
        (["gateway.shim_port=8017"], "status port"),
        (["gateway.certificate=a.pem"], "certificate_key"),
        (["gateway.max_context=1048577"], "max_model_len"),
        ([*CLOUD, "gateway.cloud.hour_usd=11"], "day_usd"),
        ([*CLOUD, "gateway.cloud.request_usd=3"], "hour_usd"),
        ([*CLOUD, "gateway.cloud.base_url=http://cloud.example/v1"], "in the clear"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(site: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_of(load_site(site, environ={}, overrides=overrides))


def test_no_secret_is_among_the_variables_of_a_run(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    key = tmp_path / "cloud.key"
    key.write_text("ck-secret\n")
    overrides = [*CLOUD, f"gateway.cloud.key_file={key}"]
    loaded = load_site(site, environ={}, overrides=overrides)
    variables = install_variables(settings_of(loaded), places_of(loaded))
    assert "ck-secret" not in json.dumps(variables)
    assert variables["gateway_cloud_key_file"] == str(key)
    assert Path(str(variables["gateway_program"])).is_file()


def test_two_hands_lose_no_client(tmp_path: Path) -> None:
    path = tmp_path / "gateway-clients.json"

    def add(number: int) -> None:
        change_clients(path, lambda clients: added(clients, f"c{number}", f"dsk-{number}", local_only=False))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert len(read_clients(path)) == 24


NOW = datetime(2026, 11, 28, tzinfo=UTC)
ENDS = "notAfter=Nov 25 02:13:27 2036 GMT\n"


def reading(states: tuple[str, str], metrics: str | None, ends: str | None = ENDS) -> NodeReading:
    names = ("dspark-edge.service", "dspark-gateway.service")
    text = "\n".join(f"Id={n}\nLoadState=loaded\nActiveState={s}\n" for n, s in zip(names, states, strict=True))
    results = {"gateway.units": ProbeResult(id="gateway.units", rc=0, stdout=text, stderr="")}
    numbers = ProbeResult(id="gateway.numbers", error="refused") if metrics is None else None
    results["gateway.numbers"] = numbers or ProbeResult(id="gateway.numbers", rc=200, stdout=metrics)
    rc = 1 if ends is None else 0
    results["gateway.certificate"] = ProbeResult(id="gateway.certificate", rc=rc, stdout=ends or "", stderr="")
    return NodeReading(node="head", reachable=True, results=results)


def test_a_status_is_good_only_with_both_units_and_an_answer() -> None:
    metrics = (
        'dspark_gateway_answers_total{backend="cloud",reason="local-failed-503",status="2xx"} 3\n'
        'dspark_gateway_cloud_budget_usd{window="hour"} 2.000000\n'
    )
    good = judged("s", reading(("active", "active"), metrics), NOW)
    assert good.exit_code == 0
    assert good.money[0].spent_usd is None, "what was not said is unknown, not nothing"
    assert "unknown of 2 USD" in render(good)
    assert good.answers[0].count == 3
    assert judged("s", reading(("active", "active"), None), NOW).exit_code == 1
    assert judged("s", reading(("active", "failed"), metrics), NOW).exit_code == 1
    assert judged("s", NodeReading(node="head", reachable=False, error="x"), NOW).exit_code == 3


def test_a_certificate_that_has_ended_is_bad_and_one_that_cannot_be_read_is_unknown() -> None:
    both = ("active", "active")
    good = judged("s", reading(both, ""), NOW)
    assert (good.exit_code, good.certificate_ends) == (0, datetime(2036, 11, 25, 2, 13, 27, tzinfo=UTC))
    assert "certificate ends 2036-11-25 02:13 UTC" in render(good)
    assert judged("s", reading(both, "", "notAfter=Nov 28 00:00:00 2026 GMT"), NOW).exit_code == 1
    for unread in (None, "", "notAfter=soon GMT"):
        unknown = judged("s", reading(both, "", unread), NOW)
        assert unknown.exit_code == 3
        assert "certificate ends unknown" in render(unknown)
        assert judged("s", reading(both, None, unread), NOW).exit_code == 1


def test_the_certificate_is_read_and_nothing_is_written_beside_it() -> None:
    assert_read_only([_ENDS])
    for more in (("-out", "/etc/passwd"), ("-signkey", "/k")):
        with pytest.raises(ReadOnlyViolationError):
            assert_read_only([Command("x", (*_ENDS.argv, *more))])
    with pytest.raises(ReadOnlyViolationError):
        assert_read_only([Command("x", ("openssl", "x509", "-in", "/etc/shadow", "-noout", "-enddate"))])
