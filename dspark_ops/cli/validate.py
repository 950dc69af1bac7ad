"""`dspark-ops validate`: a site file checked on this machine alone."""

from __future__ import annotations

from typing import Annotated

import typer

from dspark_ops.cli.options import DEFAULT_SITE, JsonOption, ProfileOption, SetOption, SiteOption, emit


def validate(
    site: SiteOption = DEFAULT_SITE,
    show: Annotated[bool, typer.Option("--show", help="Print every key, its value and where it comes from.")] = False,
    profile: ProfileOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a site file without contacting anything. Exit 0: valid (notes allowed); 2: every problem is listed."""
    from dspark_ops.config.load import load_site
    from dspark_ops.config.show import render_validation, validation_document

    document = validation_document(load_site(site, profile=profile, overrides=overrides or ()), show=show)
    emit(document, lambda: render_validation(document), as_json=as_json)
