"""The parsers and rules below the list: whose a process is, what is shown, what may be asked."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.config.load import LoadedSite
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.container_inspect import parse_container
from dspark_ops.facts.docker_engine import ContainerRow
from dspark_ops.facts.processes import (
    ProcessFacts,
    parse_cgroup,
    parse_cmdline,
    parse_rollup,
    parse_stat,
    parse_users,
)
from dspark_ops.facts.units import parse_show, unit_probe
from dspark_ops.tenants import view
from dspark_ops.tenants.grouping import holders_of
from dspark_ops.tenants.owners import Container, Session, Unit, owner_of
from dspark_ops.tenants.programs import is_prompt, program_of
from dspark_ops.tenants.reading import FIRST
from dspark_ops.tenants.recognise import HIDDEN, model_of, recognise, without_secrets
from dspark_ops.tenants.sight import list_tenants
from dspark_ops.transport.base import Command, NodeReading
from dspark_ops.transport.readonly import ReadOnlyViolationError, assert_read_only
from tests.unit.tenants.played_node import BOOTED_S, SESSION, PlayedNode

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        (f"/docker/{ID}", Container(ID)),
        (f"/system.slice/docker-{ID}.scope", Container(ID)),
        (f"/system.slice/docker-{ID}.scope/init.scope", Container(ID)),
        (f"/docker/{'f' * 64}/docker/{ID}", Container(ID)),
        ("/system.slice/ollama.service", Unit("ollama.service")),
        ("/system.slice/system-getty.slice/getty@tty1.service", Unit("getty@tty1.service")),
        ("/user.slice/user-7.slice/user@7.service/app.slice/x.service", Unit("x.service", 7)),
        ("/user.slice/user-7.slice/user@7.service/x.service/sub", Unit("x.service", 7)),
        ("/user.slice/user-7.slice/user@7.service/init.scope", Session("init.scope", 7)),
        ("/user.slice/user-7.slice/user@7.service/app.slice/app-gnome-a-12.scope", Session("app-gnome-a-12.scope", 7)),
        ("/user.slice/user-7.slice/session-3.scope", Session("session-3.scope", 7)),
        ("/init.scope", Session("init.scope")),
        ("/", Session()),
        (f"/system.slice/docker-{'e' * 64}.scope", Session(f"docker-{'e' * 64}.scope")),
    ],
)
def test_the_owner_is_told_by_the_control_group(path: str, owner: object) -> None:
    assert owner_of((path,), {ID}) == owner


def test_an_engine_that_could_not_be_asked_still_leaves_containers_containers() -> None:
    assert owner_of((f"/docker/{'f' * 64}/docker/{ID}",), None) == Container(ID)


def test_systemds_own_hierarchy_counts_where_the_others_say_less() -> None:
    text = "7:cpu:/system.slice\n1:name=systemd:/system.slice/a.service\n0::/\n"
    assert parse_cgroup(text)[0] == "/system.slice/a.service"
    assert owner_of(parse_cgroup("7:cpu:/\n0::/system.slice/b.service\n"), ()) == Unit("b.service")


@given(st.text(), st.lists(st.text()))
@settings(deadline=None)
def test_no_control_group_makes_it_fail(path: str, more: list[str]) -> None:
    owner_of((path, *more), {ID})
    parse_cgroup(path)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=15)


@given(NAMES, st.integers(1, 4_000_000), st.integers(0, 4_000_000), st.integers(0, 10**15))
@settings(deadline=None)
def test_a_process_name_may_hold_anything(name: str, pid: int, ppid: int, ticks: int) -> None:
    text = f"{pid} ({name}) S {ppid} 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {ticks} 99 12"
    found = parse_stat(text)
    assert found is not None
    assert (found.pid, found.ppid, found.start_ticks, found.name) == (pid, ppid, ticks, name)


@given(st.text())
@settings(deadline=None)
def test_what_is_no_answer_is_none_or_empty_and_never_an_error(text: str) -> None:
    parse_stat(text)
    parse_cmdline(text)
    parse_rollup(text)
    parse_users(text)
    parse_show(text)
    parse_container(text)
    without_secrets(tuple(text.split()))
    recognise([text])
    model_of(tuple(text.split()))


COMMANDS = st.sampled_from(
    ["-bash", "bash /srv/loop.sh", "VLLM::EngineCore", "llama-server -m x", "sshd: u@notty", "sudo x", "python3 a.py"]
)
GROUPS = st.sampled_from(
    [f"/docker/{ID}", SESSION, "/system.slice/ollama.service", "/system.slice/ssh.service", "/", "/init.scope"]
)


@st.composite
def machines(draw: st.DrawFn) -> tuple[ProcessFacts, ...]:
    """Processes with any parents, rings and missing ones too."""
    pids = draw(st.lists(st.integers(2, 40), unique=True, min_size=1, max_size=20))
    return tuple(
        ProcessFacts(
            pid=pid,
            ppid=draw(st.integers(0, 40)),
            start_ticks=draw(st.integers(0, 9)),
            name="x",
            argv=tuple(draw(COMMANDS).split(" ")),
            cgroups=(draw(GROUPS),),
        )
        for pid in pids
    )


@given(machines(), st.sets(st.integers(2, 40)), st.one_of(st.none(), st.integers(2, 40)))
@settings(deadline=None)
def test_every_process_has_at_most_one_holder_and_one_on_the_gpu_has_exactly_one(
    processes: tuple[ProcessFacts, ...], on_gpu: set[int], reader: int | None
) -> None:
    rows = (ContainerRow(id=ID, name="c"),)
    holders = holders_of("desk", processes, rows, reader=None, on_gpu=on_gpu)
    held = [pid for holder in holders for pid in holder.pids]
    assert len(held) == len(set(held))
    assert on_gpu & {process.pid for process in processes} <= set(held)
    assert all(holder.root in holder.pids for holder in holders)
    assert {h.root for h in holders_of("desk", processes[::-1], rows, on_gpu=on_gpu)} == {h.root for h in holders}
    read = holders_of("desk", processes, rows, reader=reader, on_gpu=on_gpu)
    assert reader not in [pid for holder in read for pid in holder.pids]


@pytest.mark.parametrize(
    ("command", "program"),
    [
        (("/usr/bin/python3", "/opt/ComfyUI/main.py", "--listen"), "main.py"),
        (("python3", "-m", "sglang.launch_server"), "sglang.launch_server"),
        (("python3", "-c", "import x"), "python3"),
        (("/usr/bin/python3", "/usr/local/bin/vllm", "serve"), "vllm"),
        (("VLLM::Worker_TP0",), "VLLM::Worker_TP0"),
        (("sshd-session: nvidia [priv]",), "sshd-session"),
        (("/bin/bash", "/srv/loop.sh"), "loop.sh"),
        (("-bash",), "bash"),
        (("/opt/my server",), "my_server"),
        ((), "x"),
    ],
)
def test_the_program_is_named_by_what_runs(command: tuple[str, ...], program: str) -> None:
    assert program_of(ProcessFacts(pid=9, ppid=1, start_ticks=1, name="x", argv=command)) == program


@pytest.mark.parametrize(
    ("command", "prompt"),
    [
        (("-bash",), True),
        (("bash", "-s"), True),
        (("zsh", "-l"), True),
        (("/bin/bash", "--init-file", "/x/shellIntegration-bash.sh"), True),
        (("bash", "-x", "/srv/run.sh"), False),
        (("bash", "-c", "x"), False),
        (("bash", "-lc", "x"), False),
        (("sh", "/srv/loop.sh"), False),
        (("python3",), False),
    ],
)
def test_a_shell_is_a_prompt_when_it_runs_no_script(command: tuple[str, ...], prompt: bool) -> None:
    assert is_prompt(ProcessFacts(pid=9, ppid=1, start_ticks=1, name="x", argv=command)) is prompt


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        ("/app/llama-server -m x", "llama.cpp server"),
        ("ollama/ollama:latest", "Ollama"),
        ("vllm/vllm-openai:v0.11", "vLLM"),
        ("/usr/local/bin/vllm serve x", "vLLM"),
        ("VLLM::EngineCore", "vLLM"),
        ("python main.py", None),
        ("lmsysorg/sglang:spark", "SGLang"),
        ("yanwk/comfyui-boot", "ComfyUI"),
        ("nvcr.io/nim/meta/llama3", "NVIDIA NIM"),
        ("traefik:v3", None),
        ("myprovllmx", None),
    ],
)
def test_what_people_know_is_called_by_its_name(hint: str, words: str | None) -> None:
    assert recognise([hint]) == words


def test_a_module_of_python_is_no_model() -> None:
    assert model_of(("python3", "-m", "http.server")) is None
    assert model_of(("python3", "-m", "vllm.x", "--model", "/m/deepseek")) == "deepseek"
    assert model_of(("vllm", "serve", "org/model")) == "model"


def test_secrets_of_a_command_are_not_shown(loaded: LoadedSite) -> None:
    command = "serve --api-key planted-secret --hf-token=planted-secret --port 80"
    node = PlayedNode().process(4000, 1, command, cgroup=SESSION, mib=9000)
    sight = list_tenants(loaded.site, {"head": (node.first(), node.second())})
    shown = json.dumps(view.document(loaded.site, sight)) + view.render(loaded.site, sight)
    assert "planted-secret" not in shown
    assert HIDDEN in shown
    # Whoever starts it again needs the command as it was.
    process = sight.all[0].process
    assert process is not None
    assert "planted-secret" in process.argv


def test_the_table_names_unknowns_and_the_exit_code_follows_them(loaded: LoadedSite) -> None:
    node = PlayedNode(apps="4000, serve, [N/A]\n").process(4000, 1, "serve", cgroup=SESSION, mib=9000)
    sight = list_tenants(loaded.site, {"head": (node.first(), node.second())})
    now = datetime.fromtimestamp(BOOTED_S + 4000 + 7200, tz=UTC)
    text = view.render(loaded.site, sight, now=now)
    row = next(line for line in text.splitlines() if "process:serve/4000" in line)
    assert " 2 h " in row
    assert " 8.8 GiB " in row
    assert " yes, N/A " in row
    assert "of 121.7 GiB" in text
    assert view.exit_code(sight) is ExitCode.OK
    silent = NodeReading(node="worker", reachable=False, error="refused")
    both = list_tenants(loaded.site, {"head": (node.first(), node.second()), "worker": (silent, None)})
    assert view.exit_code(both) is ExitCode.NO_VERDICT
    assert "could not tell: worker: not reached: refused" in view.render(loaded.site, both)
    worker = view.document(loaded.site, both)["nodes"][1]
    assert (worker["mem_available_kib"], worker["tenants"]) == (None, [])


def test_a_node_without_tenants_says_what_would_have_been_one(loaded: LoadedSite) -> None:
    node = PlayedNode()
    text = view.render(loaded.site, list_tenants(loaded.site, {"head": (node.first(), node.second())}))
    assert "none: nobody on the GPU, nobody with 2 GiB or more" in text


def test_all_that_is_asked_passes_the_guard_and_nothing_else_as_another_user() -> None:
    assert_read_only([*FIRST, unit_probe("x.service"), unit_probe("x.service", 1000)])
    argv = unit_probe("x.service", 1000).argv
    for wrong in (
        tuple(word.replace("show", "stop") for word in argv),
        ("setpriv", "--reuid=0", "--regid=1000", *argv[3:]),
        ("setpriv", "rm", "-rf", "/"),
        ("setpriv",),
        tuple(word.replace("1000", "nvidia") for word in argv),
        (*argv[:3], "sh", "-c", "true"),
    ):
        with pytest.raises(ReadOnlyViolationError, match="another user"):
            assert_read_only([Command("x", wrong)])
