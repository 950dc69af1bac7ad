"""`dspark-ops gate`: does the model that is served garble? Asked cold and concurrently, with the bound in words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspark_ops.cli.options import ApiSiteOption, JsonOption, ModelOption, ProfileOption, SetOption, UrlOption, finish
from dspark_ops.errors import ConfigError

if TYPE_CHECKING:
    from dspark_ops.gates.control import GateRequest
    from dspark_ops.gates.plan import Level

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Does the served model garble? smoke: minutes; release: a sequential test with stated errors; certify: hours, "
    "two boots; diff: two ways of serving, paired. Exit 0 passed, 1 did not pass, 3 void: not shown to be cold, "
    "concurrent and alone.",
)

TokensOption = Annotated[
    int | None,
    typer.Option("--prompt-tokens", min=64, help="Length of a prompt; 20000, or what the model's window has room for."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Ask the same questions again; drawn if not given.")]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run's folder.")]
JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=1, help="Seconds for one request.")]
TemperatureOption = Annotated[float, typer.Option("--temperature", min=0, help="As deployed; 0 is the default.")]
TopPOption = Annotated[float, typer.Option("--top-p", min=0.01, max=1)]
ExtraOption = Annotated[
    str | None, typer.Option("--extra", metavar="JSON", help="Further body fields; without it thinking is turned off.")
]
KnownTextOption = Annotated[
    str | None, typer.Option("--known-text", metavar="TEXT", help="For a rehearsal's model: all that it can say.")
]
KnownCallOption = Annotated[
    str | None,
    typer.Option("--known-call", metavar="JSON", help="With --known-text: the call it makes, {name, arguments}."),
]
KnownLongOption = Annotated[
    str | None,
    typer.Option(
        "--known-long", metavar="JSON", help="With --known-text: a text without end, {prompt, text, max_tokens}."
    ),
]
BudgetOption = Annotated[
    float | None, typer.Option("--budget", min=0.1, metavar="MINUTES", help="Give up, without a verdict, after these.")
]
WidthOption = Annotated[int, typer.Option("--width", min=2, max=64, help="Requests of one burst.")]
BurstsOption = Annotated[
    int | None,
    typer.Option("--bursts", min=1, help="A fixed number, none of which may be bad, instead of the level's own."),
]
RescoreOption = Annotated[
    bool,
    typer.Option("--rescore/--no-rescore", help="Read one answer of each burst back as a prompt and weigh its tokens."),
]


@app.command()
def smoke(
    site: ApiSiteOption = None,
    url: UrlOption = None,
    model: ModelOption = None,
    prompt_tokens: TokensOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    budget: BudgetOption = None,
    timeout: TimeoutOption = 900.0,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    extra: ExtraOption = None,
    known_text: KnownTextOption = None,
    known_call: KnownCallOption = None,
    known_long: KnownLongOption = None,
    profile: ProfileOption = None,
    set_: SetOption = None,
    junit: JunitOption = None,
    json_: JsonOption = False,
) -> None:
    """Ten cold requests one after the other: five agent prompts, three tool calls, two questions. About two minutes."""
    shared = _shared(locals())
    raise typer.Exit(_run("smoke", shared, junit, as_json=json_))


@app.command()
def release(
    site: ApiSiteOption = None,
    url: UrlOption = None,
    model: ModelOption = None,
    prompt_tokens: TokensOption = None,
    bursts: BurstsOption = None,
    width: WidthOption = 6,
    seed: SeedOption = None,
    out: OutOption = None,
    budget: BudgetOption = None,
    timeout: TimeoutOption = 900.0,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    rescore: RescoreOption = True,
    extra: ExtraOption = None,
    known_text: KnownTextOption = None,
    known_call: KnownCallOption = None,
    known_long: KnownLongOption = None,
    profile: ProfileOption = None,
    set_: SetOption = None,
    junit: JunitOption = None,
    json_: JsonOption = False,
) -> None:
    """Cold bursts until a sequential test decides between 0.5 % and 5 % of bad bursts; 66 when all are good."""
    shared = _shared(locals()) | {"bursts": bursts, "width": width, "rescore": rescore}
    raise typer.Exit(_run("release", shared, junit, as_json=json_))


@app.command()
def certify(
    site: ApiSiteOption = None,
    url: UrlOption = None,
    model: ModelOption = None,
    prompt_tokens: TokensOption = None,
    bursts: BurstsOption = None,
    width: WidthOption = 6,
    soak: Annotated[
        float | None, typer.Option("--soak", min=0, metavar="MINUTES", help="Length of the soak; 40.")
    ] = None,
    tool_cases: Annotated[int | None, typer.Option("--tool-cases", min=1, help="In each mode; 100.")] = None,
    boots: Annotated[int | None, typer.Option("--boots", min=1, help="Boots of the engine that it takes; 2.")] = None,
    seed: SeedOption = None,
    out: OutOption = None,
    budget: BudgetOption = None,
    timeout: TimeoutOption = 1800.0,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    rescore: RescoreOption = True,
    extra: ExtraOption = None,
    known_text: KnownTextOption = None,
    known_call: KnownCallOption = None,
    known_long: KnownLongOption = None,
    profile: ProfileOption = None,
    set_: SetOption = None,
    junit: JunitOption = None,
    json_: JsonOption = False,
) -> None:
    """For a published claim, hours: 50 cold bursts, 100 tool cases streamed and whole, a soak, long prompts; two boots.

    One call does one boot. Restart the pair and run it again with the same --out: the second call gives the verdict.
    """
    if out is None and (boots or 2) > 1:
        raise ConfigError("certify gathers two boots in one folder", hint="name it with --out DIR, the same both times")
    shared = _shared(locals()) | {"bursts": bursts, "width": width, "rescore": rescore}
    shared |= {"soak_s": None if soak is None else 60 * soak, "tool_cases": tool_cases, "boots": boots}
    raise typer.Exit(_run("certify", shared, junit, as_json=json_))


@app.command()
def diff(
    site: ApiSiteOption = None,
    url: UrlOption = None,
    model: ModelOption = None,
    against_url: Annotated[str | None, typer.Option("--against-url", help="The other server, asked in turn.")] = None,
    against_run: Annotated[
        Path | None,
        typer.Option(
            "--against-run", metavar="DIR", help="An earlier `gate diff` of the other way, as speculation off."
        ),
    ] = None,
    warm_cold: Annotated[bool, typer.Option("--warm-cold", help="Each question cold, then warm.")] = False,
    pairs: Annotated[int | None, typer.Option("--pairs", min=1, help="How many questions; 60.")] = None,
    prompt_tokens: TokensOption = None,
    width: WidthOption = 6,
    seed: SeedOption = None,
    out: OutOption = None,
    budget: BudgetOption = None,
    timeout: TimeoutOption = 900.0,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    extra: ExtraOption = None,
    known_text: KnownTextOption = None,
    known_call: KnownCallOption = None,
    known_long: KnownLongOption = None,
    profile: ProfileOption = None,
    set_: SetOption = None,
    junit: JunitOption = None,
    json_: JsonOption = False,
) -> None:
    """The same questions to two ways of serving; they differ where McNemar's exact test says so with p < 0.01.

    Without another way named, the answers are kept as the first half of a later `--against-run`.
    """
    shared = _shared(locals()) | {"against_url": against_url, "against_run": against_run, "warm_cold": warm_cold}
    shared |= {"pairs": pairs, "width": width, "rescore": False}
    raise typer.Exit(_run("diff", shared, junit, as_json=json_))


def _shared(given: dict[str, Any]) -> dict[str, Any]:
    """What all levels have in common, as the request calls it."""
    kept = ("site", "url", "model", "prompt_tokens", "seed", "out", "temperature", "top_p", "known_text", "profile")
    return {name: given[name] for name in kept} | {
        "overrides": tuple(given["set_"] or ()),
        "budget_s": None if given["budget"] is None else 60 * given["budget"],
        "timeout_s": given["timeout"],
        "extra": _object("--extra", given["extra"]),
        "known_call": _object("--known-call", given["known_call"]),
        "known_long": _object("--known-long", given["known_long"]),
    }


def _object(option: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{option} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{option} is no JSON object")
    return value


def _run(level: Level, given: dict[str, Any], junit: Path | None, *, as_json: bool) -> int:
    from dspark_ops.doctor.outputs import Outputs
    from dspark_ops.gates.control import gate
    from dspark_ops.gates.report import Bar

    outputs = Outputs(junit=junit)
    outputs.check()
    request = _request(level, given)
    bar = Bar(_to_stderr, in_place=sys.stderr.isatty())
    try:
        report = gate(request, bar.say)
    finally:
        bar.end()
    outputs.write(report)
    return finish(report, as_json=as_json)


def _request(level: Level, given: dict[str, Any]) -> GateRequest:
    from pydantic import ValidationError

    from dspark_ops.gates.book import LongText
    from dspark_ops.gates.case import ExpectedCall
    from dspark_ops.gates.control import GateRequest

    call, text = given.pop("known_call"), given.pop("known_long")
    try:
        known = None if call is None else ExpectedCall.model_validate(call)
    except ValidationError:
        raise ConfigError("--known-call is no call", hint='as {"name": "get_time", "arguments": {}}') from None
    try:
        long = None if text is None else LongText.model_validate(text)
    except ValidationError:
        hint = 'as {"prompt": "count", "text": "1 2 3", "max_tokens": 3}'
        raise ConfigError("--known-long is no text without end", hint=hint) from None
    return GateRequest(level=level, known_call=known, known_long=long, **given)


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
