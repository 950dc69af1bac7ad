"""`dspark-ops status`: what runs on both ranks, and whether it answers correctly."""

from __future__ import annotations

import typer

from dspark_ops.cli.options import DEFAULT_SITE, JsonOption, SetOption, SiteOption, emit


def status(site: SiteOption = DEFAULT_SITE, as_json: JsonOption = False, overrides: SetOption = None) -> None:
    """Say what runs on both ranks and whether a completion is correct. Changes nothing."""
    from dspark_ops.config.load import load_site
    from dspark_ops.deploy.status import pair_status, render_status

    result = pair_status(load_site(site, overrides=overrides or ()))
    emit(result.model_dump(mode="json"), lambda: render_status(result), as_json=as_json)
    raise typer.Exit(result.exit_code)
