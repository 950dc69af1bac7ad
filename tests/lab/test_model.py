"""Weights on the rehearsal pair: from a hub on the head's loopback, mirrored over the rails, harmed, mended, killed."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.fabric_faults import A0, A1, B0, B1, shell
from tests.lab.operator_cli import Done, Operator, wait_for_line
from tests.lab.test_fabric import last_report

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

REPO, REVISION = "acme/lab-model", "5" * 40
CACHE, PORT = "/var/lib/dspark-ops-test-hub", 18090
FOLDER = f"{CACHE}/models--acme--lab-model"
UPSTREAM, PROGRAM = "/tmp/dspark-test-upstream", "/run/dspark-test-hub.py"
_MB = 1_000_000
_MAKE = """
import json, os, pathlib, sys
folder, count, size = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
folder.mkdir(parents=True)
names = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
for name in names:
    (folder / name).write_bytes(os.urandom(size))
(folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {n: n for n in names}}))
(folder / "config.json").write_text("{}")
(folder / "encoding").mkdir()
(folder / "encoding" / "map.py").write_text("# a map")
"""
COUNT, SIZE = 8, 10 * _MB


@dataclass(frozen=True)
class Weights:
    """An operator whose site keeps its weights, and a hub that runs on the head."""

    operator: Operator
    site: Path

    def run(self, verb: str, *words: str) -> Done:
        return self.operator.run(f"model {verb}", *words, site=self.site)

    def shell(self, role: str, script: str) -> str:
        return shell(self.operator, role, script)

    def blob(self, role: str, shard: int) -> str:
        """The path of a shard's blob on a node."""
        name = f"model-{shard:05d}-of-{COUNT:05d}.safetensors"
        return self.shell(role, f"readlink -f {FOLDER}/snapshots/{REVISION}/{name}").strip()

    def rails_received(self) -> int:
        """Bytes that the worker's rails have received."""
        rails = "+".join(f"$(cat /sys/class/net/{port}/statistics/rx_bytes)" for port in (A0, B0, A1, B1))
        return int(self.shell("worker", f"echo $(({rails}))"))

    def nothing_is_left(self) -> None:
        """No server of ours, no listener, nothing unfinished."""
        told = self.shell("head", "systemctl list-units --plain --no-legend 'dspark-model-sync*'; ls /run")
        assert "dspark-model-sync" not in told
        assert "dspark-rail-server" not in told
        for role in ("head", "worker"):
            assert self.shell(role, f"find {FOLDER} -name '*.incomplete'") == ""
            assert self.shell(role, f"cat {FOLDER}/refs/main") == REVISION


@pytest.fixture(scope="module")
def weights(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weights]:
    """The hub's server is the tests' own, started on the head as a unit of systemd."""
    site = yaml.safe_load(operator.site.read_text(encoding="utf-8"))
    hub = {"repo": REPO, "revision": REVISION, "cache": CACHE, "endpoint": f"http://127.0.0.1:{PORT}"}
    site.setdefault("model", {})["hub"] = hub
    site.setdefault("guards", {})["disk_floor_gib"] = 1
    path = tmp_path_factory.mktemp("weights") / "site.yml"
    path.write_text(yaml.safe_dump(site), encoding="utf-8")
    made = Weights(operator, path)
    clean = f"rm -rf {CACHE} /var/lib/dspark-ops/weights/models--acme--lab-model@*"
    stop = "systemctl stop dspark-test-hub 2> /dev/null || true; systemctl reset-failed dspark-test-hub 2> /dev/null"
    program = (Path(__file__).parents[1] / "hub_server.py").read_text(encoding="utf-8")
    for role in ("head", "worker"):
        made.shell(role, clean)
    made.shell("head", f"{stop} || true; rm -rf {UPSTREAM}; cat > {PROGRAM} <<'TEXT'\n{program}\nTEXT\n")
    made.shell("head", f"python3 - {UPSTREAM} {COUNT} {SIZE} <<'TEXT'\n{_MAKE}\nTEXT\n")
    words = f"--folder {UPSTREAM} --repo {REPO} --revision {REVISION} --port {PORT}"
    made.shell("head", f"systemd-run --quiet --collect --unit=dspark-test-hub python3 {PROGRAM} {words}")
    made.shell(
        "head", f"for i in $(seq 50); do ss -ltnH sport = :{PORT} | grep -q . && exit 0; sleep 0.1; done; exit 1"
    )
    yield made
    made.shell("head", f"{stop} || true; rm -rf {UPSTREAM} {PROGRAM}")
    for role in ("head", "worker"):
        made.shell(role, clean)


