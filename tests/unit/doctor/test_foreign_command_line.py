"""Command lines of vLLM servers: seen for what they are, and read as vLLM reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.doctor.foreign.command_line import read_argv, read_shell_text

SERVERS = [
    ["vllm", "serve", "m"],
    ["/opt/env/bin/vllm", "serve", "m"],
    ["/usr/bin/python3.12", "/opt/env/bin/vllm", "serve", "m"],
    ["python3", "-I", "/opt/env/bin/vllm", "serve", "m"],
    ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"],
    ["python", "-m", "vllm", "serve", "m"],
    ["python3", "/usr/lib/vllm/entrypoints/openai/api_server.py", "--model", "m"],
]
OTHERS = [
    [],
    [""],
    ["bash", "-lc", "exec vllm serve m"],
    ["bash", "vllm", "serve", "m"],
    ["docker", "exec", "vllm_node", "vllm", "serve", "m"],
    ["ssh", "gx10-b", "vllm", "serve", "m"],
    ["sudo", "vllm", "serve", "m"],
    ["SCREEN", "-dmS", "x", "vllm", "serve", "m"],
    ["vllm", "bench", "serve", "m"],
    ["vllm"],
    ["python3", "-m", "vllm.entrypoints.cli.benchmark"][:2],
    ["python3", "-c", "import vllm"],
    ["grep", "vllm", "serve"],
    ["VLLM::EngineCore"],
    ["llama-server", "-m", "x"],
]


@pytest.mark.parametrize("argv", SERVERS)
def test_a_server_is_seen(argv: list[str]) -> None:
    line = read_argv(argv)
    assert line is not None
    assert line.model == "m"
    assert line.canonical() == ("vllm", "serve", "m")


@pytest.mark.parametrize("argv", OTHERS)
def test_what_only_holds_the_words_is_none(argv: list[str]) -> None:
    assert read_argv(argv) is None


@pytest.mark.parametrize(
    ("text", "model", "port"),
    [
        ("vllm serve m --port 8888", "m", 8888),
        ("bash -lc 'export A=1; exec /opt/env/bin/vllm serve m --port 8888'", "m", 8888),
        (
            '/bin/bash -c "cd /x && python3 -m vllm.entrypoints.openai.api_server --model m --port=8888 2>&1 | tee /l"',
            "m",
            8888,
        ),
        ("bash -lc 'exec vllm serve m --port 8888; echo vllm ended'", "m", 8888),
        ("sh -c 'vllm serve m \\\n --port 8888 > /tmp/log'", "m", 8888),
    ],
)
def test_a_shell_is_read_to_the_server_it_runs(text: str, model: str, port: int) -> None:
    line = read_shell_text(text)
    assert line is not None
    assert (line.model, line.whole("--port")) == (model, port)


@pytest.mark.parametrize("text", ["sleep infinity", "ray start --block --head", "", "nginx -g 'daemon off;'", "'"])
def test_another_command_is_none(text: str) -> None:
    assert read_shell_text(text) is None


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("1048576", 1 << 20),
        ("1M", 1 << 20),
        ("1m", 1_000_000),
        ("32k", 32_000),
        ("32K", 32 << 10),
        ("1.5k", 1500),
        ("1.5K", None),
        ("x", None),
        ("-1", None),
    ],
)
def test_counts_have_vllms_suffixes(word: str, number: int | None) -> None:
    line = read_argv(["vllm", "serve", "m", f"--max-model-len={word}"])
    assert line is not None
    assert line.whole("--max-model-len") == number


def test_names_short_forms_and_underscores_are_one() -> None:
    line = read_argv(["vllm", "serve", "m", "-tp", "2", "--max_num_seqs=6", "-n", "2", "-r", "1", "--headless"])
    assert line is not None
    assert line.whole("--tensor-parallel-size") == 2
    assert line.whole("--max-num-seqs") == 6
    assert (line.nodes, line.node_rank, line.headless) == (2, 1, True)
    assert line.canonical()[3:] == (
        "--tensor-parallel-size=2",
        "--max-num-seqs=6",
        "--nnodes=2",
        "--node-rank=1",
        "--headless",
    )


def test_the_last_of_an_option_counts_and_all_are_kept() -> None:
    line = read_argv(["vllm", "serve", "m", "--port", "1", "--port", "2"])
    assert line is not None
    assert line.text("--port") == "2"
    assert line.canonical()[3:] == ("--port=1", "--port=2")


def test_a_switch_takes_no_word_and_a_name_several() -> None:
    line = read_argv(["vllm", "serve", "--enable-prefix-caching", "m", "--served-model-name", "a", "b", "--port", "1"])
    assert line is not None
    assert line.model == "m"
    assert line.options["--served-model-name"] == ("a", "b")
    assert line.has("--enable-prefix-caching")
    assert line.text("--enable-prefix-caching") is None


@pytest.mark.parametrize(
    "words",
    [
        ['--speculative-config={"method":"dspark","num_speculative_tokens":3}'],
        ["--speculative-config", '{"method":"dspark","num_speculative_tokens":3}'],
        ["--speculative-config.method=dspark", "--speculative-config.num_speculative_tokens=3"],
        ["--speculative-config.method", "dspark", "--speculative-config.num_speculative_tokens", "3"],
    ],
)
def test_speculation_is_said_in_two_ways(words: list[str]) -> None:
    line = read_argv(["vllm", "serve", "m", *words])
    assert line is not None
    assert line.speculative["method"] == "dspark"
    assert int(line.speculative["num_speculative_tokens"]) == 3


@pytest.mark.parametrize("value", ["{", "[1]", "null", "{}", '"x"'])
def test_speculation_that_is_no_object_is_none(value: str) -> None:
    line = read_argv(["vllm", "serve", "m", "--speculative-config", value])
    assert line is not None
    assert line.speculative == {}


@given(st.lists(st.text(max_size=12), max_size=12))
def test_any_argument_list_is_taken(argv: list[str]) -> None:
    line = read_argv(["vllm", "serve", *argv])
    assert line is None or line.canonical()[:2] == ("vllm", "serve")


@given(st.text(max_size=80))
def test_any_shell_text_is_taken(text: str) -> None:
    read_shell_text(text)
    read_shell_text("bash -lc " + text)
