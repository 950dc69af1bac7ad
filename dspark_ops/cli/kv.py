"""`dspark-ops kv`: how many tokens the KV cache will hold, before the start, and whether a boot agrees."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dspark_ops.cli.options import DEFAULT_SITE, JsonOption, SetOption, SiteOption, emit
from dspark_ops.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="The KV cache: plan its size before the start, check a boot log against the plan.",
)


@app.callback()
def group() -> None:
    """Nothing happens without a verb."""


@app.command()
def plan(
    site: SiteOption = DEFAULT_SITE,
    memory_gib: Annotated[float | None, typer.Option("--memory-gib", help="KV pool of one node.")] = None,
    memory_bytes: Annotated[int | None, typer.Option("--memory-bytes", help="The same, exactly.")] = None,
    available_gib: Annotated[
        float | None, typer.Option("--available-gib", help="vLLM's own 'Available KV cache memory', two decimals.")
    ] = None,
    total_gib: Annotated[
        float | None, typer.Option("--total-gib", help="For an estimate: memory of one node, with --engine-gib.")
    ] = None,
    engine_gib: Annotated[
        float | None,
        typer.Option("--engine-gib", help="For an estimate: weights, activations and graphs of one rank."),
    ] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option("--max-num-batched-tokens", min=1, help="Instead of the site's.")
    ] = None,
    max_model_len: Annotated[int | None, typer.Option("--max-model-len", min=1, help="Instead of the site's.")] = None,
    asynchronous: Annotated[
        bool | None, typer.Option("--async/--no-async", help="Scheduling; instead of the site's. On is vLLM's default.")
    ] = None,
    record: Annotated[str | None, typer.Option("--record", metavar="NAME", help="Another KV layout.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="The model's config.json instead of the built-in 0731 geometry.")
    ] = None,
    draft_config: Annotated[
        Path | None, typer.Option("--draft-config", help="config.json of the draft model, where there is one.")
    ] = None,
    boot_log: Annotated[
        str | None, typer.Option("--boot-log", metavar="FILE", help="Compare a vLLM boot log; - is standard input.")
    ] = None,
    engine: Annotated[
        bool, typer.Option("--engine", help="Also ask the release's own planner, in an image of the local Engine.")
    ] = False,
    image: Annotated[
        str | None, typer.Option("--image", help="With --engine: an image of the release, instead of the site's.")
    ] = None,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Say what the KV pool will hold: bytes of a block, blocks, tokens, requests of full length; and over the levers.

    Contacts no node. Exit 1: a boot log or the release says otherwise, or one request does not fit. 2: the size of the
    pool is not known. 3: the log holds no figure, or the release could not be asked.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.kv.memory import MemoryOptions
    from dspark_ops.kv.setting import Levers
    from dspark_ops.kv.text import render_plan
    from dspark_ops.kv.view import build_view

    if image is not None and not engine:
        raise ConfigError("--image names whom to ask and nobody is asked", hint="add --engine")
    loaded = load_site(site, overrides=overrides or ())
    view = build_view(
        loaded,
        Levers(
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=max_model_len,
            asynchronous=asynchronous,
            record=record,
            config=config,
            draft_config=draft_config,
        ),
        MemoryOptions(
            memory_bytes=memory_bytes,
            memory_gib=memory_gib,
            available_gib=available_gib,
            total_gib=total_gib,
            engine_gib=engine_gib,
        ),
        boot_log=None if boot_log is None else _read(boot_log),
        image=(image or loaded.site.image.reference) if engine else None,
    )
    emit(view.model_dump(mode="json", by_alias=True), lambda: render_plan(view), as_json=as_json)
    raise typer.Exit(view.exit_code)


def _read(place: str) -> str:
    """The log's text; what is no UTF-8 in it is replaced, since logs are cut anywhere."""
    if place == "-":
        return sys.stdin.buffer.read().decode("utf-8", "replace")
    try:
        return Path(place).read_bytes().decode("utf-8", "replace")
    except OSError as trouble:
        raise ConfigError(f"{place}: the boot log cannot be read: {trouble.strerror}") from trouble