@pytest.fixture
def fetched(weights: Weights) -> Weights:
    """Both nodes hold the weights; where they do already this is one quick look."""
    done = weights.run("fetch", "--yes", "--quick")
    assert done.rc == 0, done
    return weights


def test_fetch_brings_it_once_and_mirrors_it_over_every_rail(weights: Weights) -> None:
    refused = weights.run("verify")
    assert refused.rc == 3, refused
    before = weights.rails_received()
    began = time.monotonic()
    done = weights.run("fetch", "--yes", "--json")
    seconds = time.monotonic() - began
    assert done.rc == 0, done
    told = {(m["subject"], m["what"]): m["value"] for m in done.document()["measurements"]}
    sys.stderr.write(f"\nfetch: {told}; whole verb {seconds:.1f} s\n")
    assert COUNT * SIZE <= told["fetch", "moved"] <= 1.01 * COUNT * SIZE
    rails = {subject for subject, what in told if what == "moved" and subject.startswith("p")}
    assert rails == {"p0a", "p0b", "p1a", "p1b"}
    assert COUNT * SIZE <= weights.rails_received() - before <= 1.1 * COUNT * SIZE
    weights.nothing_is_left()
    verified = weights.run("verify", "--json")
    assert (verified.rc, verified.document()["verdict"]) == (0, "ready"), verified
    again = weights.run("fetch", "--yes", "--json")
    assert (again.rc, again.document()["verdict"], again.document()["changes"]) == (0, "unchanged", []), again


def test_a_corrupted_shard_is_named_by_verify_and_mended_by_sync_alone(fetched: Weights) -> None:
    blob = fetched.blob("worker", 3)
    fetched.shell("worker", f"printf rotten | dd of={blob} bs=1 seek=1000000 conv=notrunc status=none")
    bad = fetched.run("verify", "--json")
    assert bad.rc == 1, bad
    [finding] = [f for f in bad.document()["findings"] if f["status"] == "fail"]
    assert (finding["id"], finding["node"]) == ("weights.digest", "worker")
    assert "model-00003-of-" in finding["observed"]
    assert fetched.run("verify", "--quick").rc == 0
    mended = fetched.run("sync", "--yes", "--json")
    assert mended.rc == 0, mended
    moved = next(m["value"] for m in mended.document()["measurements"] if m["what"] == "moved")
    assert moved == SIZE
    assert fetched.run("verify").rc == 0
    fetched.nothing_is_left()


@pytest.fixture
def slow(fetched: Weights) -> Iterator[Weights]:
    """Every rail so slow that a mirror lasts long enough to be killed."""
    ports = (A0, B0, A1, B1)
    rate = "root tbf rate 24mbit burst 256kb latency 100ms"
    fetched.shell("head", "; ".join(f"tc qdisc replace dev {port} {rate}" for port in ports))
    yield fetched
    free(fetched)


def free(weights: Weights) -> None:
    weights.shell("head", "; ".join(f"tc qdisc del dev {port} root 2> /dev/null || true" for port in (A0, B0, A1, B1)))


def begun(weights: Weights, at_least: int) -> Any:
    """A sync that has brought some of the weights: the process, still running."""
    words = ["--yes", "--quick", "--site", str(weights.site)]
    process = weights.operator.begin("model sync", *words)
    assert wait_for_line(process, "mirror ...", 60)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        sizes = weights.shell("worker", f"stat -c %s {FOLDER}/blobs/*.incomplete 2> /dev/null || true").split()
        if sum(map(int, sizes)) >= at_least:
            assert process.poll() is None
            return process
        time.sleep(0.1)
    raise AssertionError("the mirror did not begin")


def test_a_sync_that_is_killed_is_finished_by_the_next_one(slow: Weights) -> None:
    slow.shell("worker", f"rm -rf {FOLDER}")
    before = slow.rails_received()
    process = begun(slow, 4 * _MB)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not slow.operator.on("worker", "ls", f"{FOLDER}/snapshots", check=False)
    free(slow)
    done = slow.run("sync", "--yes", "--json")
    assert done.rc == 0, done
    kept = next(m["value"] for m in done.document()["measurements"] if m["what"] == "kept")
    assert kept >= 4 * _MB
    assert slow.rails_received() - before <= 1.1 * COUNT * SIZE
    assert slow.run("verify").rc == 0
    slow.nothing_is_left()


