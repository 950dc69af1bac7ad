"""An image from the head to the worker over a rail: only what changed, through cuts and kills; no moved tag."""

from __future__ import annotations

import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from dspark_ops.config.load import load_site
from tests.lab.fabric_faults import A0, A1, B0, B1, shell
from tests.lab.operator_cli import HOSTS, Done, Operator, wait_for_line
from tests.lab.test_fabric import last_report

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

REPOSITORY = "dspark-sync-test"
SPOOL = "/var/cache/dspark-ops/image-sync"
_MB = 1_000_000
# Through the head's end of the first rail, so that a transfer lasts long enough to be cut.
SLOW = f"tc qdisc add dev {A0} root tbf rate 160mbit burst 256kb latency 100ms"
FAST = f"tc qdisc del dev {A0} root 2> /dev/null || true"


@dataclass(frozen=True)
class Image:
    """An image on the head. layer_bytes: of its uppermost layer, which the worker lacks."""

    reference: str
    id: str
    layer_bytes: int

    @property
    def words(self) -> tuple[str, ...]:
        return ("--set", f"image.reference={self.reference}", "--set", f"image.id={self.id}")


def build(operator: Operator, below: str, megabytes: int) -> Image:
    """An image of ours on the head: one layer of random bytes on top of `below`."""
    reference = f"{REPOSITORY}:v-{secrets.token_hex(6)}"
    shell(
        operator,
        "head",
        f"""
        cd "$(mktemp -d)"; head -c {megabytes * _MB} /dev/urandom > payload
        printf "FROM {below}\\nLABEL io.dspark-ops.image=engine\\nCOPY payload /opt/payload\\n" > Dockerfile
        docker build -q -t {reference} . > /dev/null; rm -r "$PWD"
        """,
    )
    return Image(reference, identity(operator, "head", reference), megabytes * _MB)


def identity(operator: Operator, role: str, reference: str) -> str:
    """The id that a name has on a node, empty when it has none."""
    template = "'{{.Id}}'"
    return operator.on(role, "docker", "image", "inspect", "-f", template, reference, check=False).strip()


def received(operator: Operator) -> tuple[int, int]:
    """Bytes that the worker has received: over its rails, and over the management network."""
    rails = "+".join(f"$(cat /sys/class/net/{port}/statistics/rx_bytes)" for port in (A0, B0, A1, B1))
    told = shell(operator, "worker", f"echo $(({rails})); cat /sys/class/net/enP7s7/statistics/rx_bytes")
    over_rails, management = told.split()
    return int(over_rails), int(management)


def measured(operator: Operator, image: Image) -> Done:
    """`image sync`, which must do it and move no more than 1.1 times the layer, over the rails alone."""
    before = received(operator)
    began = time.monotonic()
    done = operator.run("image sync", "--yes", "--json", *image.words)
    seconds = time.monotonic() - began
    assert done.rc == 0, done
    over_rails, management = (now - then for now, then in zip(received(operator), before, strict=True))
    told = {m["what"]: m["value"] for m in done.document()["measurements"]}
    sys.stderr.write(
        f"\n{image.reference}: changed {image.layer_bytes / _MB:.1f} MB; rails received {over_rails / _MB:.2f} MB, "
        f"management {management / _MB:.2f} MB; reported {told}; whole verb {seconds:.1f} s\n"
    )
    assert image.layer_bytes <= told["moved"] <= 1.1 * image.layer_bytes
    assert image.layer_bytes <= over_rails <= 1.1 * image.layer_bytes
    assert management < 2 * _MB
    assert_arrived(operator, image)
    return done


def assert_arrived(operator: Operator, image: Image) -> None:
    """The same id under the same name on the worker, and nothing left of the way it came."""
    assert identity(operator, "worker", image.reference) == image.id
    for role in ("head", "worker"):
        assert shell(operator, role, f"ls -1 {SPOOL}").split() == []
    state = operator.on("head", "systemctl", "is-active", "dspark-image-sync.service", check=False)
    assert state.strip() != "active"


@pytest.fixture(scope="module")
def engine(operator: Operator) -> tuple[str, str]:
    """Name and id of the engine image, on both nodes."""
    image = load_site(operator.site).site.image
    if not all(identity(operator, role, image.id) for role in ("head", "worker")):
        done = operator.run("deploy", "--yes")
        assert done.rc == 0, done
    return image.reference, image.id


