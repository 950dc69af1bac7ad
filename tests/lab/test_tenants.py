"""Real tenants on the pair: evicted by consent, their memory seen to come back, and given back exactly."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab import real_tenants as tenants
from tests.lab.conftest import RehearsalPair
from tests.lab.node_power import power_cycle
from tests.lab.operator_cli import Operator
from tests.lab.real_tenants import Nodes, Started

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
SMALL = ("--set", "tenants.large_memory_gib=0.05")
RECORDS = "/var/lib/dspark-ops/tenants"


@pytest.fixture
def nodes(operator: Operator, pair: RehearsalPair) -> Iterator[Nodes]:
    """Both nodes, with nothing owed to anybody before and after."""
    found = Nodes(pair.ssh_config)
    _forget(found)
    yield found
    _forget(found)


def _forget(nodes: Nodes) -> None:
    for role in tenants.HOSTS:
        nodes.root(role, f"rm -rf {RECORDS} /etc/systemd/*/*.d/zz-dspark-evicted*; systemctl daemon-reload")
        nodes.run(role, "XDG_RUNTIME_DIR=/run/user/1000 systemctl --user daemon-reload", check=False)


def _evict(operator: Operator, *started: Started, more: tuple[str, ...] = ()) -> None:
    keys = [f"{one.role}/{one.key}" for one in started]
    done = operator.run("tenants evict", *keys, "--yes", *SMALL, *more)
    assert done.rc == 0, done


def _container(nodes: Nodes, one: Started) -> str:
    name = one.key.partition(":")[2]
    words = "{{.Id}} {{.State.Running}} {{json .HostConfig.RestartPolicy}}"
    return nodes.root(one.role, f"docker container inspect --format '{words}' {name}")


def _project(nodes: Nodes) -> str:
    words = "{{.Id}} {{.Name}} {{.State.Running}} {{json .HostConfig.RestartPolicy}}"
    ids = "docker ps -aq --filter label=com.docker.compose.project=studio"
    return nodes.root("worker", f"docker container inspect --format '{words}' $({ids}) | sort")


def _user_unit(nodes: Nodes) -> str:
    mine = "XDG_RUNTIME_DIR=/run/user/1000 systemctl --user"
    asked = f"{mine} is-enabled lmstudio; {mine} is-active lmstudio"
    shown = f"{mine} show lmstudio -p Restart,FragmentPath,DropInPaths"
    return nodes.run("head", f"{asked}; {shown}; ls -l ~/.config/systemd/user/*.wants", check=False)


def test_everybody_leaves_and_comes_back_as_before(operator: Operator, nodes: Nodes) -> None:
    assert tenants.has_compose(nodes, "worker")
    with ExitStack() as stack:
        comfy = stack.enter_context(tenants.container(nodes, "head"))
        studio = stack.enter_context(tenants.compose(nodes, "worker"))
        unit = stack.enter_context(tenants.user_unit(nodes, "head"))
        process = stack.enter_context(tenants.process(nodes, "head"))
        orphan = stack.enter_context(tenants.orphan(nodes, "worker"))
        everybody = (comfy, studio, unit, process, orphan)
        before = (_container(nodes, comfy), _project(nodes), _user_unit(nodes))
        free_kib = nodes.available_kib("head")

        asked = operator.run("tenants evict", *(one.key for one in everybody), *SMALL)
        assert asked.rc == 4, asked
        assert all(nodes.answer(one.role, one.port) == one.word for one in everybody)

        _evict(operator, *everybody)
        assert [nodes.answer(one.role, one.port) for one in everybody] == [None] * 5
        # 80 MiB each; what else runs on the node breathes.
        assert nodes.available_kib("head") - free_kib > 150 * 1024

        # One that started again by itself would be here by now.
        listed = operator.run("tenants list", "--json", *SMALL).document()
        assert not {one.key for one in everybody} & set(_keys(listed)), listed

        done = operator.run("tenants restore", "--yes", "--json")
        assert done.rc == 4, done
        assert [left for left in done.document()["left"] if process.key in left], done
        nodes.wait_answer("head", comfy.port, comfy.word)
        nodes.wait_answer("head", unit.port, unit.word)
        nodes.wait_answer("worker", studio.port, studio.word)
        assert (_container(nodes, comfy), _project(nodes), _user_unit(nodes)) == before
        assert nodes.answer("head", process.port) is None

        done = operator.run("tenants restore", "--yes", "--start-processes")
        assert done.rc == 0, done
        nodes.wait_answer("head", process.port, process.word)
        again = operator.run("tenants restore", "--yes", "--json")
        assert (again.rc, again.document()["verdict"], again.document()["changes"]) == (0, "unchanged", [])
        assert nodes.answer("worker", orphan.port) is None


def test_one_that_its_owner_removed_is_owed_until_it_is_forgotten(operator: Operator, nodes: Nodes) -> None:
    with tenants.container(nodes, "head") as one:
        _evict(operator, one)
        nodes.root("head", f"docker rm -f {one.key.partition(':')[2]}")
        lost = operator.run("tenants restore", "--yes", "--json")
        assert lost.rc == 6, lost
        assert [left for left in lost.document()["left"] if one.key in left], lost

        asked = operator.run("tenants forget", f"{one.role}/{one.key}")
        assert asked.rc == 4, asked
        gone = operator.run("tenants forget", f"{one.role}/{one.key}", "--yes")
        assert gone.rc == 0, gone
        after = operator.run("tenants restore", "--yes", "--json")
        assert (after.rc, after.document()["verdict"]) == (0, "unchanged"), after


def _keys(document: object) -> list[str]:
    """Every value of a field `key`, wherever it is in the document."""
    if isinstance(document, dict):
        own = [document["key"]] if isinstance(document.get("key"), str) else []
        return own + [key for value in document.values() for key in _keys(value)]
    if isinstance(document, list):
        return [key for value in document for key in _keys(value)]
    return []


@pytest.mark.soak
def test_a_system_unit_keeps_its_enablement_through_a_boot(operator: Operator, nodes: Nodes) -> None:
    with tenants.system_unit(nodes, "head") as one:
        _evict(operator, one)
        state = "systemctl is-enabled llama-server; systemctl is-active llama-server"
        assert nodes.root("head", state, check=False) == "enabled\ninactive"
        power_cycle("head")
        assert nodes.root("head", state, check=False) == "enabled\ninactive", "a boot must not bring it back"
        nodes.root("head", "systemctl start llama-server", check=False)
        assert nodes.root("head", state, check=False) == "enabled\ninactive", "somebody's start must not bring it back"
        assert operator.run("tenants restore", "--yes").rc == 0
        nodes.wait_answer("head", one.port, one.word)
        assert nodes.root("head", state) == "enabled\nactive"
        assert nodes.root("head", "ls -d /etc/systemd/system/llama-server.service.d", check=False) == ""


@pytest.mark.soak
def test_a_script_that_starts_its_server_again_is_stopped_itself(operator: Operator, nodes: Nodes) -> None:
    with tenants.respawning_process(nodes, "worker") as one:
        _evict(operator, one)
        assert nodes.answer("worker", one.port) is None
        done = operator.run("tenants restore", "--yes", "--start-processes")
        assert done.rc == 0, done
        nodes.wait_answer("worker", one.port, one.word)


@pytest.mark.soak
@pytest.mark.parametrize("user", [False, True], ids=["system", "user"])
def test_a_transient_unit_is_defined_again(operator: Operator, nodes: Nodes, user: bool) -> None:
    tenants._place_hog(nodes, "head")
    unit = f"try-{'user' if user else 'system'}-{time.time_ns()}"
    run = nodes.run if user else nodes.root
    manager = "export XDG_RUNTIME_DIR=/run/user/1000; systemctl --user" if user else "systemctl"
    start = manager.replace("systemctl", "systemd-run")
    run("head", f"{start} --unit={unit} -p Restart=always python3 {tenants.PLACE}/hog.py tryit 80 18333")
    try:
        nodes.wait_answer("head", 18333, "tryit")
        key = f"user-unit:{tenants.LOGIN}/{unit}.service" if user else f"unit:{unit}.service"
        _evict(operator, Started("head", key, "tryit", 18333, 0))
        assert nodes.answer("head", 18333) is None
        assert operator.run("tenants restore", "--yes").rc == 0
        nodes.wait_answer("head", 18333, "tryit")
        # Its exit code is 1 for a unit of that kind.
        assert run("head", f"{manager} is-enabled {unit}", check=False) == "transient"
    finally:
        # Defined again it outlives its end, until the next boot.
        folder = "/run/user/1000/systemd/transient" if user else "/run/systemd/transient"
        run(
            "head",
            f"{manager} stop {unit}; rm -f {folder}/{unit}.service; {manager.split('; ')[-1]} daemon-reload",
            check=False,
        )


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("delay_s", [0.0, 1.0, 1.6, 2.2, 3.0, 4.0, 8.0])
def test_a_killed_eviction_loses_nobody(operator: Operator, nodes: Nodes, delay_s: float) -> None:
    with tenants.container(nodes, "head") as comfy, tenants.user_unit(nodes, "head") as unit:
        before = (_container(nodes, comfy), _user_unit(nodes))
        operator.kill_at("tenants evict", "evict ...", comfy.key, unit.key, "--yes", *SMALL, delay_s=delay_s)
        # What the node is doing ends by itself, or was never begun; the restore waits for it.
        done = operator.run("tenants restore", "--yes")
        assert done.rc == 0, done
        nodes.wait_answer("head", comfy.port, comfy.word)
        nodes.wait_answer("head", unit.port, unit.word)
        after = operator.run("tenants restore", "--yes", "--json")
        assert (after.rc, after.document()["changes"]) == (0, []), after
        assert (_container(nodes, comfy), _user_unit(nodes)) == before


@pytest.mark.soak
def test_a_program_named_like_a_template_is_only_a_name(operator: Operator, nodes: Nodes) -> None:
    with tenants.process(nodes, "head", argv0="{{7*7}}") as one:
        _evict(operator, one)
        kept = json.loads(nodes.root("head", f"cat {RECORDS}/*[0-9].json"))
        assert kept["recorded"]["argv"][0] == "{{7*7}}"
        assert operator.run("tenants restore", "--yes", "--start-processes").rc == 0
        nodes.wait_answer("head", one.port, one.word)
