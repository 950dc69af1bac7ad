"""Deploying a real vLLM, tensor-parallel over the two nodes, and everything that can go wrong on the way."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.operator_cli import Operator, wait_for_line

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

TEXT = "The quick brown fox jumps over the lazy dog."


def assert_serves(operator: Operator) -> dict[str, str]:
    """Both ranks run under one epoch and the completion is right; returns the container ids by role."""
    status = operator.run("status", "--json")
    assert status.rc == 0, status
    document = status.document()
    assert document["state"] == "ready"
    assert document["completion"].strip() == TEXT
    assert document["drift"] is False
    assert len({rank["epoch"] for rank in document["ranks"]}) == 1
    ranks = operator.ranks()
    assert all(rank is not None and rank["State"] == "running" for rank in ranks.values())
    return {role: rank["ID"] for role, rank in ranks.items() if rank is not None}


def test_a_bad_archive_leaves_nothing_half_loaded(operator: Operator, tmp_path: Path, image_id: str) -> None:
    """The worker lacks the image and the archive is cut short: refused by the load, no rank started.

    The first of all: the next test has to bring the image anyway.
    """
    operator.run("stop", "--yes", "--remove")
    operator.on("worker", "docker", "image", "rm", "--force", image_id)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(b"not a docker archive")
    done = operator.run("deploy", "--yes", "--set", f"image.archive={cut}")
    assert done.rc == 5, done
    assert "image" in done.out + done.err
    assert operator.ranks() == {"head": None, "worker": None}
    assert image_id not in operator.on("worker", "docker", "image", "ls", "--no-trunc", "--quiet")


def test_a_deploy_ends_with_a_correct_completion(operator: Operator) -> None:
    done = operator.run("deploy", "--yes", "--json")
    assert done.rc == 0, done
    assert done.document()["verdict"] in ("ready", "unchanged", "changed")
    assert_serves(operator)


def test_the_traffic_of_the_ranks_is_on_the_first_rail_and_not_on_the_lan(serving: Operator) -> None:
    head = serving.on("head", "ss", "-H", "-tnp")
    peers = re.findall(r"(\d+\.\d+\.\d+\.\d+):\d+\s+(\d+\.\d+\.\d+\.\d+):\d+\s+users:\(\(\"(?:VLLM|python|vllm)", head)
    between = {pair for pair in peers if pair[0] != pair[1] and not pair[1].startswith("127.")}
    rail = serving.on("head", "ip", "-4", "-o", "addr", "show", "dev", "enp1s0f0np0").split()[3].split("/")[0]
    assert between, head
    assert {local for local, _ in between} == {rail}


def test_a_second_deploy_changes_nothing(serving: Operator) -> None:
    before = assert_serves(serving)
    done = serving.run("deploy", "--yes", "--json")
    assert done.rc == 0, done
    document = done.document()
    assert (document["verdict"], document["changes"]) == ("unchanged", [])
    assert assert_serves(serving) == before


def test_check_says_what_would_change_and_changes_nothing(serving: Operator) -> None:
    before = assert_serves(serving)
    done = serving.run("deploy", "--check", "--diff", "--json", "--set", "serve.max_num_seqs=4")
    assert done.rc == 0, done
    document = done.document()
    assert document["verdict"] == "planned"
    assert {change["node"] for change in document["changes"]} == {"head", "worker"}
    assert assert_serves(serving) == before
    assert serving.run("deploy", "--check", "--json").document()["changes"] == []


def test_without_a_terminal_and_without_yes_a_change_is_refused(serving: Operator) -> None:
    before = assert_serves(serving)
    done = serving.run("deploy", "--set", "serve.max_num_seqs=4")
    assert done.rc == 4, done
    assert "--yes" in done.err
    assert "stop  rank container on head" in done.err
    assert assert_serves(serving) == before


def test_the_logs_of_both_ranks_are_one_timeline(serving: Operator) -> None:
    done = serving.run("logs", "--tail", "50")
    assert done.rc == 0, done
    lines = [line.split(" ", 2) for line in done.out.splitlines()]
    assert {line[1] for line in lines} == {"head", "worker"}
    stamps = [line[0] for line in lines]
    assert stamps == sorted(stamps)


def test_following_the_logs_shows_what_happens_now(serving: Operator) -> None:
    process = serving.begin("logs", "-f", "--tail", "1", listen="stdout")
    try:
        # The completion that `status` asks for is a line of the head's log a moment later.
        threading.Timer(3.0, serving.run, ("status",)).start()
        assert wait_for_line(process, "POST /v1/chat/completions", 60)
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_stop_and_start_give_the_pair_back(serving: Operator) -> None:
    stopped = serving.run("stop", "--yes", "--json")
    assert stopped.rc == 0, stopped
    assert all(rank is None or rank["State"] == "exited" for rank in serving.ranks().values())
    assert serving.run("status").rc == 1
    again = serving.run("stop", "--yes", "--json")
    assert (again.rc, again.document()["verdict"]) == (0, "unchanged")
    started = serving.run("start", "--yes", "--json")
    assert started.rc == 0, started
    assert_serves(serving)


@pytest.mark.soak
def test_an_unreachable_node_is_no_verdict_and_the_other_is_not_touched(
    serving: Operator, tmp_path: Path, frozen_worker: None
) -> None:
    head = serving.on("head", "docker", "ps", "-a", "--no-trunc", "--format", "'{{.ID}} {{.Status}}'").split()[0]
    for verb in ("deploy", "stop", "bootstrap"):
        done = serving.run(verb, "--yes", "--set", "ssh.connect_timeout_s=3", "--set", "serve.max_num_seqs=4")
        assert done.rc == 3, done
        assert "worker" in done.err
        assert "spark-worker" in done.err
    assert serving.run("status", "--set", "ssh.connect_timeout_s=3").rc == 3
    assert (
        head == serving.on("head", "docker", "ps", "-a", "--no-trunc", "--format", "'{{.ID}} {{.Status}}'").split()[0]
    )


@pytest.mark.soak
def test_a_release_that_does_not_start_is_replaced_by_the_one_that_served(serving: Operator) -> None:
    assert_serves(serving)
    done = serving.run("deploy", "--yes", "--json", "--set", "model.path=/models/absent")
    assert done.rc == 5, done
    document = done.document()
    assert document["verdict"] == "restored"
    assert "serves again" in document["message"]
    assert_serves(serving)


@pytest.mark.soak
def test_a_deploy_that_is_killed_in_one_phase_after_the_other_is_finished_by_the_next_one(operator: Operator) -> None:
    """Each run begins on what the killed one before it left."""
    operator.run("stop", "--yes", "--remove")
    for phase in ("observe ...", "settle ...", "head ..."):
        assert operator.kill_at("deploy", phase, "--yes", delay_s=0.3), f"the deploy ended before {phase!r}"
    done = operator.run("deploy", "--yes", "--json")
    assert done.rc == 0, done
    assert_serves(operator)


@pytest.mark.parametrize(
    ("phase", "delay_s"), [pytest.param("worker ...", 2.5, marks=pytest.mark.soak), ("ready ...", 1.0)]
)
def test_a_deploy_that_is_killed_is_finished_by_the_next_one(operator: Operator, phase: str, delay_s: float) -> None:
    operator.run("stop", "--yes", "--remove")
    assert operator.kill_at("deploy", phase, "--yes", delay_s=delay_s), f"the deploy ended before {phase!r}"
    left = operator.ranks()
    done = operator.run("deploy", "--yes", "--json")
    assert done.rc == 0, done
    after = assert_serves(operator)
    if phase.startswith("ready"):
        # The engine was starting already: the next run waits for it instead of beginning again.
        assert {role: rank and rank["ID"] for role, rank in left.items()} == after


@pytest.mark.soak
def test_a_worker_killed_while_starting_takes_both_ranks_down(operator: Operator) -> None:
    """On every change a start that goes wrong is one whose memory floor is crossed: test_memory."""
    operator.run("stop", "--yes", "--remove")
    process = operator.begin("deploy", "--yes")
    assert wait_for_line(process, "ready ...", 300)
    operator.on("worker", "kill", "-9", str(operator.rank_pid("worker")))
    assert process.wait(timeout=120) == 5
    assert operator.ranks() == {"head": None, "worker": None}


def test_an_mtu_of_1500_on_one_end_is_refused_and_named(operator: Operator) -> None:
    operator.run("stop", "--yes", "--remove")
    operator.on("worker", "ip", "link", "set", "enP2p1s0f0np0", "mtu", "1500")
    try:
        done = operator.run("deploy", "--yes")
        assert done.rc == 4, done
        assert "worker: enP2p1s0f0np0 has MTU 1500, the site wants 9000 [fabric.mtu]" in done.err
        assert operator.ranks() == {"head": None, "worker": None}
    finally:
        operator.on("worker", "ip", "link", "set", "enP2p1s0f0np0", "mtu", "9000")


def test_a_foreign_container_of_our_name_is_never_touched(operator: Operator, image_id: str) -> None:
    operator.run("stop", "--yes", "--remove")
    operator.on("worker", "docker", "create", "--name", "dspark-rank", image_id, "true")
    try:
        done = operator.run("deploy", "--yes")
        assert done.rc == 4, done
        assert "tenant.foreign_name" in done.err
        foreign = operator.ranks()["worker"]
        assert foreign is not None
        assert foreign["State"] == "created"
    finally:
        operator.on("worker", "docker", "rm", "dspark-rank")


def test_a_stopped_docker_is_no_verdict_with_the_remedy(operator: Operator) -> None:
    operator.run("stop", "--yes", "--remove")
    operator.on("worker", "systemctl", "stop", "docker.socket", "docker.service")
    try:
        done = operator.run("deploy", "--yes")
        assert done.rc == 3, done
        assert "worker (spark-worker): the Docker Engine does not answer" in done.err
        assert "dspark-ops bootstrap" in done.err
        assert operator.ranks()["head"] is None
    finally:
        operator.on("worker", "systemctl", "start", "docker.socket", "docker.service")


def test_a_full_disk_on_the_worker_is_refused_before_the_head_is_touched(operator: Operator) -> None:
    """The worker's Docker directory is really too small: a file system of 300 MB in its place."""
    operator.run("stop", "--yes", "--remove")
    operator.on("worker", "systemctl", "stop", "docker.socket", "docker.service")
    operator.on("worker", "mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", "/var/lib/docker")
    operator.on("worker", "systemctl", "start", "docker.socket", "docker.service")
    try:
        done = operator.run("deploy", "--yes")
        assert done.rc == 4, done
        assert re.search(r"worker: 0\.\d GiB free for Docker; .* \[host\.disk_free\]", done.err), done.err
        assert operator.ranks() == {"head": None, "worker": None}
        assert operator.on("worker", "docker", "image", "ls", "--quiet").split() == []
    finally:
        operator.on("worker", "systemctl", "stop", "docker.socket", "docker.service")
        operator.on("worker", "umount", "/var/lib/docker")
        operator.on("worker", "systemctl", "start", "docker.socket", "docker.service")


