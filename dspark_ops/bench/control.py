"""The run as a verb: whom it measures, with which plan, and the file that it leaves."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dspark_ops import __version__
from dspark_ops.bench.article import HARDWARE, PAIR, REHEARSAL
from dspark_ops.bench.corpus.model import CONTENT_CLASSES
from dspark_ops.bench.plan import PROFILES, BenchPlan
from dspark_ops.bench.records import End, RunWriter, Server
from dspark_ops.bench.runner import Arm, Clock, Progress, Runner
from dspark_ops.errors import ConfigError
from dspark_ops.gates.control import GateRequest, Target, reached
from dspark_ops.openai_api.client import ApiClient
from dspark_ops.paths import state_dir
from dspark_ops.report.models import now

if TYPE_CHECKING:
    import httpx

ARMS = ("A", "B")


@dataclass(frozen=True)
class RunRequest:
    """The command line of `bench run`. None: not given, then the profile's own.

    abba: two servers, each a site file or an address, measured in turn. transports: for tests, one for each server.
    """

    profile: str = "quick"
    site: Path | None = None
    overrides: tuple[str, ...] = ()
    site_profile: str | None = None
    url: str | None = None
    model: str | None = None
    abba: tuple[str, str] | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    hardware: str | None = None
    out: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    transports: tuple[httpx.AsyncBaseTransport, ...] = ()
    clock: Clock | None = None


@dataclass(frozen=True)
class Reached:
    """A server that can be asked, and what is known of it beside what it says. hardware None: not known."""

    target: Target
    known: Server
    hardware: str | None


def plan_of(request: RunRequest) -> BenchPlan:
    """The profile with what the command line changes.

    Raises:
        ConfigError: there is no such profile or class, or the plan is none that can be run.
    """
    if request.profile not in PROFILES:
        raise ConfigError(f"there is no profile {request.profile}", hint=f"one of {', '.join(PROFILES)}")
    changes = {key: value for key, value in request.plan.items() if value is not None}
    for name in changes.get("classes", ()):
        if name not in CONTENT_CLASSES:
            raise ConfigError(f"there is no class {name}", hint=f"one of {', '.join(CONTENT_CLASSES)}")
    changes.setdefault("seed", secrets.randbits(31))
    if request.abba is not None:
        # As many rounds of A B as of B A.
        rounds = int(changes.get("rounds") or PROFILES[request.profile]().rounds)
        changes |= {"arms": ARMS, "rounds": max(2, rounds + rounds % 2)}
    try:
        return PROFILES[request.profile](**changes)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"no such run: {where + ': ' if where else ''}{first['msg']}") from None


def path_of(request: RunRequest) -> Path:
    """Where the run is written: the name that was given, or one of its own among the state's."""
    moment = f"{now():%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    return request.out or state_dir() / "bench" / f"{moment}-{request.profile}.jsonl"


def run(request: RunRequest, path: Path, say: Callable[[Progress], None]) -> End:
    """Measure, and write as it goes. Interrupted, the file holds what had been measured.

    Raises:
        ConfigError: the request is none that can be run, or the file exists; nothing was asked.
        NoVerdictError: a server cannot be reached or measured, or the file cannot be written.
        RefusedError: a server is not idle.
    """
    plan = plan_of(request)
    if request.abba is not None and (request.url or request.site or request.model):
        raise ConfigError("--abba names both servers itself", hint="leave --site, --url and --model out")
    if path.exists():
        raise ConfigError(f"{path} exists; a new run is a new file", hint="give another name")
    with ExitStack() as stack:
        wanted = [_asked(request, word) for word in request.abba] if request.abba else [_asked(request, None)]
        servers = [stack.enter_context(_server(request, one)) for one in wanted]
        return asyncio.run(_interruptible(measure(request, plan, servers, path, say)))


async def _interruptible(work: Coroutine[Any, Any, End]) -> End:
    """Let a request to end cancel the work at a point where it waits: raised anywhere it would tear the loop apart."""
    loop, task = asyncio.get_running_loop(), asyncio.create_task(work)
    earlier = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            earlier[number] = signal.getsignal(number)
            loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number, handler in earlier.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def measure(
    request: RunRequest, plan: BenchPlan, servers: list[Reached], path: Path, say: Callable[[Progress], None]
) -> End:
    """The same in a running event loop, with the servers at hand."""
    zero = time.perf_counter()
    clock = request.clock or Clock(now=lambda: time.perf_counter() - zero)
    key = request.environ.get("DSPARK_API_KEY") or None
    async with AsyncExitStack() as stack:
        arms = []
        for number, (name, server) in enumerate(zip(plan.arms, servers, strict=True)):
            transport = request.transports[number] if request.transports else None
            api = await stack.enter_async_context(
                ApiClient(
                    server.target.url,
                    api_key=key,
                    zero=0.0 if request.clock else zero,
                    transport=transport,
                    clock=clock.now if request.clock else time.perf_counter,
                )
            )
            known = server.known.model_copy(update={"version": await api.version()})
            arms.append(Arm(name, api, known.base_url, model=server.target.model, known=known))
        with _written(path) as writer:
            runner = Runner(plan, arms, writer, clock, tool=f"dspark-ops {__version__}", say=say)
            runner.client = _client(plan, servers)
            return await runner.run(path.stem)


@contextmanager
def _written(path: Path) -> Iterator[RunWriter]:
    """The file; one in which nothing was written, because the preflight failed, is taken away again."""
    writer = RunWriter(path)
    try:
        with writer:
            yield writer
    finally:
        if path.stat().st_size == 0:
            path.unlink()


def _client(plan: BenchPlan, servers: list[Reached]) -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for name, server in zip(plan.arms, servers, strict=True):
        if server.hardware is not None:
            found[f"{HARDWARE} {name}".strip()] = server.hardware
    return found


def _asked(request: RunRequest, word: str | None) -> GateRequest:
    """The same question that the gate asks: whom to reach, and how."""
    site, url = request.site, request.url
    if word is not None:
        url = word if "://" in word else None
        site = None if url else Path(word)
    if url is not None and site is not None:
        raise ConfigError("--url and --site are both given; which of the two?", hint="leave one out")
    return GateRequest(
        level="smoke",
        site=site,
        overrides=request.overrides,
        profile=request.site_profile,
        url=url,
        model=request.model,
        environ=request.environ,
    )


@contextmanager
def _server(request: RunRequest, asked: GateRequest) -> Iterator[Reached]:
    with reached(asked) as target:
        if target.name == target.url:
            known = Server(base_url=target.url, model=target.model or "", release=target.release)
            yield Reached(target, known, request.hardware)
        else:
            hardware = request.hardware or (PAIR if target.known_text is None else REHEARSAL)
            yield Reached(target, _of_site(target), hardware)


def _of_site(target: Target) -> Server:
    """What this machine remembers of the site's release. What runs is the nodes' to say; the report says whose word."""
    from dspark_ops.releases.store import current

    release = current(target.name)
    return Server(
        base_url=f"site {target.name}",
        model=target.model or "",
        release=None if release is None else release.id,
        image_digest=None if release is None else release.image.id,
        flags=() if release is None else release.argv("head"),
    )