@pytest.fixture(scope="module")
def base(operator: Operator) -> Iterator[Image]:
    """A small image of ours on both nodes, brought there by a sync of all of it."""
    image = build(operator, "scratch", 20)
    done = operator.run("image sync", "--yes", *image.words)
    assert done.rc == 0, done
    yield image
    for role in ("head", "worker"):
        names = f'docker image ls --format "{{{{.Repository}}}}:{{{{.Tag}}}}" {REPOSITORY}'
        shell(operator, role, f"{names} | xargs -r docker image rm -f > /dev/null; rm -rf {SPOOL}")


@pytest.fixture
def slow(operator: Operator) -> Iterator[None]:
    shell(operator, "head", f"{FAST}; {SLOW}")
    yield
    shell(operator, "head", f"{FAST}; ip link set {A0} up")


def begun(operator: Operator, image: Image, at_least: int) -> Any:
    """A sync that has brought some of its layer: the process, still running."""
    process = operator.begin("image sync", "--yes", *image.words)
    assert wait_for_line(process, "sync ...", 60)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        sizes = shell(operator, "worker", f"stat -c %s {SPOOL}/*/*.part 2> /dev/null || true").split()
        if sizes and max(map(int, sizes)) >= at_least:
            assert process.poll() is None
            return process
        time.sleep(0.1)
    raise AssertionError("the transfer did not begin")


def cut(operator: Operator, image: Image) -> int:
    """Pull the first rail while the layer crosses it: the verb ends and says so, nothing is loaded; the bytes kept."""
    process = begun(operator, image, 16 * _MB)
    shell(operator, "head", f"ip link set {A0} down")
    assert process.wait(timeout=90) == 5
    report = last_report("image sync")
    assert report["verdict"] == "restored"
    said = r"nothing came from 10\.77\.0\.1 for 20 s .*; (\d+) of (\d+) bytes are kept here .*\[image\.sync_silent\]"
    told = re.search(said, report["message"])
    assert told is not None, report["message"]
    assert identity(operator, "worker", image.id) == ""
    kept = sum(map(int, shell(operator, "worker", f"stat -c %s {SPOOL}/*/config {SPOOL}/*/*.part").split()))
    assert kept == int(told[1])
    assert 16 * _MB <= kept < image.layer_bytes <= int(told[2])
    return kept


def moved(done: Done) -> tuple[str, Any]:
    """Over which rail a sync went, and how many bytes, to the few kB of a layer's own headers."""
    told = next(m for m in done.document()["measurements"] if m["what"] == "moved")
    return told["subject"], pytest.approx(told["value"], abs=100_000)


