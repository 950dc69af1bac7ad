"""Who is a tenant, what it is called, how it stops and comes back: from texts of a node."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.tenants.model import Tenant
from dspark_ops.tenants.sight import list_tenants
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.facts.captures import FIXTURES
from tests.unit.tenants.played_node import BOOTED_S, GIB, MANAGER, SESSION, PlayedNode, docker_id

RANK = "dspark-rank"


def only(node: PlayedNode, loaded: LoadedSite) -> Tenant:
    seen = node.seen(loaded)
    assert seen.problems == ()
    assert [tenant.key for tenant in seen.tenants] == [seen.tenants[0].key]
    return seen.tenants[0]


def in_docker(letter: str) -> str:
    return f"/docker/{docker_id(letter)}"


def test_an_empty_node_has_no_tenant_however_large_the_platform_and_the_reader_are(loaded: LoadedSite) -> None:
    seen = PlayedNode().seen(loaded)
    assert (seen.tenants, seen.problems) == ((), ())
    assert seen.memory is not None
    assert seen.memory.mem_available_kib == 900


def test_the_articles_case_a_container_that_holds_most_of_the_memory(loaded: LoadedSite) -> None:
    node = PlayedNode(apps="4000, /app/llama-server, 104448\n")
    node.container("a", "llama", image="ghcr.io/ggml-org/llama.cpp:server-cuda", policy="unless-stopped")
    command = "/app/llama-server -m /models/qwen3-235b.gguf"
    tenant = only(node.process(4000, 3990, command, cgroup=in_docker("a"), mib=900), loaded)
    assert (tenant.key, tenant.kind, tenant.on_gpu, tenant.gpu_kib) == ("container:llama", "container", True, 102 * GIB)
    assert tenant.memory_kib == 900 * 1024
    assert "llama.cpp server (qwen3-235b.gguf)" in tenant.what
    assert tenant.since == datetime.fromtimestamp(BOOTED_S + 4000, tz=UTC)
    assert tenant.held_by == "Docker, restart policy unless-stopped"
    assert "docker start llama" in tenant.comes_back_by
    member = tenant.members[0]
    assert (member.id, member.restart_policy, member.state) == (docker_id("a"), "unless-stopped", "running")


def test_gpu_memory_that_the_driver_does_not_tell_is_unknown_and_never_0(loaded: LoadedSite) -> None:
    node = PlayedNode(apps="4000, python, [N/A]\n").process(4000, 1, "python main.py", cgroup=SESSION, mib=10)
    tenant = only(node, loaded)
    assert (tenant.on_gpu, tenant.gpu_kib) == (True, None)


def test_one_unknown_part_makes_the_sum_on_the_gpu_unknown(loaded: LoadedSite) -> None:
    node = PlayedNode(apps="4000, a, 100\n4001, b, [N/A]\n")
    node.process(4000, 1, "serve", cgroup="/system.slice/x.service", mib=10)
    node.process(4001, 4000, "child", cgroup="/system.slice/x.service", mib=10)
    assert only(node, loaded).gpu_kib is None


@pytest.mark.parametrize("path", [f"/docker/{docker_id('a')}", f"/system.slice/docker-{docker_id('a')}.scope"])
def test_a_small_container_off_the_gpu_is_no_tenant(loaded: LoadedSite, path: str) -> None:
    node = PlayedNode().container("a", "traefik")
    node.process(4000, 3990, "traefik", cgroup=path, mib=2000)
    assert node.seen(loaded).tenants == ()
    node.process(4001, 4000, "traefik", cgroup=path, mib=100)
    assert [tenant.key for tenant in node.seen(loaded).tenants] == ["container:traefik"]


def test_our_rank_is_no_tenant_and_another_sites_is(loaded: LoadedSite) -> None:
    node = PlayedNode(apps="4000, VLLM::Worker, 99000\n")
    node.container("a", RANK, labels={"io.dspark-ops.site": loaded.site.name})
    node.process(4000, 3990, "VLLM::Worker_TP0", cgroup=in_docker("a"), mib=5000, title=True)
    assert node.seen(loaded).tenants == ()
    other = PlayedNode(apps="4000, VLLM::Worker, 99000\n").container("a", RANK, labels={"io.dspark-ops.site": "lab2"})
    other.process(4000, 3990, "VLLM::Worker_TP0", cgroup=in_docker("a"), mib=5000, title=True)
    assert [t.key for t in other.seen(loaded).tenants] == [f"container:{RANK}"]


def test_a_compose_project_is_one_tenant_with_every_container_that_runs_the_first_started_first(
    loaded: LoadedSite,
) -> None:
    node = PlayedNode()
    for letter, name, began in (("b", "web", "05"), ("a", "store", "01"), ("c", "ended", "02")):
        node.container(
            letter,
            f"studio_{name}_1",
            state="exited" if name == "ended" else "running",
            policy="always",
            started=f"2026-11-20T08:00:{began}Z",
            labels={"com.docker.compose.project": "studio", "com.docker.compose.service": name},
        )
    node.process(4000, 3990, "python main.py", cgroup=in_docker("b"), mib=1500)
    node.process(4100, 3991, "postgres", cgroup=in_docker("a"), mib=600)
    tenant = only(node, loaded)
    assert tenant.key == "compose:studio"
    assert [member.service for member in tenant.members] == ["store", "web"]
    assert tenant.memory_kib == 2100 * 1024
    assert tenant.held_by == "Docker, restart policy always"


def test_a_container_started_with_rm_does_not_come_back(loaded: LoadedSite) -> None:
    node = PlayedNode().container("a", "once", auto_remove=True)
    tenant = only(node.process(4000, 3990, "job", cgroup=in_docker("a"), mib=4000), loaded)
    assert tenant.members[0].auto_remove is True
    assert tenant.comes_back_by.startswith("nothing")


def test_what_runs_in_a_tenants_own_engine_is_the_tenants(loaded: LoadedSite) -> None:
    node = PlayedNode().container("a", "dind")
    node.process(4000, 3990, "inner", cgroup=f"{in_docker('a')}/docker/{docker_id('e')}", mib=4000)
    assert only(node, loaded).key == "container:dind"


def test_a_node_that_is_a_container_itself_does_not_hide_its_containers(loaded: LoadedSite) -> None:
    node = PlayedNode().container("a", "comfyui")
    node.process(4000, 3990, "main.py", cgroup=f"/docker/{docker_id('f')}{in_docker('a')}", mib=4000)
    assert only(node, loaded).key == "container:comfyui"


def test_a_system_unit_with_its_enablement_and_what_would_start_it(loaded: LoadedSite) -> None:
    node = PlayedNode()
    node.unit(
        "ollama.service", UnitFileState="enabled", Restart="always", FragmentPath="/etc/systemd/system/ollama.service"
    )
    node.process(4000, 1, "/usr/local/bin/ollama serve", cgroup="/system.slice/ollama.service", mib=100)
    node.process(4001, 4000, "/usr/local/bin/ollama runner", cgroup="/system.slice/ollama.service", mib=9000)
    tenant = only(node, loaded)
    assert (tenant.key, tenant.what) == ("unit:ollama.service", "Ollama, system unit")
    assert tenant.unit is not None
    assert (tenant.unit.enablement, tenant.unit.active, tenant.unit.user) == ("enabled", "active", None)
    assert tenant.held_by == "systemd, Restart=always"
    assert tenant.pids == (4000, 4001)


def test_a_users_own_unit_is_asked_of_his_manager(loaded: LoadedSite) -> None:
    node = PlayedNode().unit("lmstudio.service", 1000, UnitFileState="enabled", Restart="on-failure")
    cgroup = f"{MANAGER}/app.slice/lmstudio.service"
    tenant = only(node.process(4000, 800, "/opt/lms server", cgroup=cgroup, mib=9000, uid=1000), loaded)
    assert tenant.key == "user-unit:nvidia/lmstudio.service"
    assert tenant.unit is not None
    assert (tenant.unit.user, tenant.unit.uid, tenant.unit.enablement) == ("nvidia", 1000, "enabled")
    assert tenant.stops_by == "systemctl --user stop lmstudio.service as nvidia"


def test_a_unit_of_which_nothing_is_told_is_listed_with_unknowns(loaded: LoadedSite) -> None:
    node = PlayedNode().process(4000, 1, "thing", cgroup="/system.slice/thing.service", mib=9000)
    tenant = only(node, loaded)
    assert tenant.unit is not None
    assert (tenant.unit.active, tenant.unit.enablement) == (None, None)
    assert "could not be read" in tenant.comes_back_by


def test_a_transient_unit_does_not_come_back(loaded: LoadedSite) -> None:
    node = PlayedNode().unit("run-r12.service", UnitFileState="transient")
    node.process(4000, 1, "thing", cgroup="/system.slice/run-r12.service", mib=9000)
    assert only(node, loaded).comes_back_by.startswith("nothing")


def test_a_bare_process_with_its_parent_its_place_and_its_command(loaded: LoadedSite) -> None:
    node = PlayedNode()
    node.process(4000, 1, "/home/nvidia/llama-server -m big.gguf --port 8080", cgroup=SESSION, mib=9000, uid=1000)
    tenant = only(node, loaded)
    assert tenant.key == "process:llama-server/4000"
    process = tenant.process
    assert process is not None
    assert (process.start_ticks, process.ppid, process.user, process.cwd) == (400_000, 1, "nvidia", "/srv/4000")
    assert process.parent == "init (pid 1)"
    assert process.argv[-2:] == ("--port", "8080")


def test_a_server_typed_at_a_prompt_is_its_own_top(loaded: LoadedSite) -> None:
    node = PlayedNode().process(3000, 890, "-bash", cgroup=SESSION, mib=5, uid=1000)
    node.process(4000, 3000, "python3 -m vllm.entrypoints.openai.api_server", cgroup=SESSION, mib=900, uid=1000)
    node.process(4001, 4000, "VLLM::EngineCore", cgroup=SESSION, mib=9000, uid=1000, title=True)
    tenant = only(node, loaded)
    assert tenant.key == "process:vllm.entrypoints.openai.api_server/4000"
    assert tenant.pids == (4000, 4001)
    assert tenant.what.startswith("vLLM")


def test_a_shell_loop_is_the_owner_of_what_it_starts_again(loaded: LoadedSite) -> None:
    node = PlayedNode().process(3000, 1, "/bin/bash /srv/loop.sh", cgroup=SESSION, mib=5)
    tenant = only(node.process(4000, 3000, "python3 serve.py", cgroup=SESSION, mib=9000), loaded)
    assert tenant.key == "process:loop.sh/3000"
    assert tenant.held_by is not None
    assert "pid 3000" in tenant.held_by


@pytest.mark.parametrize("ppid", [1, 800, 3000])
def test_an_engine_process_without_its_server_is_an_orphan_whoever_adopted_it(loaded: LoadedSite, ppid: int) -> None:
    node = PlayedNode(apps="4000, VLLM::EngineCore, 104277\n")
    node.process(800, 1, "/lib/systemd/systemd --user", cgroup=f"{MANAGER}/init.scope", mib=9)
    node.process(3000, 890, "-bash", cgroup=SESSION, mib=5)
    node.process(4000, ppid, "VLLM::EngineCore", cgroup=SESSION, mib=900, title=True)
    tenant = only(node, loaded)
    assert (tenant.kind, tenant.key) == ("orphan", "orphan:VLLM::EngineCore/4000")
    assert tenant.comes_back_by.startswith("nothing")
    assert tenant.process is not None
    assert tenant.process.argv == ("VLLM::EngineCore",)


def test_what_a_dead_unit_left_in_its_group_is_an_orphan_and_no_unit(loaded: LoadedSite) -> None:
    node = PlayedNode().unit("vllm.service", ActiveState="failed", UnitFileState="enabled")
    node.process(4000, 1, "VLLM::Worker_TP0", cgroup="/system.slice/vllm.service", mib=9000, title=True)
    assert only(node, loaded).kind == "orphan"


def test_the_desktop_is_one_tenant_and_what_was_typed_in_its_terminal_is_not_in_it(loaded: LoadedSite) -> None:
    node = PlayedNode().unit("gdm.service", UnitFileState="static", Restart="always")
    scope = "/user.slice/user-1000.slice/session-2.scope"
    node.process(500, 1, "/usr/sbin/gdm3", cgroup="/system.slice/gdm.service", mib=20)
    node.process(600, 500, "/usr/lib/gdm3/gdm-x-session", cgroup=scope, mib=20, uid=1000)
    node.process(601, 600, "/usr/lib/xorg/Xorg vt2", cgroup=scope, mib=700, uid=1000)
    shell = f"{MANAGER}/session.slice/org.gnome.Shell@x11.service"
    node.process(700, 800, "/usr/bin/gnome-shell", cgroup=shell, mib=1900, uid=1000)
    node.process(3000, 601, "bash", cgroup=scope, mib=5, uid=1000)
    node.process(4000, 3000, "./train.py", cgroup=scope, mib=9000, uid=1000)
    keys = {tenant.key: tenant for tenant in node.seen(loaded).tenants}
    assert set(keys) == {"desktop:nvidia", "process:train.py/4000"}
    desktop = keys["desktop:nvidia"]
    assert desktop.pids == (600, 601, 700)
    assert desktop.unit is not None
    assert desktop.unit.name == "gdm.service"
    assert "gdm.service" in desktop.stops_by


def test_shared_pages_count_once_where_root_can_read_them(loaded: LoadedSite) -> None:
    node = PlayedNode()
    for pid in (4000, 4001):
        node.process(pid, 1 if pid == 4000 else 4000, "serve", cgroup=SESSION, mib=3000, pss_mib=1500, file_mib=500)
    tenant = only(node, loaded)
    assert (tenant.memory_kib, tenant.reclaimable_kib) == (3000 * 1024, 1000 * 1024)
    node.rollups = False
    tenant = only(node, loaded)
    assert (tenant.memory_kib, tenant.reclaimable_kib) == (6000 * 1024, None)


def test_many_shares_of_the_same_pages_do_not_make_a_tenant(loaded: LoadedSite) -> None:
    node = PlayedNode()
    for pid in range(4000, 4010):
        node.process(pid, 1 if pid == 4000 else 4000, "postgres", cgroup=SESSION, mib=1000, pss_mib=101)
    assert node.seen(loaded).tenants == ()


def test_the_site_says_how_much_is_large(make_site: Callable[..., LoadedSite], loaded: LoadedSite) -> None:
    node = PlayedNode().process(4000, 1, "serve", cgroup=SESSION, mib=100)
    assert node.seen(loaded).tenants == ()
    assert len(node.seen(make_site("tenants.large_memory_gib=0.05")).tenants) == 1


def test_without_the_engine_a_container_may_be_our_rank_and_is_counted_but_no_tenant(loaded: LoadedSite) -> None:
    node = PlayedNode(ps=None).process(4000, 3990, "VLLM::EngineCore", cgroup=in_docker("a"), mib=9216, title=True)
    node.process(4001, 1, "serve", cgroup=SESSION, mib=9000)
    seen = node.seen(loaded)
    assert "Cannot connect" in seen.problems[0]
    assert "hold 9.0 GiB" in seen.problems[1]
    assert [tenant.key for tenant in seen.tenants] == ["process:serve/4001"]


def test_a_driver_that_does_not_answer_leaves_on_gpu_unknown(loaded: LoadedSite) -> None:
    node = PlayedNode(apps=None).process(4000, 1, "serve", cgroup=SESSION, mib=9000)
    seen = node.seen(loaded)
    assert "NVIDIA-SMI has failed" in seen.problems[0]
    assert [tenant.on_gpu for tenant in seen.tenants] == [None]


def test_a_process_on_the_gpu_that_nobody_can_see_is_a_problem(loaded: LoadedSite) -> None:
    node = PlayedNode(apps="77777, python, 9000\n").process(4000, 1, "serve", cgroup=SESSION, mib=1)
    second = node.second().model_copy(
        update={"results": {"gpu.processes": ProbeResult(id="gpu.processes", rc=0, stdout="77777, python, 9000\n")}}
    )
    sight = list_tenants(loaded.site, {"head": (node.first(), second)})
    assert "77777" in sight.problems[0]
    # It ended between the two readings: nothing is held, nothing is wrong.
    gone = second.model_copy(update={"results": {"gpu.processes": ProbeResult(id="gpu.processes", rc=0, stdout="")}})
    assert list_tenants(loaded.site, {"head": (node.first(), gone)}).problems == ()


def test_a_shell_that_the_driver_names_is_listed_although_shells_are_the_platforms(loaded: LoadedSite) -> None:
    node = PlayedNode(apps="3000, bash, 10\n").process(3000, 890, "-bash", cgroup=SESSION, mib=5)
    assert only(node, loaded).key == "process:bash/3000"


def test_a_container_that_ended_meanwhile_is_not_listed(loaded: LoadedSite) -> None:
    node = PlayedNode().container("a", "short").process(4000, 3990, "job", cgroup=in_docker("a"), mib=9000)
    identity = docker_id("a")
    node.inspected[identity] = ProbeResult(
        id=identity, rc=1, stdout="[]", stderr=f"Error: No such container: {identity}"
    )
    seen = node.seen(loaded)
    assert (seen.tenants, seen.problems) == ((), ())


def test_a_container_that_could_not_be_inspected_is_listed_and_is_a_problem(loaded: LoadedSite) -> None:
    node = PlayedNode().container("a", "slow").process(4000, 3990, "job", cgroup=in_docker("a"), mib=9000)
    identity = docker_id("a")
    node.inspected[identity] = ProbeResult(id=identity, error="no answer within 20 s")
    seen = node.seen(loaded)
    assert [tenant.key for tenant in seen.tenants] == ["container:slow"]
    assert "no answer within 20 s" in seen.problems[0]


def test_a_node_that_was_not_reached_is_a_problem_and_the_other_is_still_told(loaded: LoadedSite) -> None:
    node = PlayedNode().process(4000, 1, "serve", cgroup=SESSION, mib=9000)
    silent = NodeReading(node="worker", reachable=False, error="connection timed out")
    sight = list_tenants(loaded.site, {"head": (node.first(), node.second()), "worker": (silent, None)})
    assert sight.problems == ("worker: not reached: connection timed out",)
    assert [tenant.node for tenant in sight.all] == ["head"]
    assert sight.of("worker") == ()


def test_a_second_reading_that_failed_tells_nobody_rather_than_half_of_it(loaded: LoadedSite) -> None:
    node = PlayedNode().process(4000, 1, "serve", cgroup=SESSION, mib=9000)
    lost = NodeReading(node="head", reachable=False, error="connection reset")
    sight = list_tenants(loaded.site, {"head": (node.first(), lost)})
    assert sight.of("head") == ()
    assert "connection reset" in sight.problems[0]


def test_a_key_is_one_word_that_a_site_file_may_list(loaded: LoadedSite, make_site: Callable[..., LoadedSite]) -> None:
    node = PlayedNode().process(4000, 1, "my server", cgroup=SESSION, mib=9000)
    node.cmdlines[4000] = "/opt/my server\0--x\0"
    key = only(node, loaded).key
    assert key == "process:my_server/4000"
    assert make_site(f'tenants.evict=["{key}"]').site.tenants.evict == (key,)


def test_a_reading_of_a_real_node_with_six_tenants(make_site: Callable[..., LoadedSite]) -> None:
    capture = json.loads((FIXTURES / "rehearsal" / "tenants.json").read_text(encoding="utf-8"))
    first, second = (NodeReading.model_validate(capture[part]) for part in ("first", "second"))
    site = make_site("name=lab", "tenants.large_memory_gib=0.05").site
    sight = list_tenants(site, {"head": (first, second)})
    assert sight.problems == ()
    assert sorted(tenant.key for tenant in sight.of("head")) == sorted(capture["keys"])
    assert all(80 * 1024 < (tenant.memory_kib or 0) < 120 * 1024 for tenant in sight.all)
