"""Which docker client builds, and what it says when it cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.images.docker_cli import DockerCli, find_docker_cli


def _client(folder: Path, *, version: str, buildx: bool, rest: str = "exit 0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "docker"
    program.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = buildx ] && exit {0 if buildx else 1}\n'
        f'[ "$1" = --version ] && echo "Docker version {version}, build abc" && exit 0\n'
        f"{rest}\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    return program


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setenv("PATH", f"{first}{os.pathsep}{second}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return first, second


def test_a_client_with_buildx_uses_the_engines_own_builder(places: tuple[Path, Path]) -> None:
    program = _client(places[0], version="29.2.1", buildx=True)
    found = find_docker_cli("unix:///x")
    assert (found.program, found.host) == (str(program), "unix:///x")
    assert found.build_words == ("buildx", "build", "--builder", "default", "--load")


def test_an_old_client_behind_a_new_one_without_buildx_is_found(places: tuple[Path, Path]) -> None:
    _client(places[0], version="28.2.2", buildx=False)
    program = _client(places[1], version="20.10.24+dfsg1", buildx=False)
    assert find_docker_cli(None) == DockerCli(str(program), ("build",))


def test_without_buildkit_every_client_is_named(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    program = _client(places[0], version="28.2.2", buildx=False)
    monkeypatch.setenv("PATH", str(places[0]))
    with pytest.raises(ConfigError, match=rf"{program} \(28\.2\.2\); expected one with the plugin buildx"):
        find_docker_cli(None)


def test_without_any_client_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no docker client is installed"):
        find_docker_cli(None)


def test_an_engine_that_does_not_answer_is_told_with_its_own_words(places: tuple[Path, Path]) -> None:
    program = _client(places[0], version="29.0.0", buildx=True, rest="echo 'Cannot connect' >&2; exit 1")
    with pytest.raises(NoVerdictError, match="did not answer: Cannot connect"):
        DockerCli(str(program), ("build",), "ssh://far").require_engine()


@pytest.mark.parametrize(("said", "absent"), [("Error: No such image: x", True), ("permission denied", False)])
def test_an_absent_image_is_none_and_trouble_is_not(said: str, absent: bool, places: tuple[Path, Path]) -> None:
    program = _client(places[0], version="29.0.0", buildx=True, rest=f"echo '{said}' >&2; exit 1")
    cli = DockerCli(str(program), ("build",))
    if absent:
        assert cli.image("x") is None
    else:
        with pytest.raises(NoVerdictError, match="permission denied"):
            cli.image("x")


def test_a_failed_step_is_told_with_its_last_lines(places: tuple[Path, Path], tmp_path: Path) -> None:
    program = _client(places[0], version="29.0.0", buildx=True, rest="echo step; echo 'vllm/x.py is foreign'; exit 1")
    log = tmp_path / "log"
    log.write_text("of an earlier stage\n", encoding="utf-8")
    with pytest.raises(NoVerdictError, match=r"step\nvllm/x\.py is foreign") as caught:
        DockerCli(str(program), ("build",)).build(
            tmp_path, target="t", reference="r:t", arguments={}, platform="linux/amd64", log=log
        )
    assert "earlier" not in caught.value.message
    assert str(log) in (caught.value.hint or "")
