"""The rendered files: what each of them promises, and that the real parsers take them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from dspark_ops.errors import NoVerdictError
from dspark_ops.gateway.plugin.settings import SettingsError, parse
from dspark_ops.gateway.program import zipapp
from dspark_ops.gateway.render import CONFIGURATION, UNITS, render_all
from dspark_ops.gateway.settings import GatewaySettings, Places
from dspark_ops.gateway.wheels import fetch, requirements
from dspark_ops.paths import data_dir
from tests.unit.gateway.conftest import cloud_site, settings_with

LOCK = data_dir("templates") / "gateway" / "requirements.lock"


def litellm(settings: GatewaySettings) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render_all(settings, Places())["litellm.yaml"])
    return found


def test_every_file_is_there_and_none_holds_a_key(settings: GatewaySettings) -> None:
    files = render_all(settings, Places())
    assert set(files) == {*CONFIGURATION, *UNITS}
    assert "dsk-" not in "".join(files.values())


def test_only_the_first_group_may_fall_back(settings: GatewaySettings) -> None:
    config = litellm(settings)
    assert config["router_settings"]["fallbacks"] == [{"dspark-first": ["dspark-cloud"]}]
    assert config["router_settings"]["num_retries"] == config["litellm_settings"]["num_retries"] == 0
    for entry in config["model_list"]:
        local = entry["model_name"] != "dspark-cloud"
        assert entry["litellm_params"]["max_retries"] == 0
        assert entry["litellm_params"]["api_base"].startswith("http://127.0.0.1:8018" if local else "https://cloud")
        assert entry["model_info"]["id"].startswith("local" if local else "cloud")


def test_without_a_cloud_nothing_names_one() -> None:
    files = render_all(settings_with(None), Places())
    config = yaml.safe_load(files["litellm.yaml"])
    assert "fallbacks" not in config["router_settings"]
    assert "cloud" not in files["dspark-gateway.service"].replace("dspark-ops", "")
    assert json.loads(files["policy.json"])["cloud"] is None


def test_no_database_and_no_other_door(settings: GatewaySettings) -> None:
    general = litellm(settings)["general_settings"]
    assert "database_url" not in general
    assert general["master_key"].startswith("os.environ/")
    assert general["allow_client_side_credentials"] is False
    assert general["forward_client_headers_to_llm_api"] is False


def test_the_shim_follows_the_supervisor_and_cuts_what_hangs(settings: GatewaySettings) -> None:
    shim = render_all(settings, Places(engine_port=18000, status_port=18017))["shim.cfg"]
    (server,) = [line for line in shim.splitlines() if line.strip().startswith("server ")]
    for words in ("127.0.0.1:18000", "port 18017", "fall 3", "on-marked-down shutdown-sessions"):
        assert words in server
    assert "http-check disable-on-404" in shim
    assert "bind 127.0.0.1:8018" in shim
    assert "redispatch" not in shim
    assert "option httpclose" in shim


def test_the_client_list_is_hashes_and_the_private_ones_are_marked(settings: GatewaySettings) -> None:
    files = render_all(settings, Places())
    rows = [line.split() for line in files["clients.map"].splitlines() if not line.startswith("#")]
    assert sorted(name for _, name in rows) == ["alice", "private"]
    assert all(len(digest) == 64 for digest, _ in rows)
    assert "private local-only" in files["local-only.map"]
    assert "alice" not in files["local-only.map"]


def test_the_health_route_exists_only_where_it_is_wanted(settings: GatewaySettings) -> None:
    assert "the router is down" not in render_all(settings, Places())["edge.cfg"]
    with_route = dataclasses.replace(settings, health_route="/healthz")
    assert "path /healthz" in render_all(with_route, Places())["edge.cfg"]


def test_the_units_get_secrets_as_credentials_and_have_users_of_their_own(settings: GatewaySettings) -> None:
    files = render_all(settings, Places())
    for name, user, credentials in (
        ("dspark-edge.service", "dspark-edge", ["edge-secret.cfg", "tls.pem", "tls.pem.key"]),
        ("dspark-gateway.service", "dspark-gateway", ["router_key", "cloud_key"]),
    ):
        lines = files[name].splitlines()
        assert f"User={user}" in lines
        loaded = [line.split("=", 1)[1].split(":")[0] for line in lines if line.startswith("LoadCredential=")]
        assert loaded == credentials
        assert not any(line.startswith("Environment=") for line in lines)
        assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="} <= set(lines)


def test_the_policys_document_is_read_strictly(settings: GatewaySettings) -> None:
    document = json.loads(render_all(settings, Places())["policy.json"])
    assert parse(document).local_only_name == "flash-local"
    for spoilt in (
        document | {"more": 1},
        {k: v for k, v in document.items() if k != "ledger"},
        document | {"max_context": True},
        document | {"cloud": document["cloud"] | {"repeats": "3"}},
        document | {"schema": "other"},
    ):
        with pytest.raises(SettingsError):
            parse(spoilt)


def test_the_program_is_the_same_from_the_same_sources_and_whole() -> None:
    assert zipapp() == zipapp()
    names = zipfile.ZipFile(BytesIO(zipapp())).namelist()
    own = {path.name for path in (data_dir("templates").parent / "dspark_ops/gateway/plugin").glob("*.py")}
    assert {name.rpartition("/")[2] for name in names} == own | {"__main__.py"}


def test_the_lock_is_pins_with_hashes_for_both_pythons() -> None:
    text = LOCK.read_text(encoding="utf-8")
    for python in ("3.11", "3.12"):
        lines = requirements(text, python).splitlines()
        assert all("--hash=sha256:" in line and ";" not in line for line in lines)
        (version,) = [line.split()[0].split("==")[1] for line in lines if line.startswith("litellm==")]
        assert tuple(int(part) for part in version.split(".")[:2]) >= (1, 84)
        assert len({line.split("==")[0] for line in lines}) == len(lines)
    with pytest.raises(NoVerdictError, match=r"3\.13"):
        requirements(text, "3.13")
    with pytest.raises(NoVerdictError, match="no pin"):
        requirements(text.splitlines()[0] + "\nevil==1.0\n", "3.11")


def test_a_price_is_written_without_an_exponent() -> None:
    config = litellm(settings_with(cloud_site(input_usd_per_million=0.13)))
    (cloud,) = [e for e in config["model_list"] if e["model_name"] == "dspark-cloud"]
    assert cloud["litellm_params"]["input_cost_per_token"] == pytest.approx(1.3e-7)
    assert Path(LOCK).is_file()


def test_a_low_port_is_the_one_thing_that_the_edge_may_need_a_capability_for() -> None:
    for port, wanted in ((443, True), (8443, False)):
        unit = render_all(settings_with(None, port=port), Places())["dspark-edge.service"].splitlines()
        assert ("AmbientCapabilities=CAP_NET_BIND_SERVICE" in unit) is wanted
        assert ("CapabilityBoundingSet=CAP_NET_BIND_SERVICE" in unit) is wanted


def test_archives_of_earlier_locks_are_forgotten_and_those_of_other_heads_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pip(argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        wheels = Path(argv[argv.index("--dest") + 1])
        wheels.mkdir()
        (wheels / "a.whl").write_bytes(b"wheel")
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    into = tmp_path / "cache"
    other, earlier = fetch(LOCK, "3.12", "aarch64", into), fetch(LOCK, "3.11", "aarch64", into)
    left = into / "gateway-wheels-abc"
    left.mkdir()
    os.utime(left, (0, 0))
    lock = tmp_path / "requirements.lock"
    lock.write_text("\n".join(LOCK.read_text(encoding="utf-8").splitlines()[:-1]) + "\n")
    now = fetch(lock, "3.11", "aarch64", into)
    assert now != earlier
    assert sorted(into.iterdir()) == sorted((other, now))
    assert fetch(lock, "3.11", "arm64", into) == now