def carried_whole(operator: Operator, image: Image) -> tuple[int, float]:
    """The usual way, to a worker that lacks the image again: bytes that went through, seconds until it is loaded."""
    operator.on("worker", "docker", "image", "rm", image.reference)
    ssh = ("ssh", "-F", str(operator.ssh_config))
    began = time.monotonic()
    head = subprocess.Popen(
        [*ssh, HOSTS["head"], f"sudo -n docker save {image.reference} | zstd -1 -T0 -q -c"], stdout=subprocess.PIPE
    )
    worker = subprocess.Popen(
        [*ssh, HOSTS["worker"], "zstd -d -q -c | sudo -n docker load -q"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert head.stdout is not None
    assert worker.stdin is not None
    moved = 0
    while chunk := head.stdout.read(_MB):
        worker.stdin.write(chunk)
        moved += len(chunk)
    worker.stdin.close()
    assert (head.wait(timeout=60), worker.wait(timeout=120)) == (0, 0)
    seconds = time.monotonic() - began
    assert identity(operator, "worker", image.reference) == image.id
    return moved, seconds


def test_a_change_to_the_plugin_alone_moves_its_layer_alone(operator: Operator, engine: tuple[str, str]) -> None:
    """On top of the real engine image."""
    image = build(operator, engine[0], 4)
    planned = operator.run("image sync", "--check", "--json", *image.words)
    assert (planned.rc, planned.document()["verdict"]) == (0, "planned"), planned
    assert "move  1 of " in planned.err
    assert identity(operator, "worker", image.reference) == ""
    measured(operator, image)
    again = operator.run("image sync", "--yes", "--json", *image.words)
    assert (again.rc, again.document()["verdict"], again.document()["changes"]) == (0, "unchanged", []), again


@pytest.mark.soak
def test_the_way_it_is_usually_done_moves_ten_times_as_much(operator: Operator, engine: tuple[str, str]) -> None:
    """Save and zstd, for comparison with what the test above moved."""
    image = build(operator, engine[0], 4)
    whole, seconds = carried_whole(operator, image)
    sys.stderr.write(f"save | zstd -1 | ssh | load of the same image: {whole / _MB:.1f} MB moved, {seconds:.1f} s\n")
    assert image.layer_bytes * 10 < whole


@pytest.mark.soak
def test_a_layer_of_200_mb_goes_over_the_rail_and_not_over_the_lan(operator: Operator, base: Image) -> None:
    measured(operator, build(operator, base.reference, 200))


@pytest.mark.soak
def test_a_cut_link_is_named_and_the_next_run_moves_the_rest_over_the_next_rail(
    operator: Operator, base: Image, slow: None
) -> None:
    image = build(operator, base.reference, 80)
    before = received(operator)[0]
    kept = cut(operator, image)
    resumed = operator.run("image sync", "--yes", "--json", *image.words)
    assert resumed.rc == 0, resumed
    assert moved(resumed) == ("p0b", image.layer_bytes - kept)
    assert received(operator)[0] - before <= 1.1 * image.layer_bytes
    assert_arrived(operator, image)


@pytest.mark.soak
def test_a_cable_that_is_plugged_again_carries_the_rest(operator: Operator, base: Image, slow: None) -> None:
    image = build(operator, base.reference, 80)
    before = received(operator)[0]
    kept = cut(operator, image)
    shell(operator, "head", f"{FAST}; ip link set {A0} up")
    time.sleep(3)  # networkd configures the port again
    resumed = operator.run("image sync", "--yes", "--json", *image.words)
    assert resumed.rc == 0, resumed
    assert moved(resumed) == ("p0a", image.layer_bytes - kept)
    assert received(operator)[0] - before <= 1.1 * image.layer_bytes
    assert_arrived(operator, image)


def test_a_sync_that_is_killed_is_finished_by_the_next_one(operator: Operator, base: Image, slow: None) -> None:
    image = build(operator, base.reference, 60)
    before = received(operator)[0]
    process = begun(operator, image, 8 * _MB)
    process.send_signal(signal.SIGKILL)
    process.wait()
    shell(operator, "head", FAST)
    done = operator.run("image sync", "--yes", *image.words)
    assert done.rc == 0, done
    assert received(operator)[0] - before <= 1.1 * image.layer_bytes
    assert_arrived(operator, image)


def test_the_previous_image_is_kept_and_older_ones_of_ours_go(
    operator: Operator, base: Image, engine: tuple[str, str]
) -> None:
    """The engine image is ours too, and of another repository: it stays."""
    images = [build(operator, base.reference, 1) for _ in range(3)]
    for image in images:
        done = operator.run("image sync", "--yes", *image.words)
        assert done.rc == 0, done
    assert identity(operator, "worker", f"{REPOSITORY}:previous") == images[1].id
    assert identity(operator, "worker", images[2].reference) == images[2].id
    assert identity(operator, "worker", images[0].id) == ""
    assert identity(operator, "worker", engine[0]) == engine[1]


def test_a_moved_tag_is_refused_by_sync_and_by_deploy_and_stays_where_it_is(
    operator: Operator, base: Image, engine: tuple[str, str]
) -> None:
    image = build(operator, base.reference, 1)
    operator.on("worker", "docker", "tag", engine[1], image.reference)
    try:
        for verb in ("image sync", "deploy"):
            done = operator.run(verb, "--yes", *image.words)
            assert done.rc == 4, done
            assert "[image.moved_tag]" in done.err
            assert image.id in done.err
            assert engine[1] in done.err
        assert identity(operator, "worker", image.reference) == engine[1]
        assert identity(operator, "worker", image.id) == ""
    finally:
        operator.on("worker", "docker", "image", "rm", image.reference)


def test_a_mutable_tag_is_refused(operator: Operator, base: Image) -> None:
    done = operator.run("image sync", "--yes", "--set", "image.reference=dspark-sync-test:previous")
    assert done.rc in (2, 4), done
    assert "dspark-sync-test:previous" in done.err