def altered_ssh(operator: Operator, folder: Path, *, user: str | None = None, foreign_keys: bool = False) -> Path:
    """A copy of the SSH configuration in which the worker is reached as another user or has another host key."""
    text = operator.ssh_config.read_text()
    head, mark, worker = text.partition("Host spark-worker")
    assert mark
    if user is not None:
        worker = re.sub(r"User \S+", f"User {user}", worker)
    if foreign_keys:
        known = re.search(r"UserKnownHostsFile (\S+)", worker)
        assert known is not None
        lines = Path(known.group(1).strip('"')).read_text().splitlines()
        hosts = [line.split()[0] for line in lines]
        keys = [line.split(" ", 1)[1] for line in lines]
        forged = folder / "known_hosts"
        forged.write_text("".join(f"{h} {k}\n" for h, k in zip(hosts, reversed(keys), strict=True)))
        worker = worker.replace(known.group(1), str(forged))
    path = folder / "ssh_config"
    path.write_text(head + mark + worker)
    return path


def test_a_changed_host_key_is_named_and_nothing_is_touched(operator: Operator, tmp_path: Path) -> None:
    config = altered_ssh(operator, tmp_path, foreign_keys=True)
    for verb in ("deploy", "bootstrap", "doctor"):
        words = () if verb == "doctor" else ("--yes",)
        done = operator.run(verb, *words, "--set", f"ssh.config={config}")
        assert done.rc == 3, done
        assert "host key has changed" in done.err + done.out
        assert "ssh-keygen -R" in done.err + done.out


