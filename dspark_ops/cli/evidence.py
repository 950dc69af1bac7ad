"""`dspark-ops evidence`: one redacted archive for a bug report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspark_ops.cli.options import DEFAULT_SITE, JsonOption, SetOption, SiteOption, emit, progress_printer


def evidence(
    hosts: Annotated[
        list[str] | None, typer.Argument(metavar="HEAD WORKER", help="Two hosts instead of a site, as for doctor.")
    ] = None,
    site: SiteOption = DEFAULT_SITE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: dspark-evidence-SITE-TIME.tar.gz here."),
    ] = None,
    hide_names: Annotated[bool, typer.Option("--hide-names", help="Host and user names are replaced as well.")] = False,
    ssh_config: Annotated[
        Path | None, typer.Option("--ssh-config", "-F", help="With HEAD WORKER: OpenSSH client configuration.")
    ] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="NAME", help="With HEAD WORKER: the login.")] = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Pack what a bug report needs: the doctor's report, what both nodes answered, the ends of the logs, last reports.

    Reading only. Works with a node down, and says so. Exit 3: neither node was reached; what is known here is packed.
    """
    from dspark_ops.doctor.elsewhere import Elsewhere
    from dspark_ops.doctor.foreign.look import ForeignRequest
    from dspark_ops.doctor.run import Request
    from dspark_ops.evidence.verb import EvidenceRequest, render_packed
    from dspark_ops.evidence.verb import evidence as make

    wishes = Request(site=site, overrides=tuple(set_ or ()))
    Elsewhere(tuple(hosts or ()), ssh_config, user).check(wishes, changes=False)
    foreign = ForeignRequest(hosts[0], hosts[1], ssh_config, user) if hosts else None
    packed = make(EvidenceRequest(wishes, foreign, output, hide_names), progress=progress_printer())
    emit(packed.document(), lambda: render_packed(packed), as_json=json_)
    raise typer.Exit(int(packed.exit_code))
