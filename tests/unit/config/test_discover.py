"""`init` on recorded nodes: what it reads, what it proposes, what it refuses, and the file that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.discover import PROBES, InitRequest, NodeSeen, check_request, look_at
from dspark_ops.config.draft import init_document, render_init, render_site, write_site
from dspark_ops.config.load import load_site
from dspark_ops.config.models import Role
from dspark_ops.config.propose import SiteDraft, propose
from dspark_ops.errors import ConfigError, NoVerdictError, RefusedError
from dspark_ops.transport.base import NodeReading, ProbeResult, RecordedRunner
from dspark_ops.transport.readonly import assert_read_only

CAPTURES = Path(__file__).parents[1] / "fabric" / "captures"
NOW = datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)
ID = "sha256:" + "a" * 64
REQUEST = InitRequest("spark-a", "spark-b", image_reference="engine:1", image_id=ID)
PCI = {"rocep1s0f0": "0000:01:00.0", "rocep1s0f1": "0000:01:00.1", "roceP2p1s0f0": "0002:01:00.0"} | {
    "roceP2p1s0f1": "0002:01:00.1"
}
NETDEV = {"rocep1s0f0": "enp1s0f0np0", "rocep1s0f1": "enp1s0f1np1", "roceP2p1s0f0": "enP2p1s0f0np0"} | {
    "roceP2p1s0f1": "enP2p1s0f1np1"
}


@dataclass(frozen=True)
class Image:
    reference: str = "engine-rehearsal:k"
    image_id: str = "sha256:" + "b" * 64
    archive: Path = Path("/cache/image.tar")


def reading(role: Role, capture: str = "two-cables-ok", **changes: Any) -> NodeReading:
    """A node as the probes would have read it; the worker gets MAC and IP addresses of its own."""
    links = json.loads((CAPTURES / f"ip-j-addr-{capture}.json").read_text())
    links = links[role] if isinstance(links, dict) else links
    if role == "worker":
        for link in links:
            link["address"] = link["address"].replace("02:00:00:00:00", "02:00:00:00:ff")
            for item in link["addr_info"]:
                head, _, last = item["local"].rpartition(".")
                item["local"] = f"{head}.{int(last) + 1}"
    base = "/sys/class/infiniband"
    devices = {f"{base}/{hca}/device": f"/sys/devices/pci/{pci}" for hca, pci in PCI.items()}
    devices |= {f"{base}/{hca}/device/net/{netdev}": "x" for hca, netdev in NETDEV.items()}
    results: dict[str, dict[str, Any]] = {
        "links.addr": {"rc": 0, "stdout": json.dumps(links)},
        "links.sysfs": {"files": {f"/sys/class/net/{n}/phys_port_name": f"p{n[-1]}\n" for n in NETDEV.values()}},
        "rdma.devices": {"files": devices},
        "rdma.files": {"files": {}},
        "routes.main": {"rc": 0, "stdout": json.dumps([{"dst": "default", "dev": "enP7s7", "gateway": "192.168.1.1"}])},
        "system.uname": {"rc": 0, "stdout": "Linux 6.14.0-1013-nvidia aarch64\n"},
        "system.files": {
            "files": {
                "/etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
                "/etc/dgx-release": 'DGX_NAME="DGX Spark"\nDGX_OTA_VERSION="7.3.1"\nDGX_SERIAL_NUMBER="123"\n',
            }
        },
        "memory.meminfo": {"files": {"/proc/meminfo": "MemTotal:       127600748 kB\nMemAvailable: 1 kB\n"}},
        "init.machine_id": {"files": {"/etc/machine-id": f"{role}\n"}},
        "init.engine_images": {"rc": 0, "stdout": ""},
    }
    results |= changes.pop("results", {})
    fields = {"reachable": True, "user": "nvidia", "sudo": True, "hostname": f"node-{role}"} | changes
    return NodeReading(
        node=role, results={name: ProbeResult(id=name, **value) for name, value in results.items()}, **fields
    )


def seen(head: NodeReading | None = None, worker: NodeReading | None = None) -> dict[Role, NodeSeen]:
    runners = {
        "head": RecordedRunner(head or reading("head")),
        "worker": RecordedRunner(worker or reading("worker")),
    }
    nodes = look_at(REQUEST, runners)  # type: ignore[arg-type]
    assert [len(runner.asked) for runner in runners.values()] == [1, 1], "one round trip a node"
    return nodes


def draft(request: InitRequest = REQUEST, **nodes: NodeReading) -> SiteDraft:
    return propose(request, seen(**nodes), lambda: None)


def test_every_probe_only_reads() -> None:
    assert_read_only(PROBES)


@pytest.mark.parametrize("capture", ["two-cables-ok", "p1-ok", "same-subnet-bad", "overlap-mgmt-bad", "cross-cage"])
def test_a_written_site_loads_back_as_proposed(tmp_path: Path, capture: str) -> None:
    proposal = draft(head=reading("head", capture), worker=reading("worker", capture))
    path = tmp_path / "inventories" / "x" / "site.yml"
    loaded = write_site(proposal, "x", path, force=False, now=NOW)
    assert loaded.site.fabric.rails == proposal.rails
    assert loaded.site.image == proposal.image
    assert (loaded.site.nodes.head.host, loaded.site.nodes.worker.host) == ("spark-a", "spark-b")
    assert loaded.site == load_site(path, environ={}).site
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["site.yml"]


def test_the_file_says_what_was_seen_but_no_serial() -> None:
    text = render_site(draft(), "x", NOW)
    for part in (
        "`dspark-ops init spark-a spark-b` on 2026-11-24 01:02:03Z",
        "head spark-a (node-head): Ubuntu 24.04.3 LTS, kernel 6.14.0-1013-nvidia aarch64",
        "DGX OTA 7.3.1, MemTotal 121.7 GiB, login nvidia, sudo without password",
        "enP2p1s0f1np1 (cage 1, half B, roceP2p1s0f1): carrier, MTU 9000, 10.77.3.1/24",
    ):
        assert part in text
    assert "123" not in text


def test_what_a_node_says_cannot_leave_its_comment(tmp_path: Path) -> None:
    files = {"/etc/os-release": 'PRETTY_NAME="x\\\nevil: 1"\n'}
    proposal = draft(head=reading("head", hostname="a\nprofile: current", results={"system.files": {"files": files}}))
    assert write_site(proposal, "x", tmp_path / "s.yml", force=False, now=NOW).site.name == "x"


def test_an_existing_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "site.yml"
    path.write_text("mine\n")
    with pytest.raises(RefusedError, match="exists already") as caught:
        write_site(draft(), "x", path, force=False, now=NOW)
    assert caught.value.exit_code == 4
    assert path.read_text() == "mine\n"
    write_site(draft(), "x", path, force=True, now=NOW)
    assert "mine" not in path.read_text()


def test_a_file_that_appears_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "site.yml"
    monkeypatch.setattr("dspark_ops.config.draft.os.fsync", lambda _descriptor: path.write_text("theirs\n"))
    with pytest.raises(RefusedError, match="exists already"):
        write_site(draft(), "x", path, force=False, now=NOW)
    assert path.read_text() == "theirs\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.yml"]


def test_nothing_is_written_when_the_loader_refuses(tmp_path: Path) -> None:
    path = tmp_path / "site.yml"
    request = replace(REQUEST, head="10.77.0.1")
    with pytest.raises(ConfigError, match=r"site\.yml:\d+: nodes\.head\.host: 10\.77\.0\.1 is the address of rail p0a"):
        write_site(draft(request), "x", path, force=False, now=NOW)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written: "):
        write_site(draft(), "x", tmp_path / "file" / "site.yml", force=False, now=NOW)


def test_unreachable_nodes_are_named_each_with_its_reason() -> None:
    head = NodeReading(node="head", reachable=False, error="spark-a port 22: no answer within 10 s", hint="is it on?")
    worker = NodeReading(node="worker", reachable=False, error="spark-b port 22: the host key has changed", hint="k")
    with pytest.raises(NoVerdictError) as caught:
        seen(head, worker)
    assert caught.value.message.splitlines() == [
        "head: spark-a port 22: no answer within 10 s",
        "worker: spark-b port 22: the host key has changed",
    ]
    assert caught.value.hint == "is it on?; k"
    assert caught.value.exit_code == 3
    with pytest.raises(NoVerdictError) as caught:
        seen(worker=worker)
    assert caught.value.message.startswith("worker: ")


def test_a_fact_that_cannot_be_read_is_no_verdict() -> None:
    broken = reading("worker", results={"links.addr": {"error": "no such program: ip"}})
    with pytest.raises(NoVerdictError, match=r"worker: the network devices of spark-b .* no such program: ip"):
        seen(worker=broken)


def test_two_names_of_one_machine_are_refused() -> None:
    with pytest.raises(RefusedError, match=r"are the same machine \(both have the port 02:00:00:00:00:0"):
        draft(worker=reading("head"))


def test_a_cloned_machine_id_is_only_noted() -> None:
    cloned = reading("worker", results={"init.machine_id": {"files": {"/etc/machine-id": "head\n"}}})
    assert any("same /etc/machine-id" in note for note in draft(worker=cloned).notes)


def test_the_crossed_cable_gives_each_node_its_own_names() -> None:
    proposal = draft(head=reading("head", "cross-cage"), worker=reading("worker", "cross-cage"))
    assert [(r.head.hca, r.worker.hca) for r in proposal.rails] == [
        ("rocep1s0f1", "rocep1s0f0"),
        ("roceP2p1s0f1", "roceP2p1s0f0"),
    ]
    assert any("crossed" in note for note in proposal.notes)


def test_a_lease_is_no_static_address() -> None:
    def leased(role: Role) -> NodeReading:
        links = json.loads(reading(role).get("links.addr").stdout or "")
        for link in links:
            for item in link["addr_info"]:
                item["dynamic"] = True
        return reading(role, results={"links.addr": {"rc": 0, "stdout": json.dumps(links)}})

    assert draft(head=leased("head"), worker=leased("worker")).adopted == ()


def images(role: Role, *rows: dict[str, str]) -> NodeReading:
    return reading(role, results={"init.engine_images": {"rc": 0, "stdout": "\n".join(map(json.dumps, rows))}})


ROW = {"ID": ID, "Repository": "dspark-engine", "Tag": "0.32.0-1"}


def test_the_labelled_image_that_both_hold_is_taken() -> None:
    request = InitRequest("spark-a", "spark-b")
    other = {**ROW, "ID": "sha256:" + "c" * 64}
    proposal = draft(request, head=images("head", ROW, other), worker=images("worker", ROW))
    assert (proposal.image.reference, proposal.image.id) == ("dspark-engine:0.32.0-1", ID)
    with pytest.raises(ConfigError, match="both nodes hold 2 images"):
        draft(request, head=images("head", ROW, other), worker=images("worker", other, ROW))


def test_without_an_image_the_options_are_asked_for() -> None:
    silent = reading("worker", results={"init.engine_images": {"rc": 1, "stderr": "Cannot connect"}})
    with pytest.raises(ConfigError, match=r"profile current .*worker's Docker did not answer") as caught:
        draft(InitRequest("spark-a", "spark-b"), head=images("head", ROW), worker=silent)
    assert "--image-reference and --image-id" in (caught.value.hint or "")


def rehearsed(role: Role) -> NodeReading:
    marker = json.dumps([{"what": "nvidia-smi", "why": "no GPU", "follows": "nothing"}])
    return reading(role, results={"system.files": {"files": {"/etc/dspark-lab.json": marker}}})


def test_two_rehearsal_nodes_get_their_profile_and_the_built_image() -> None:
    nodes = seen(rehearsed("head"), rehearsed("worker"))
    proposal = propose(InitRequest("a", "b"), nodes, Image)
    assert proposal.profile.name == "rehearsal"
    assert (proposal.image.reference, proposal.image.archive) == ("engine-rehearsal:k", Path("/cache/image.tar"))
    assert "rehearsal node" in render_site(proposal, "lab", NOW)


def test_no_password_less_sudo_is_noted() -> None:
    assert any("worker: sudo asks for a password" in note for note in draft(worker=reading("worker", sudo=False)).notes)


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        (replace(REQUEST, worker="SPARK-A."), "expected a host name"),
        (replace(REQUEST, worker="SPARK-A"), "head and worker are the same host"),
        (replace(REQUEST, head="-oProxyCommand=id"), "expected a host name, an address or an SSH alias"),
        (replace(REQUEST, ssh_config=Path("/nonexistent/config")), "--ssh-config /nonexistent/config: no such file"),
        (replace(REQUEST, profile="curent"), "did you mean current?"),
        (replace(REQUEST, name="My Site"), "--name 'My Site': expected lower-case"),
        (replace(REQUEST, image_id=None), "--image-reference and --image-id go together"),
        (replace(REQUEST, image_id="sha256:12"), "--image-id 'sha256:12': expected an image id"),
        (replace(REQUEST, image_reference="engine:latest"), "--image-reference 'engine:latest': expected a name with"),
        (InitRequest("a", "b", image_archive=Path("x")), "--image-archive needs"),
        (replace(REQUEST, supernet="10.77.0.0"), "from /8 to /22"),
        (replace(REQUEST, supernet="8.0.0.0/8"), "expected a private network"),
        (replace(REQUEST, supernet="ten"), "--supernet 'ten'"),
    ],
)
def test_a_wrong_command_line_is_found_before_any_contact(request_: InitRequest, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_request(request_)
    assert part in caught.value.message
    assert caught.value.exit_code == 2


def test_the_report_names_rails_and_the_next_step(tmp_path: Path) -> None:
    proposal = draft()
    loaded = write_site(proposal, "x", tmp_path / "site.yml", force=False, now=NOW)
    document = init_document(proposal, loaded)
    assert json.loads(json.dumps(document)) == document
    assert [rail["adopted"] for rail in document["rails"]] == [True] * 4
    text = render_init(document, proposal)
    assert "rail p0a: head enp1s0f0np0 10.77.0.1/24 <-> worker enp1s0f0np0 10.77.0.2/24 (kept)" in text
    assert text.splitlines()[-1] == f"next: dspark-ops bootstrap --site {tmp_path / 'site.yml'}"


def test_addresses_in_routes_are_avoided() -> None:
    routes = [{"dst": "10.77.0.0/23", "dev": "tun0"}, {"dst": "10.77.2.9", "dev": "enP7s7"}]
    taken: Callable[[Role], NodeReading] = lambda role: reading(  # noqa: E731
        role, "same-subnet-bad", results={"routes.main": {"rc": 0, "stdout": json.dumps(routes)}}
    )
    proposal = draft(head=taken("head"), worker=reading("worker", "same-subnet-bad"))
    assert [str(rail.head.address) for rail in proposal.rails] == ["10.77.3.1/24", "10.77.4.1/24"]