def test_too_little_room_is_refused_before_a_byte(fetched: Weights) -> None:
    fetched.shell("worker", f"rm {fetched.blob('worker', 1)}")
    full = fetched.run("sync", "--yes", "--set", "guards.disk_floor_gib=1000000")
    assert full.rc == 4, full
    assert "[host.disk_free]" in full.err
    assert fetched.run("sync", "--yes", "--quick").rc == 0


@pytest.mark.soak
def test_a_cut_cable_gives_its_files_to_the_other_rails(slow: Weights) -> None:
    slow.shell("worker", f"rm -rf {FOLDER}")
    process = begun(slow, 2 * _MB)
    slow.shell("head", f"ip link set {A0} down")
    try:
        free(slow)
        assert process.wait(timeout=120) == 0
        report = last_report("model sync")
        assert report["verdict"] == "changed"
        assert slow.run("verify").rc == 0
    finally:
        slow.shell("head", f"ip link set {A0} up")
        time.sleep(3)


@pytest.mark.soak
def test_a_fetch_that_is_killed_ends_on_the_node_too_and_is_finished_by_the_next(weights: Weights) -> None:
    """The download runs on the head: when its CLI is gone it must not go on alone and hold the cache."""
    weights.shell("head", f"rm -rf {FOLDER}; systemctl stop dspark-test-hub; systemctl reset-failed || true")
    words = f"--folder {UPSTREAM} --repo {REPO} --revision {REVISION} --port {PORT} --rate-bytes-s 1000000"
    weights.shell("head", f"systemd-run --quiet --collect --unit=dspark-test-hub python3 {PROGRAM} {words}; sleep 1")
    process = weights.operator.begin("model fetch", "--yes", "--site", str(weights.site))
    assert wait_for_line(process, "fetch: ", 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 40
    while time.monotonic() < until:
        if weights.operator.on("head", "ls", "/run/dspark-model-progress.json", check=False) == "":
            break
        time.sleep(0.5)
    else:
        raise AssertionError("the download goes on without anybody")
    done = weights.run("fetch", "--yes", "--json")
    assert done.rc == 0, done
    assert next(m["value"] for m in done.document()["measurements"] if m["what"] == "kept") > 0
    weights.nothing_is_left()


@pytest.mark.soak
def test_the_pair_serves_from_the_mirrored_snapshot_and_not_from_half_of_it(weights: Weights, image_id: str) -> None:
    """The rehearsal's own model as a repository: fetched, mirrored, served by both ranks, offline."""
    from dspark_ops.config.load import load_site
    from dspark_ops.weights.model import repo_directory

    upstream, port = f"{UPSTREAM}-scripted", PORT + 1
    take = f"c=$(docker create {image_id}); docker cp -L $c:/models/scripted {upstream}; docker rm $c > /dev/null"
    weights.shell("head", f"rm -rf {upstream}; {take}")
    words = f"--folder {upstream} --repo {REPO} --revision {'6' * 40} --port {port}"
    run = "systemd-run --quiet --collect --unit=dspark-test-hub-2 python3"
    weights.shell("head", f"{run} {PROGRAM} {words}; sleep 1")
    site = yaml.safe_load(weights.site.read_text(encoding="utf-8"))
    site["model"]["hub"] |= {"revision": "6" * 40, "endpoint": f"http://127.0.0.1:{port}"}
    path = weights.site.with_name("scripted.yml")
    path.write_text(yaml.safe_dump(site), encoding="utf-8")
    try:
        done = weights.operator.run("model fetch", "--yes", site=path)
        assert done.rc == 0, done
        snapshot = f"{repo_directory(load_site(path).site.model.hub)}/snapshots/{'6' * 40}"
        moved = f"{snapshot}/model.safetensors"
        weights.shell("worker", f"mv {moved} {moved}.away")
        refused = weights.operator.run("deploy", "--yes", site=path)
        assert refused.rc == 4, refused
        assert "model.safetensors" in refused.err
        weights.shell("worker", f"mv {moved}.away {moved}")
        served = weights.operator.run("deploy", "--yes", "--json", site=path)
        assert (served.rc, served.document()["verdict"]) == (0, "ready"), served
        words = weights.operator.on("worker", "cat", f"/proc/{weights.operator.rank_pid('worker')}/cmdline")
        assert f"/snapshots/{'6' * 40}" in words
    finally:
        weights.shell("head", f"systemctl stop dspark-test-hub-2 || true; rm -rf {upstream}")