@pytest.fixture
def plain_user(operator: Operator) -> Iterator[str]:
    """A user of the worker who may log in with our key and may not use sudo."""
    operator.on("worker", "useradd", "-m", "-s", "/bin/bash", "plain")
    operator.on("worker", "cp", "-r", "/home/nvidia/.ssh", "/home/plain/.ssh")
    operator.on("worker", "chown", "-R", "plain:plain", "/home/plain/.ssh")
    yield "plain"
    operator.on("worker", "userdel", "-r", "plain", check=False)


def test_a_user_without_sudo_is_named_and_nothing_is_touched(
    operator: Operator, tmp_path: Path, plain_user: str
) -> None:
    operator.run("stop", "--yes", "--remove")
    config = altered_ssh(operator, tmp_path, user=plain_user)
    for verb in ("deploy", "bootstrap"):
        done = operator.run(verb, "--yes", "--set", f"ssh.config={config}")
        assert done.rc == 3, done
        assert "sudo" in done.err
        assert "worker" in done.err
    assert operator.ranks() == {"head": None, "worker": None}


@pytest.mark.soak
def test_a_deploy_killed_while_it_loads_the_image_is_finished_by_the_next_one(
    operator: Operator, image_id: str
) -> None:
    operator.run("stop", "--yes", "--remove")
    operator.on("worker", "docker", "image", "rm", "--force", image_id)
    assert operator.kill_at("deploy", "image ...", "--yes", delay_s=3.0)
    done = operator.run("deploy", "--yes", "--json")
    assert done.rc == 0, done
    assert_serves(operator)


@pytest.mark.soak
def test_two_deploys_at_once_do_not_meet(serving: Operator) -> None:
    """The second waits for the first and then finds nothing to change."""
    serving.run("stop", "--yes", "--remove")
    first = serving.begin("deploy", "--yes")
    assert wait_for_line(first, "observe ...", 60)
    second = serving.begin("deploy", "--yes")
    assert first.wait(timeout=300) == 0
    assert second.wait(timeout=300) in (0, 4)
    assert_serves(serving)
