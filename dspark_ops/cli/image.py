"""`dspark-ops image`: build the serving image from its lock, look into it, bring it to the worker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dspark_ops.cli.image_sync import sync
from dspark_ops.cli.options import (
    DEFAULT_SITE,
    JsonOption,
    SetOption,
    SiteOption,
    emit,
    finish,
    progress_printer,
)
from dspark_ops.errors import ConfigError

if TYPE_CHECKING:
    from dspark_ops.images.docker_cli import DockerCli

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="The serving image: build it from a lock, verify it inside, list it, bring it to the worker.",
)
app.command()(sync)

ProfileArgument = Annotated[str, typer.Argument(metavar="PROFILE", help="A profile, as current or rehearsal.")]
EngineOption = Annotated[
    str | None, typer.Option("--engine", metavar="HOST", help="The Docker Engine, as DOCKER_HOST has it.")
]


@app.command()
def build(
    profile: ProfileArgument,
    overlay: Annotated[
        bool,
        typer.Option("--overlay", help="The release and its stages without dependencies: to verify, not to serve."),
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the archive to this file.")] = None,
    on: Annotated[str | None, typer.Option("--on", metavar="ROLE", help="Build on a node of the site: head.")] = None,
    site: SiteOption = DEFAULT_SITE,
    engine: EngineOption = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Look into the image afterwards.")] = True,
    install_prerequisites: Annotated[
        bool, typer.Option("--install-prerequisites", help="Install missing programs with apt-get (mmdebstrap, qemu).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the profile's image through stages A, B and C, load it into the Engine, and look into it.

    Everything comes from the lock, by hash; the same inputs give the same image id. Without a change nothing is built.
    """
    from dspark_ops.images.produce import BuildRequest, produce
    from dspark_ops.images.shown import build_document, render_build

    request = BuildRequest(
        profile=profile,
        contents="overlay" if overlay else "full",
        output=output,
        on=on,
        site=site,
        engine=engine,
        verify=verify,
        install_prerequisites=install_prerequisites,
    )
    made = produce(request, progress=progress_printer())
    document = build_document(made)
    emit(document, lambda: render_build(made), as_json=as_json)
    raise typer.Exit(made.exit_code)


@app.command()
def verify(
    profile: Annotated[
        str | None, typer.Argument(metavar="[PROFILE]", help="With --reference or --archive: what it should be.")
    ] = None,
    site: SiteOption = DEFAULT_SITE,
    reference: Annotated[
        str | None, typer.Option("--reference", "-r", help="One image of the local Engine instead of a site's.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option("--archive", help="A `docker save` file instead of a site's image; it is loaded.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not hash large compiled libraries.")] = False,
    engine: EngineOption = None,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Look into the image where it runs: release, stages, every file's hash, plugin, the engine's own parser.

    For a site on both nodes. Exit 1: something is not what it should be, and is named.
    """
    from dspark_ops.images.verify import verify_local, verify_site

    progress = progress_printer()
    if reference is None and archive is None:
        from dspark_ops.config.load import load_site

        report = verify_site(load_site(site, overrides=overrides or ()), progress, quick=quick)
    else:
        if profile is None:
            raise ConfigError(
                "an image by itself does not say what it should be",
                hint="name a profile: `image verify rehearsal -r …`",
            )
        from dspark_ops.config.load import load_profile
        from dspark_ops.images.produce import load_archive

        docker = _docker(engine)
        name = reference if reference is not None else load_archive(docker, archive, progress)
        report = verify_local(load_profile(profile), name, docker, progress, quick=quick)
    raise typer.Exit(finish(report, as_json=as_json))


@app.command("list")
def list_images(
    site: SiteOption = DEFAULT_SITE,
    local: Annotated[bool, typer.Option("--local", help="Only the builds in this machine's cache.")] = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """List the builds on this machine and our images on both nodes: which the site means, which runs, which is kept."""
    from dspark_ops.images.listing import list_builds, list_site
    from dspark_ops.images.shown import listing_document, render_listing

    if local:
        listing = list_builds()
    else:
        from dspark_ops.config.load import load_site

        listing = list_site(load_site(site, overrides=overrides or ()))
    emit(listing_document(listing), lambda: render_listing(listing), as_json=as_json)


def _docker(host: str | None) -> DockerCli:
    from dspark_ops.images.produce import local_docker

    return local_docker(host)
