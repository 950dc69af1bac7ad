"""The gate as a verb: whom it asks and what, where it writes, and the report at the end."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspark_ops import __version__
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.gates.book import AgentBook, Book, KnownTextBook, LongText
from dspark_ops.gates.case import ExpectedCall
from dspark_ops.gates.certify import boots_of, certify
from dspark_ops.gates.differential import Arm, diff_endpoints, diff_warm, earlier_arm, paired_plan
from dspark_ops.gates.levels import release, smoke
from dspark_ops.gates.oracles import judge
from dspark_ops.gates.outcome import RunResult
from dspark_ops.gates.plan import WIDTH, GatePlan, Level, asker
from dspark_ops.gates.prompts import measured_ratio, second_turn
from dspark_ops.gates.record import RunFolder
from dspark_ops.gates.report import report_of
from dspark_ops.gates.runner import Conduct
from dspark_ops.openai_api.client import ApiClient
from dspark_ops.paths import state_dir
from dspark_ops.report.models import Report, now
from dspark_ops.whole_file import replace_file

if TYPE_CHECKING:
    import httpx

    from dspark_ops.config.models import Profile

#: As long as an agent's first prompt; the reported faults were met from some 18,000 tokens on.
PROMPT_TOKENS = 20000
# What is kept free of the window for the answer and for our estimate of tokens.
_ANSWER_ROOM = 4096
_SHORT_WINDOW = 16384
_FEWEST_PROMPT_TOKENS = 64


@dataclass(frozen=True)
class GateRequest:
    """The command line of `gate`. Paths and addresses are as given; None: not given.

    known_text, known_call, known_long: for a model that can say nothing else, as the rehearsal's. transport: for tests.
    """

    level: Level
    site: Path | None = None
    overrides: tuple[str, ...] = ()
    profile: str | None = None
    url: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    bursts: int | None = None
    width: int = WIDTH
    seed: int | None = None
    budget_s: float | None = None
    timeout_s: float = 900.0
    out: Path | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    rescore: bool = True
    soak_s: float | None = None
    tool_cases: int | None = None
    boots: int | None = None
    pairs: int | None = None
    against_url: str | None = None
    against_run: Path | None = None
    warm_cold: bool = False
    known_text: str | None = None
    known_call: ExpectedCall | None = None
    known_long: LongText | None = None
    extra: Mapping[str, Any] | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    transport: httpx.AsyncBaseTransport | None = None


@dataclass(frozen=True)
class Target:
    """Who is asked. name: for people, the site or the address. known_text and the rest: all that its model can say."""

    name: str
    url: str
    model: str | None
    known_text: str | None = None
    known_call: ExpectedCall | None = None
    known_long: LongText | None = None
    release: str | None = None


def gate(request: GateRequest, say: Any) -> Report:
    """Run a gate to its verdict. say: done, total, words.

    Raises:
        ConfigError: the request is none that can be run; nothing was asked.
        NoVerdictError: the server cannot be reached, or its record cannot be written.
    """
    _check(request)
    _writable(request.out)
    with reached(request) as target:
        return asyncio.run(run_gate(request, target, say))


async def run_gate(request: GateRequest, target: Target, say: Any) -> Report:
    """The same in a running event loop, with the target at hand."""
    loop, zero = asyncio.get_running_loop(), time.perf_counter()
    clock = time.perf_counter if request.transport is None else loop.time
    if request.transport is not None:
        zero = loop.time()
    beside = {"--known-call": request.known_call, "--known-long": request.known_long}
    lonely = [option for option, given in beside.items() if given is not None]
    if lonely and (request.known_text or target.known_text) is None:
        raise ConfigError(f"{lonely[0]} is for a model of known text", hint="name the text with --known-text")
    key = request.environ.get("DSPARK_API_KEY") or None
    started_at = now()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            ApiClient(target.url, api_key=key, zero=zero, transport=request.transport, clock=clock)
        )
        model, window = await _served(client, target)
        book = await _book(client, request, target, model, window)
        tokens = _prompt_tokens(request, window, book)
        plan = _plan(request, tokens, book)
        earlier: Arm | None = None
        if request.against_run is not None:
            earlier, header = earlier_arm(request.against_run)
            plan = paired_plan(plan, header)
        path = request.out or state_dir() / "gates" / f"{started_at:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}-{plan.level}"
        boots = boots_of(path, model, plan) if plan.level == "certify" else ()
        folder = RunFolder(path)
        if key:
            folder.learn(key)
        folder.open()
        stack.callback(folder.close)
        folder.write(
            "header",
            level=plan.level,
            tool_version=__version__,
            target=target.name,
            model=model,
            window=window,
            release=target.release,
            engine=await client.version(),
            started_at=started_at.isoformat(),
            plan=plan.model_dump(mode="json"),
            book=book.model_dump(mode="json"),
        )
        run = Conduct(
            client=client,
            plan=plan,
            ask=asker(book, plan.prompt_tokens),
            judge=lambda case, answer, baseline: judge(case, answer, baseline=baseline),
            follow_up=second_turn,
            folder=folder,
            salt=secrets.token_hex(8),
            say=say,
            clock=clock,
        )
        try:
            result = await _level(stack, run, request, earlier, boots, window, target)
        except (asyncio.CancelledError, KeyboardInterrupt):
            folder.write("end", verdict="interrupted", exit_code=int(ExitCode.INTERRUPTED))
            raise
        # What a server said stands in the reasons of bad answers: the report and the verdict's file show it as well.
        result = RunResult.model_validate(folder.clean(result.model_dump()))
        folder.write("end", verdict=result.verdict, message=result.message, exit_code=int(result.exit_code))
        report = report_of(
            result,
            run.bursts,
            level=plan.level,
            target=target.name,
            folder=str(path),
            started_at=started_at,
        )
        _write_result(path, result)
    return report


async def _level(
    stack: AsyncExitStack,
    run: Conduct,
    request: GateRequest,
    earlier: Arm | None,
    boots: Any,
    window: int | None,
    target: Target,
) -> RunResult:
    match run.plan.level:
        case "smoke":
            return await smoke(run)
        case "release":
            return await release(run)
        case "certify":
            return await certify(run, boots, window=window)
        case "diff":
            if request.warm_cold:
                return await diff_warm(run)
            other = None
            if request.against_url is not None:
                other = await _second(stack, run, request.against_url, request, target)
            titles = (target.name, request.against_url or "")
            return await diff_endpoints(run, other, earlier, titles)


async def _second(stack: AsyncExitStack, run: Conduct, url: str, request: GateRequest, target: Target) -> Conduct:
    """The second server, asked the same questions under its own name of the model and with a key of its own."""
    key = request.environ.get("DSPARK_AGAINST_API_KEY") or None
    client = await stack.enter_async_context(
        ApiClient(url, api_key=key, zero=time.perf_counter(), clock=time.perf_counter)
    )
    model, window = await _served(client, replace(target, url=url))
    book = await _book(client, request, target, model, window)
    return replace(run, client=client, ask=asker(book, run.plan.prompt_tokens), bursts=[], parts=[], process_start=None)


async def _served(client: ApiClient, target: Target) -> tuple[str, int | None]:
    """The model that is asked for and its window in tokens.

    Raises:
        NoVerdictError: the server does not answer or does not serve it.
    """
    listed = {model.id: model.max_model_len for model in await client.models()}
    if target.model is not None:
        if target.model not in listed:
            raise NoVerdictError(
                f"{target.name} serves {', '.join(listed) or 'no model'}, expected {target.model}", hint="name --model"
            )
        return target.model, listed[target.model]
    if len(listed) != 1:
        raise NoVerdictError(f"{target.name} serves {', '.join(listed) or 'no model'}; which one?", hint="name --model")
    return next(iter(listed.items()))


async def _book(
    client: ApiClient, request: GateRequest, target: Target, model: str, window: int | None
) -> AgentBook | KnownTextBook:
    """The questions for this model, with its own count of tokens where it gives one."""
    extra = None if request.extra is None else dict(request.extra)
    text = request.known_text or target.known_text
    book: AgentBook | KnownTextBook
    if text is not None:
        call, long = request.known_call or target.known_call, request.known_long or target.known_long
        book = KnownTextBook(model=model, text=text, call=call, long=long, extra=extra)
    else:
        book = AgentBook(model=model, temperature=request.temperature, top_p=request.top_p, extra=extra)
    # Measured on a prompt that every window has room for.
    asked = min(2000, _room(window, book) or 2000)
    sample = asker(book, asked)("report", secrets.SystemRandom(), "measure", True, None)
    counted = await client.tokenize(sample.request)
    if not counted:
        return book
    return book.model_copy(update={"tokens_per_character": measured_ratio(sample.request, counted)})


def _room(window: int | None, book: Book) -> int | None:
    """The longest prompt that leaves room for an answer. Unit: tokens."""
    if window is None:
        return None
    if isinstance(book, KnownTextBook):
        return max(_FEWEST_PROMPT_TOKENS, int((window - 64) * 0.8))
    return window - _ANSWER_ROOM if window >= _SHORT_WINDOW else int(window * 0.6)


def _prompt_tokens(request: GateRequest, window: int | None, book: Book) -> int:
    room = _room(window, book)
    if request.prompt_tokens is None:
        return PROMPT_TOKENS if room is None else min(PROMPT_TOKENS, room)
    if room is not None and request.prompt_tokens > room:
        raise NoVerdictError(
            f"--prompt-tokens {request.prompt_tokens} leaves no room for an answer: the model's window is {window}",
            hint=f"at most {room}",
        )
    return request.prompt_tokens


def _plan(request: GateRequest, tokens: int, book: Book) -> GatePlan:
    given = {
        "soak_s": request.soak_s,
        "tool_cases": request.tool_cases,
        "boots": request.boots,
        "pairs": request.pairs,
        "bursts": request.bursts,
    }
    return GatePlan(
        level=request.level,
        seed=secrets.randbits(32) if request.seed is None else request.seed,
        prompt_tokens=tokens,
        width=request.width,
        timeout_s=request.timeout_s,
        budget_s=request.budget_s,
        rescore=request.rescore and isinstance(book, AgentBook),
        texts_only=isinstance(book, KnownTextBook),
        **{key: value for key, value in given.items() if value is not None},
    )


def _check(request: GateRequest) -> None:
    if request.url is not None and request.site is not None:
        raise ConfigError("--url and --site are both given; which of the two?", hint="leave one out")
    compared = [request.against_url is not None, request.against_run is not None, request.warm_cold]
    if request.level == "diff" and sum(compared) > 1:
        raise ConfigError("diff compares one pair of ways", hint="one of --against-url, --against-run, --warm-cold")
    if request.level != "diff" and any(compared):
        raise ConfigError("--against-url, --against-run and --warm-cold belong to `gate diff`", hint="leave them out")


def _writable(out: Path | None) -> None:
    """Refuse a place for the record before anything is asked. Raises ConfigError."""
    if out is None:
        return
    there = out
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{out} cannot be written: {there} is no directory of yours", hint="name another --out")


@contextmanager
def reached(request: GateRequest) -> Iterator[Target]:
    """Whom to ask: the address, the site (through SSH), or what a deploy says in the environment.

    Raises:
        ConfigError: none of these is given.
        NoVerdictError: the head cannot be reached.
    """
    environ = request.environ
    model, named = request.model or environ.get("DSPARK_MODEL") or None, environ.get("DSPARK_RELEASE") or None
    url = request.url
    if url is None and request.site is None:
        url = environ.get("DSPARK_API_URL") or None
    if url is not None:
        if request.url is not None:
            model = request.model
        yield Target(name=url, url=url, model=model, release=named)
        return
    path = request.site or Path(environ.get("DSPARK_SITE") or "site.yml")
    if request.site is None and "DSPARK_SITE" not in environ and not path.is_file():
        raise ConfigError(
            "nobody to ask: no --url, no --site, no DSPARK_API_URL and no site.yml here",
            hint="as `dspark-ops gate smoke --site FILE` or `--url http://127.0.0.1:8000 --model NAME`",
        )
    with _through_ssh(path, request) as target:
        yield target


@contextmanager
def _through_ssh(path: Path, request: GateRequest) -> Iterator[Target]:
    from dspark_ops.config.load import load_site
    from dspark_ops.transport.forward import forward
    from dspark_ops.transport.ssh import open_runner

    loaded = load_site(path, overrides=request.overrides, profile=request.profile, environ=request.environ)
    serve, profile = loaded.site.serve, loaded.profile
    host = "127.0.0.1" if serve.api_host.is_unspecified else str(serve.api_host)
    runner = open_runner(loaded.site, "head")
    try:
        with forward(runner, host, serve.api_port) as local:
            target = Target(
                name=loaded.site.name,
                url=f"http://127.0.0.1:{local.port}",
                model=request.model or loaded.site.model.served_name,
            )
            yield target if profile.gpu else replace(target, **_known(profile))
    finally:
        runner.close()


def _known(profile: Profile) -> dict[str, Any]:
    """All that a rehearsal's model can say: it has no weights that could answer a question."""
    call, long = profile.known.call, profile.known.long
    return {
        "known_text": profile.canary.expect,
        "known_call": None if call is None else ExpectedCall.model_validate(call.model_dump()),
        "known_long": None if long is None else LongText.model_validate(long.model_dump()),
    }


def _write_result(path: Path, result: RunResult) -> None:
    try:
        replace_file(path / "gate.json", result.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise NoVerdictError(f"{path / 'gate.json'} cannot be written: {error.strerror or error}") from error
