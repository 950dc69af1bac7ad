"""`dspark-ops bench`: how fast the model that is served is, by class of content, with intervals and conditions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspark_ops.cli.options import ApiSiteOption, JsonOption, ModelOption, SetOption, UrlOption, emit, say
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.exitcodes import ExitCode

if TYPE_CHECKING:
    from dspark_ops.bench.compare import Comparison
    from dspark_ops.bench.control import RunRequest

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="How fast is the served model? run: measure; report: text and HTML of runs, also of interrupted ones and of "
    "`vllm bench serve`; compare: two servers. Exit 0 measured, 1 slower than allowed, 3 nothing could be measured.",
)

ProfileOption = Annotated[str, typer.Option("--profile", metavar="NAME", help="quick: minutes; standard: hours.")]
SiteProfileOption = Annotated[
    str | None, typer.Option("--site-profile", metavar="NAME", help="Use this profile of the site.")
]
ClassOption = Annotated[
    list[str] | None, typer.Option("--class", metavar="CLASS", help="Only these classes of content.")
]
ConcurrencyOption = Annotated[
    list[int] | None, typer.Option("--concurrency", "-c", min=1, max=256, metavar="N", help="Streams at once.")
]
CacheOption = Annotated[list[str] | None, typer.Option("--cache", metavar="STATE", help="cold, warm; may be repeated.")]
RoundsOption = Annotated[int | None, typer.Option("--rounds", min=1, max=100, help="How often each cell is run.")]
PerBlockOption = Annotated[int | None, typer.Option("--per-block", min=1, max=1000, help="Requests of one block.")]
MaxTokensOption = Annotated[int | None, typer.Option("--max-tokens", min=1, help="Of one answer.")]
LongOption = Annotated[
    list[int] | None,
    typer.Option("--long-prompt", min=1000, metavar="TOKENS", help="Also the TTFT of a cold prompt of this length."),
]
WindowOption = Annotated[bool | None, typer.Option("--window", help="Also one prompt as long as the window.")]
IdleOption = Annotated[
    float | None, typer.Option("--idle", min=0, metavar="SECONDS", help="The server must have been idle so long.")
]
BudgetOption = Annotated[
    float | None, typer.Option("--budget", min=0.1, metavar="MINUTES", help="End after these, with what there is.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="The same prompts in the same order; else drawn.")]
TemperatureOption = Annotated[float | None, typer.Option("--temperature", min=0, help="As deployed; 1 is the default.")]
TopPOption = Annotated[float | None, typer.Option("--top-p", min=0.01, max=1)]
ExtraOption = Annotated[str | None, typer.Option("--extra", metavar="JSON", help="Further body fields.")]
HardwareOption = Annotated[
    str | None,
    typer.Option("--hardware", metavar="TEXT", help='With --url: what it runs on; "two GB10" is the article\'s.'),
]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="The new file of the run.")]
HtmlOption = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write one HTML page with plots.")]
LossOption = Annotated[
    float | None,
    typer.Option(
        "--max-loss",
        min=0,
        max=100,
        metavar="PERCENT",
        help="Exit 1: B is shown slower by more, or to fail more.",
    ),
]


@app.command()
def run(
    site: ApiSiteOption = None,
    url: UrlOption = None,
    model: ModelOption = None,
    profile: ProfileOption = "quick",
    site_profile: SiteProfileOption = None,
    class_: ClassOption = None,
    concurrency: ConcurrencyOption = None,
    cache: CacheOption = None,
    rounds: RoundsOption = None,
    per_block: PerBlockOption = None,
    max_tokens: MaxTokensOption = None,
    long_prompt: LongOption = None,
    window: WindowOption = None,
    idle: IdleOption = None,
    budget: BudgetOption = None,
    seed: SeedOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    extra: ExtraOption = None,
    hardware: HardwareOption = None,
    out: OutOption = None,
    html: HtmlOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure a server that nobody else uses, and report. Every answer is in the file as soon as it is there."""
    given = locals()
    request = _request(given, site=site, url=url, model=model, hardware=hardware, out=out)
    path = _measure(request)
    raise typer.Exit(_report([path], html, as_json=json_))


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Runs, or results of `vllm bench serve`.")],
    html: HtmlOption = None,
    json_: JsonOption = False,
) -> None:
    """Report runs, whole or interrupted; of three boots of one server also their common headline."""
    raise typer.Exit(_report(files, html, as_json=json_))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A run, a folder of runs, or with --abba a site or address.")],
    b: Annotated[str | None, typer.Argument(metavar="B", help="The other. Not for a run of --abba.")] = None,
    abba: Annotated[
        bool, typer.Option("--abba", help="Measure both servers now, in turn: A B, then B A, so that drift hits both.")
    ] = False,
    profile: ProfileOption = "quick",
    site_profile: SiteProfileOption = None,
    class_: ClassOption = None,
    concurrency: ConcurrencyOption = None,
    cache: CacheOption = None,
    rounds: RoundsOption = None,
    per_block: PerBlockOption = None,
    max_tokens: MaxTokensOption = None,
    idle: IdleOption = None,
    budget: BudgetOption = None,
    seed: SeedOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    extra: ExtraOption = None,
    hardware: HardwareOption = None,
    out: OutOption = None,
    max_loss: LossOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Two servers by their runs, with intervals of the ratio. A folder holds the runs of several boots of one."""
    given = locals()
    if abba:
        if b is None:
            raise ConfigError("--abba measures two servers", hint="name both: a site file or an address each")
        path = _measure(_request(given, abba=(a, b), hardware=hardware, out=out))
        a, b = str(path), None
    found = _compared(Path(a), None if b is None else Path(b))
    from dspark_ops.bench.report_text import render_comparison

    emit(found.model_dump(mode="json", by_alias=True), lambda: render_comparison(found), as_json=json_)
    raise typer.Exit(_verdict(found, max_loss))


def _request(given: dict[str, Any], **whom: Any) -> RunRequest:
    from dspark_ops.bench.control import RunRequest

    plan = {
        "classes": tuple(given["class_"]) if given["class_"] else None,
        "concurrency": tuple(dict.fromkeys(given["concurrency"])) if given["concurrency"] else None,
        "caches": tuple(dict.fromkeys(given["cache"])) if given["cache"] else None,
        "rounds": given["rounds"],
        "per_block": given["per_block"],
        "max_tokens": given["max_tokens"],
        "long_prompts": tuple(given["long_prompt"]) if given.get("long_prompt") else None,
        "window": given.get("window"),
        "idle_s": given["idle"],
        "budget_s": None if given["budget"] is None else 60 * given["budget"],
        "seed": given["seed"],
        "temperature": given["temperature"],
        "top_p": given["top_p"],
        "extra": _object(given["extra"]),
    }
    return RunRequest(
        profile=given["profile"],
        overrides=tuple(given["set_"] or ()),
        site_profile=given["site_profile"],
        plan=plan,
        **whom,
    )


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--extra is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError("--extra is no JSON object")
    return value


def _measure(request: RunRequest) -> Path:
    """Run it with its progress on stderr; the file is named whatever happens."""
    from dspark_ops.bench.control import path_of
    from dspark_ops.bench.control import run as measure
    from dspark_ops.bench.progress import ProgressLine

    path = path_of(request)
    shown = ProgressLine(_to_stderr, in_place=sys.stderr.isatty())
    existed = path.exists()
    try:
        measure(request, path, shown.say)
    except BaseException:
        shown.end()
        if path.exists() and not existed:
            say(f"what was measured is in {path}: a partial run, for `dspark-ops bench report {path}`")
        raise
    shown.end()
    say(f"measured: {path}")
    return path


def _report(files: list[Path], html: Path | None, *, as_json: bool) -> int:
    from dspark_ops.bench.report import bench_report
    from dspark_ops.bench.report_text import render_report

    found = bench_report(files)
    if html is not None:
        from dspark_ops.bench.report_html import write_html

        write_html(found, files, html)
    emit(found.model_dump(mode="json", by_alias=True), lambda: render_report(found), as_json=as_json)
    return int(ExitCode.OK if found.measured else ExitCode.NO_VERDICT)


def _compared(a: Path, b: Path | None) -> Comparison:
    from dspark_ops.bench.compare import compare_arms, compare_runs
    from dspark_ops.bench.records import Run
    from dspark_ops.bench.report import load

    def runs(path: Path) -> list[Any]:
        names = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not names:
            raise ConfigError(f"{path} holds no run (*.jsonl)")
        read = [load(name) for name in names]
        for name, (_, found) in zip(names, read, strict=True):
            if not isinstance(found, Run):
                raise NoVerdictError(f"{name} is no run of ours that can be compared", hint="`bench report` shows it")
        return read

    first = runs(a)
    if b is None:
        if len(first) != 1:
            raise ConfigError("a comparison needs two servers", hint="name B as well")
        return compare_arms(first[0][1], first[0][0])
    return compare_runs(first, runs(b))


def _verdict(found: Comparison, max_loss: float | None) -> int:
    """0: compared; 1: slower than allowed, or B is shown to fail or err more often; 3: nothing could be compared, or B
    has no rate at a place where A has one.
    """
    from dspark_ops.bench.compare import worse

    shown, seen = worse(found)
    if max_loss is not None and shown:
        for words in shown:
            say(f"B is worse: {words}")
        return int(ExitCode.VERDICT_BAD)
    if found.outcome == "not comparable" and all(line.outcome == "not comparable" for line in found.lines):
        return int(ExitCode.NO_VERDICT)
    if max_loss is None:
        return int(ExitCode.OK)
    floor = 1 - max_loss / 100
    cuts = [found.headline] if found.headline.times is not None else [x.rate for x in found.lines if not x.predictable]
    known = [cut.times for cut in cuts if cut.times is not None and cut.times.high is not None]
    if not known:
        say("no verdict: no rate of content that is not predictable has an interval on both sides")
        return int(ExitCode.NO_VERDICT)
    if any((t.high or 0.0) < floor for t in known):
        return int(ExitCode.VERDICT_BAD)
    # A rate is one of the answers that came: a place that A could serve and B could not has none to compare.
    unserved = [*found.only_in_a, *(line.place.words for line in found.lines if line.rate.a and not line.rate.b)]
    for name in unserved:
        say(f"no verdict: {name}: B has no valid rate there")
    for words in seen:
        say(f"not shown, but look: {words}")
    return int(ExitCode.NO_VERDICT if unserved else ExitCode.OK)


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
