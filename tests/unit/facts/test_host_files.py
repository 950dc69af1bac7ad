"""Files of the host: logind, netplan ownership and modes, the lab's marker, routes, the API."""

from __future__ import annotations

import json

import pytest

from dspark_ops.facts.jumbo import probes as jumbo_probes
from dspark_ops.facts.netplan import parse_modes, parse_netplan, read_netplan
from dspark_ops.facts.routes import parse_routes
from dspark_ops.facts.service import api_url, parse_completion, read_service
from dspark_ops.facts.snapshot import PROBES, probes_for
from dspark_ops.facts.system import parse_lab_marker, parse_remove_ipc
from dspark_ops.transport.base import Command, NodeReading, ProbeResult
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.doctor.pair_fixture import load_case_site


def test_every_probe_passes_the_read_only_guard_and_has_an_id_of_its_own() -> None:
    loaded = load_case_site()
    for role in ("head", "worker"):
        probes = probes_for(loaded.site, role, active_profile=loaded.profile)
        assert_read_only(probes)
        assert len({p.id for p in probes}) == len(probes)
        assert {p.id for p in PROBES} <= {p.id for p in probes}


def test_only_the_head_is_asked_for_the_api_and_only_when_active_for_tokens() -> None:
    loaded = load_case_site()
    head = {p.id for p in probes_for(loaded.site, "head")}
    worker = {p.id for p in probes_for(loaded.site, "worker")}
    assert "service.health" in head
    assert "service.health" not in worker
    assert not [i for i in head | worker if i.startswith(("jumbo.", "service.canary"))]


def test_jumbo_ping_goes_from_the_own_device_to_the_other_end() -> None:
    site = load_case_site().site
    command = jumbo_probes(site, "worker")[0]
    assert isinstance(command, Command)
    assert command.argv[-2:] == ("enp1s0f0np0", "192.168.100.10")
    assert command.argv[command.argv.index("-s") + 1] == "8972"


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"/etc/systemd/logind.conf": "[Login]\n#RemoveIPC=no\n"}, True),
        ({"/etc/systemd/logind.conf": "[Login]\nRemoveIPC=no\n"}, False),
        (
            {
                "/etc/systemd/logind.conf": "[Login]\nRemoveIPC=yes\n",
                "/etc/systemd/logind.conf.d/50-dspark.conf": "[Login]\nRemoveIPC=no\n",
            },
            False,
        ),
        (
            {
                "/usr/lib/systemd/logind.conf.d/60-vendor.conf": "[Login]\nRemoveIPC=yes\n",
                "/etc/systemd/logind.conf.d/50-dspark.conf": "[Login]\nRemoveIPC=no\n",
            },
            True,
        ),
        ({}, None),
    ],
)
def test_remove_ipc_is_what_the_last_file_says(files: dict[str, str], wanted: bool | None) -> None:
    assert parse_remove_ipc(files) is wanted


def test_netplan_owner_and_mode() -> None:
    ours = parse_netplan("/etc/netplan/40-cx7.yaml", "# written by dspark-ops 0.1.0\nnetwork: {version: 2}\n", 0o600)
    assert (ours.owner, ours.mode, ours.devices) == ("dspark-ops", 0o600, ())
    assert parse_netplan("/etc/netplan/50-cloud-init.yaml", "network: {}").owner == "cloud-init"
    assert parse_netplan("/etc/netplan/90-NM-abc.yaml", "network: {}").owner == "networkmanager"
    assert parse_netplan("/etc/netplan/z.yaml", "network: [").devices is None
    listing = "total 8\n-rw------- 1 0 0  511  40-cx7.yaml\n-rw-r--r-- 1 0 0 20  z.yaml\ndrwxr-xr-x 2 0 0 1 d\n"
    assert parse_modes(listing) == {"40-cx7.yaml": 0o600, "z.yaml": 0o644}


def test_netplan_device_matched_by_name_or_set_name() -> None:
    text = "network:\n  ethernets:\n    a: {match: {name: enp1s0f0np0}, mtu: 9000}\n    b: {set-name: rail1}\n"
    file = parse_netplan("/etc/netplan/a.yaml", text)
    assert [d.name for d in file.devices or ()] == ["enp1s0f0np0", "rail1"]


def test_netplan_without_root_is_unknown_not_empty() -> None:
    seen = ProbeResult(id="netplan.files", files={})
    reading = NodeReading(node="head", reachable=True, user="nvidia", sudo=False, results={"netplan.files": seen})
    assert read_netplan(reading) is None
    assert read_netplan(reading.model_copy(update={"sudo": True})) == ()


def test_lab_marker() -> None:
    marker = json.dumps([{"what": "nvidia-smi", "why": "there is no GPU", "follows": "open devices"}])
    found = parse_lab_marker(marker)
    assert found is not None
    assert found[0].what == "nvidia-smi"
    assert parse_lab_marker(None) is None
    broken = parse_lab_marker("{")
    assert broken is not None
    assert broken[0].what == "/"


def test_routes() -> None:
    routes = parse_routes('[{"dst":"default","gateway":"10.0.0.1","dev":"enP7s7"},{"dst":"10.77.0.0/24","dev":"r"}]')
    assert routes is not None
    assert [(r.is_default, r.device) for r in routes] == [(True, "enP7s7"), (False, "r")]
    assert parse_routes("") == ()
    assert parse_routes("no json") is None


def test_service_that_refuses_is_no_status_and_one_that_was_not_asked_is_neither() -> None:
    refused = ProbeResult(id="service.health", error="URLError: [Errno 111] Connection refused")
    reading = NodeReading(node="head", reachable=True, results={"service.health": refused})
    service = read_service(reading)
    assert service is not None
    assert (service.asked, service.health_status) == (True, None)
    assert "refused" in (service.health_error or "")
    silent = read_service(NodeReading(node="worker", reachable=True))
    assert silent is not None
    assert silent.asked is False


def test_a_completion_that_is_all_reasoning_has_no_content() -> None:
    assert parse_completion('{"choices":[{"message":{"content":null,"reasoning":"hm"}}]}') is None
    assert parse_completion('{"choices":[{"message":{"content":"42"}}]}') == "42"


def test_api_is_asked_where_it_listens() -> None:
    assert api_url(load_case_site().site) == "http://127.0.0.1:8000"
    assert api_url(load_case_site("serve.api_host=0.0.0.0").site) == "http://127.0.0.1:8000"
    assert (
        api_url(load_case_site("serve.api_host=192.168.1.161", "serve.api_port=8001").site)
        == "http://192.168.1.161:8001"
    )
