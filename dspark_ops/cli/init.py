"""`dspark-ops init`: look at two hosts, write the site that fits them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspark_ops.cli.options import JsonOption, emit


def init(
    head: Annotated[str, typer.Argument(metavar="HEAD", help="Rank 0: a host name, address or SSH alias.")],
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="Rank 1.")],
    ssh_config: Annotated[
        Path | None, typer.Option("--ssh-config", "-F", help="OpenSSH client configuration. Default: your own.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Default: rehearsal on two rehearsal nodes, else current.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the site. Default: lab or pair.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: inventories/NAME/site.yml.")] = None,
    supernet: Annotated[
        str | None, typer.Option("--supernet", help="Where new rail subnets come from. Default: 10.77.0.0/16.")
    ] = None,
    image_reference: Annotated[str | None, typer.Option("--image-reference", help="Name and fixed tag.")] = None,
    image_id: Annotated[str | None, typer.Option("--image-id", help="sha256:... of that image.")] = None,
    image_archive: Annotated[
        Path | None, typer.Option("--image-archive", help="A `docker save` file on this machine.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Discover two hosts over SSH (reading only) and write the site file, commented with what was seen.

    Exit 3: a node was not reached. 4: the fabric is ambiguous, both names are one machine, or the file exists.
    """
    from datetime import UTC, datetime

    from dspark_ops.config.discover import InitRequest, check_request, look_at, ssh_runners
    from dspark_ops.config.draft import default_name, init_document, refuse_existing, render_init, write_site
    from dspark_ops.config.propose import propose, rehearsal_image

    request = InitRequest(
        head=head,
        worker=worker,
        ssh_config=ssh_config,
        profile=profile,
        name=name,
        supernet=supernet,
        image_reference=image_reference,
        image_id=image_id,
        image_archive=image_archive,
    )
    check_request(request)
    if output is not None:
        refuse_existing(output, force=force)
    draft = propose(request, look_at(request, ssh_runners(request)), rehearsal_image)
    site_name = name or default_name(draft)
    path = output or Path("inventories") / site_name / "site.yml"
    loaded = write_site(draft, site_name, path, force=force, now=datetime.now(UTC))
    document = init_document(draft, loaded)
    emit(document, lambda: render_init(document, draft), as_json=as_json)
