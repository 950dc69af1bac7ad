"""Which server a node runs: what holds it, which of several, and when that is not known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspark_ops.doctor.foreign.model import FoundNode
from dspark_ops.doctor.foreign.sighting import PROBES, find
from dspark_ops.transport.base import NodeReading, ProbeResult
from dspark_ops.transport.readonly import assert_read_only

SERVE = ("/usr/bin/python3", "/usr/local/bin/vllm", "serve", "m", "--nnodes=2", "--node-rank=0")
SINGLE = ("vllm", "serve", "small", "--port=8001")
IDENTITY = "ab" * 32
Row = tuple[int, str, tuple[str, ...], str]


def reading(
    table: dict[int, Row] | None, containers: list[dict[str, Any]] | None = None, *, reachable: bool = True
) -> NodeReading:
    """A node with these processes (pid: parent, name, words, control group) and containers."""
    results: dict[str, ProbeResult] = {}
    for part in ("stat", "status", "cgroup", "cmdline"):
        if table is None:
            continue
        files = {}
        for pid, (ppid, name, argv, cgroup) in table.items():
            files[f"/proc/{pid}/{part}"] = {
                "stat": f"{pid} ({name}) S {ppid} {pid} {pid} 0 -1 4194560 " + "0 " * 12 + "5000 0 0",
                "status": "Uid:\t1000\t1000\t1000\t1000\n",
                "cgroup": f"0::{cgroup}\n",
                "cmdline": "".join(word + "\0" for word in argv),
            }[part]
        results[f"proc.{part}"] = ProbeResult(id=f"proc.{part}", files=files)
    users = {"/etc/passwd": "nvidia:x:1000:1000::/home/nvidia:/bin/bash\n"}
    results["proc.users"] = ProbeResult(id="proc.users", files=users)
    if containers is not None:
        text = "".join(json.dumps(row) + "\n" for row in containers)
        results["find.ps"] = ProbeResult(id="find.ps", rc=0, stdout=text)
    return NodeReading(node="head", reachable=reachable, results=results)


def row(**more: Any) -> dict[str, Any]:
    """One row of `docker ps -a`."""
    return {
        "ID": IDENTITY,
        "Names": "box",
        "Image": "i:1",
        "State": "running",
        "Command": '"bash"',
        "Labels": "",
        **more,
    }


def seen(table: dict[int, Row] | None, containers: list[dict[str, Any]] | None = None) -> FoundNode:
    return find("head", "a", reading(table, containers))


@pytest.mark.parametrize(
    ("above", "cgroup", "keeper", "place"),
    [
        ({900: (1, "SCREEN", ("SCREEN", "-dmS", "v"), "/x.scope")}, "/x.scope", "screen", None),
        ({900: (1, "tmux: server", ("tmux", "new", "-d"), "/x.scope")}, "/x.scope", "tmux", None),
        ({}, "/system.slice/vllm.service", "systemd", "vllm.service"),
        ({}, "/user.slice/user-1000.slice/user@1000.service/app.slice/my-vllm.service", "systemd", "my-vllm.service"),
        ({}, "/user.slice/user-1000.slice/session-3.scope", "process", None),
        ({}, "/system.slice/ssh.service", "process", None),
        ({}, f"/machine.slice/libpod-{IDENTITY}.scope", "podman", None),
        ({}, f"/system.slice/docker-{IDENTITY}.scope", "docker", "box"),
        ({}, f"/docker/{IDENTITY}", "docker", "box"),
    ],
)
def test_what_holds_a_server_is_told(above: dict[int, Row], cgroup: str, keeper: str, place: str | None) -> None:
    table: dict[int, Row] = {1: (0, "systemd", ("/sbin/init",), "/init.scope"), **above}
    table[1000] = (900 if above else 1, "vllm", SERVE, cgroup)
    server = seen(table, [row()]).server
    assert server is not None
    assert (server.keeper, server.place, server.pid, server.user) == (keeper, place, 1000, "nvidia")
    assert (server.container_name == "box") is (keeper == "docker")


def test_a_compose_project_has_its_name() -> None:
    labels = "com.docker.compose.project=dspark,com.docker.compose.service=vllm"
    server = seen({1000: (1, "vllm", SERVE, f"/docker/{IDENTITY}")}, [row(Labels=labels)]).server
    assert server is not None
    assert (server.keeper, server.place) == ("compose", "dspark")
    assert server.where == "container box (compose project dspark)"


def test_a_child_with_the_same_words_is_no_second_server() -> None:
    table: dict[int, Row] = {
        1000: (1, "vllm", SERVE, "/x.scope"),
        1001: (1000, "vllm", SERVE, "/x.scope"),
        1002: (1001, "VLLM::Worker", ("VLLM::Worker_TP0",), "/x.scope"),
        1003: (1, "bash", ("bash",), "/x.scope"),
    }
    found = seen(table)
    assert found.server is not None
    assert found.server.pids == (1000, 1001, 1002)
    assert found.others == ()


def test_of_two_servers_the_one_that_was_told_of_a_pair_is_the_rank() -> None:
    table: dict[int, Row] = {1000: (1, "vllm", SINGLE, "/a.scope"), 2000: (1, "vllm", SERVE, "/b.scope")}
    found = seen(table)
    assert found.server is not None
    assert found.server.pid == 2000
    assert [other.pid for other in found.others] == [1000]


@pytest.mark.parametrize("argv", [SERVE, SINGLE])
def test_two_of_a_kind_are_not_decided_between(argv: tuple[str, ...]) -> None:
    table: dict[int, Row] = {1000: (1, "vllm", argv, "/a.scope"), 2000: (1, "vllm", argv, "/b.scope")}
    found = seen(table)
    assert found.server is None
    assert len(found.others) == 2


def test_a_process_that_took_another_title_is_found_by_its_containers_command() -> None:
    table: dict[int, Row] = {1000: (1, "VLLM::APIServer", ("VLLM::APIServer",), f"/docker/{IDENTITY}")}
    found = seen(table, [row(Command="\"bash -lc 'exec vllm serve m --nnodes 2 --node-rank 1 --headless'\"")])
    assert found.server is not None
    assert (found.server.running, found.server.pid) == (True, None)
    assert (found.server.node_rank, found.server.headless, found.server.nodes) == (1, True, 2)


def test_a_running_server_comes_before_one_that_has_ended() -> None:
    ended = row(ID="cd" * 32, Names="old", State="exited", Command='"vllm serve old"')
    found = seen({1000: (1, "vllm", SERVE, f"/docker/{IDENTITY}")}, [row(), ended])
    assert found.server is not None
    assert found.server.container_name == "box"
    assert found.others == ()
    gone = seen(
        {1: (0, "systemd", ("/sbin/init",), "/")}, [ended, row(ID="ef" * 32, State="exited", Command='"vllm serve b"')]
    )
    assert gone.server is not None
    assert (gone.server.container_name, gone.server.running) == ("old", False), "the newest, as Docker lists them"


@pytest.mark.parametrize(
    ("table", "containers", "readable"),
    [(None, None, False), (None, [], True), ({1: (0, "systemd", ("/sbin/init",), "/")}, None, True)],
)
def test_neither_processes_nor_containers_is_not_known(
    table: dict[int, Row] | None, containers: list[dict[str, Any]] | None, readable: bool
) -> None:
    found = seen(table, containers)
    assert found.readable is readable
    assert found.server is None


def test_a_node_that_was_not_reached_is_said_to_be() -> None:
    found = find("worker", "b", reading({}, reachable=False))
    assert (found.reachable, found.readable, found.server) == (False, False, None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ID": 1}', "\x00", '{"ID":"a","Names":"b"}\nrubbish'])
def test_rubbish_of_docker_is_no_server(text: str) -> None:
    found = find(
        "head",
        "a",
        NodeReading(node="head", reachable=True, results={"find.ps": ProbeResult(id="find.ps", rc=0, stdout=text)}),
    )
    assert found.server is None


def test_the_search_only_reads() -> None:
    assert_read_only(PROBES)


@pytest.mark.parametrize("end", ["\n", " \\\n  "])
def test_a_script_of_several_lines_is_read_line_by_line(end: str) -> None:
    script = f"bash -c set -e\nexec vllm serve m{end if end != chr(10) else ' '}--port 8001\necho over\n"
    quoted = '"' + script.replace("\\", "\\\\").replace("\n", "\\n") + '"'
    found = seen({}, [row(State="exited", Command=quoted)])
    assert found.server is not None
    assert found.server.argv == ("vllm", "serve", "m", "--port", "8001")
