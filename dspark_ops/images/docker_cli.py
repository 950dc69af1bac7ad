"""The docker command as builds use it: one that has BuildKit, on this machine's Engine or a node's. No registry."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dspark_ops.errors import ConfigError, NoVerdictError

#: Up to this client BuildKit is built in; later ones have it in the plugin buildx.
_LAST_BUILTIN = 22
_BUILD_TIMEOUT_S = 7200
_QUICK_S = 60


@dataclass(frozen=True)
class DockerCli:
    """A docker client with BuildKit. host: as DOCKER_HOST has it (`unix://…`, `ssh://…`); None is the client's own.

    path: PATH of its calls, where it looks for ssh; None is ours.
    """

    program: str
    build_words: tuple[str, ...]
    host: str | None = None
    path: str | None = None

    @property
    def local(self) -> bool:
        """Whether the Engine's files lie on this machine."""
        return (self.host or os.environ.get("DOCKER_HOST", "unix://")).startswith("unix://")

    def with_path(self, path: str) -> DockerCli:
        """The same client, which finds its ssh in `path`."""
        return replace(self, path=path)

    def environment(self) -> dict[str, str]:
        """The environment of every call: BuildKit on, plain progress, the chosen Engine."""
        chosen = {"DOCKER_HOST": self.host} if self.host else {}
        if self.path is not None:
            chosen["PATH"] = self.path
        return {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain", "LC_ALL": "C.UTF-8", **chosen}

    def run(self, *words: str, timeout_s: float = _QUICK_S, stdin: bytes | None = None) -> str:
        """Standard output of a call that must succeed.

        Raises:
            NoVerdictError: the Engine refused or did not answer in time; with its own last line.
        """
        done = self.attempt(*words, timeout_s=timeout_s, stdin=stdin)
        if done.returncode != 0:
            raise NoVerdictError(f"docker {' '.join(words[:2])} failed: {_last_line(done.stderr, done.returncode)}")
        return done.stdout.decode("utf-8", "replace")

    def attempt(
        self, *words: str, timeout_s: float = _QUICK_S, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """One call, whatever its exit code."""
        try:
            return subprocess.run(
                [self.program, *words],
                input=stdin if stdin is not None else b"",
                capture_output=True,
                timeout=timeout_s,
                check=False,
                env=self.environment(),
            )
        except subprocess.TimeoutExpired as late:
            raise NoVerdictError(f"docker {' '.join(words[:2])} did not end within {timeout_s:g} s") from late

    def require_engine(self) -> None:
        """Raises NoVerdictError unless the Engine answers now."""
        done = self.attempt("version", "--format", "{{.Server.Version}}")
        if done.returncode != 0:
            where = self.host or "this machine"
            raise NoVerdictError(
                f"building an image needs a Docker Engine and the one of {where} did not answer: "
                f"{_last_line(done.stderr, done.returncode)}",
                hint="start it (`dspark-ops lab up` starts one where none runs), or name another with --engine",
            )

    def image(self, reference: str) -> dict[str, object] | None:
        """`docker image inspect` of one image, or None where the Engine has none of that name."""
        done = self.attempt("image", "inspect", reference)
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace")
            if "no such image" in said.lower():
                return None
            raise NoVerdictError(f"docker image inspect {reference} failed: {_last_line(done.stderr, 1)}")
        found = json.loads(done.stdout)
        return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else None

    def build(
        self, context: Path, *, target: str, reference: str, arguments: Mapping[str, str], platform: str, log: Path
    ) -> None:
        """Build one target of the context's Dockerfile without network and name it; what BuildKit says goes to `log`.

        Raises:
            NoVerdictError: a step failed; with the last lines that it printed.
        """
        words = [self.program, *self.build_words, "--network", "none", "--platform", platform]
        words += ["--target", target, "--tag", reference]
        words += [word for name, value in sorted(arguments.items()) for word in ("--build-arg", f"{name}={value}")]
        with log.open("ab") as out:
            start = out.tell()
            try:
                done = subprocess.run(
                    [*words, str(context)],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    timeout=_BUILD_TIMEOUT_S,
                    check=False,
                    env=self.environment(),
                )
            except subprocess.TimeoutExpired as late:
                raise NoVerdictError(f"the build of {reference} was not done after {_BUILD_TIMEOUT_S} s") from late
        if done.returncode != 0:
            with log.open("rb") as back:
                back.seek(start)
                said = back.read().decode("utf-8", "replace").splitlines()
            tail = "\n".join([line for line in said if line.strip()][-12:])
            raise NoVerdictError(
                f"the build of {reference} failed; its last lines:\n{tail}", hint=f"the whole log is {log}"
            )


def find_docker_cli(host: str | None) -> DockerCli:
    """The first docker client on PATH with BuildKit: with the plugin buildx, or old enough to have it built in.

    Raises:
        ConfigError: there is no client, or none with BuildKit.
    """
    seen: list[str] = []
    for program in _clients():
        done = subprocess.run(
            [program, "buildx", "version"], capture_output=True, timeout=_QUICK_S, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode == 0:
            # The Engine's own builder: others do not see the images that were imported into the Engine.
            return DockerCli(program, ("buildx", "build", "--builder", "default", "--load"), host)
        version = _client_version(program)
        seen.append(f"{program} ({version or 'unknown version'})")
        if version is not None and int(version.split(".")[0]) <= _LAST_BUILTIN:
            return DockerCli(program, ("build",), host)
    if not seen:
        raise ConfigError("no docker client is installed", hint="apt-get install docker.io")
    raise ConfigError(
        f"no docker client here has BuildKit: {', '.join(seen)}; expected one with the plugin buildx",
        hint="install docker-buildx-plugin (Docker's packages) or docker-buildx (Ubuntu's)",
    )


def _clients() -> Sequence[str]:
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = (shutil.which("docker", path=place) for place in places if place)
    return list(dict.fromkeys(program for program in found if program))


def _client_version(program: str) -> str | None:
    done = subprocess.run(
        [program, "--version"], capture_output=True, timeout=_QUICK_S, check=False, stdin=subprocess.DEVNULL
    )
    found = re.search(r"version (\d+(?:\.\d+)+)", done.stdout.decode("utf-8", "replace"))
    return found[1] if found else None


def _last_line(said: bytes, code: int) -> str:
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}"
