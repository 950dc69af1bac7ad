"""The `dspark-ops` command: mounts the verbs and turns errors into exit codes. No logic of its own."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from importlib import import_module
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from dspark_ops import __version__
from dspark_ops.errors import DsparkError
from dspark_ops.exitcodes import ExitCode

# verb -> (module, attribute, one line of help). Imported when the verb is used, so that --help stays quick.
VERBS: dict[str, tuple[str, str, str]] = {
    "init": ("dspark_ops.cli.init", "init", "Discover two hosts over SSH and write the site file."),
    "validate": ("dspark_ops.cli.validate", "validate", "Check a site file without contacting anything."),
    "bootstrap": ("dspark_ops.cli.bootstrap", "bootstrap", "Prepare both hosts and the fabric between them."),
    "deploy": (
        "dspark_ops.cli.deploy",
        "deploy",
        "Put the release on both ranks and wait for a correct completion.",
    ),
    "rollback": ("dspark_ops.cli.rollback", "rollback", "Return to a release that served."),
    "start": ("dspark_ops.cli.start", "start", "Start the pair: worker, then head."),
    "stop": ("dspark_ops.cli.stop", "stop", "Stop the pair: head, then worker."),
    "status": ("dspark_ops.cli.status", "status", "Say what runs on both ranks and whether it answers."),
    "logs": ("dspark_ops.cli.logs", "logs", "Show the logs of both ranks on one timeline."),
    "releases": ("dspark_ops.cli.releases", "app", "The releases of a site: list, compare, show one."),
    "doctor": ("dspark_ops.cli.doctor", "doctor", "Name what is wrong with the pair, with the remedy."),
    "evidence": ("dspark_ops.cli.evidence", "evidence", "Pack a redacted archive for a bug report."),
    "fabric": ("dspark_ops.cli.fabric", "app", "The rails: show, apply, restore, verify, test, watch."),
    "image": ("dspark_ops.cli.image", "app", "The serving image: build, verify, list, sync."),
    "model": ("dspark_ops.cli.model", "app", "The weights: fetch, verify, sync."),
    "kv": (
        "dspark_ops.cli.kv",
        "app",
        "The KV cache: plan its size before the start, check a boot log against the plan.",
    ),
    "tenants": (
        "dspark_ops.cli.tenants",
        "app",
        "Others on the GPU or with large memory: list, evict, restore, forget.",
    ),
    "gate": ("dspark_ops.cli.gate", "app", "Does the served model garble? Cold, concurrent, with the bound in words."),
    "bench": ("dspark_ops.cli.bench", "app", "How fast is it? By class of content, with intervals."),
    "supervise": (
        "dspark_ops.cli.supervise",
        "app",
        "The owner of the pair on the head: install, remove, status, hold, resume, explain.",
    ),
    "monitor": ("dspark_ops.cli.monitor", "app", "Metrics and alerts of the pair; the doctor on a timer."),
    "exposure": ("dspark_ops.cli.exposure", "app", "What strangers can reach of the pair, and what closes it."),
    "gateway": ("dspark_ops.cli.gateway", "app", "What clients talk to: the pair first, a cloud second."),
    "lab": ("dspark_ops.cli.lab", "app", "The rehearsal pair: two virtual Sparks on this machine."),
}


class LazyVerbs(TyperGroup):
    """A group whose verbs are imported when they are called; the list itself needs no import."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        module, attribute, help_line = VERBS[cmd_name]
        if ctx.resilient_parsing or _only_listing():
            return TyperCommand(cmd_name, help=help_line, short_help=help_line)
        loaded = getattr(import_module(module), attribute)
        if isinstance(loaded, typer.Typer):
            command = typer.main.get_command(loaded)
        else:
            single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            single.command(name=cmd_name)(loaded)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command


def _only_listing() -> bool:
    """True when the command line asks for the group's own help: the first word is an option, or there is none."""
    return all(word.startswith("-") for word in sys.argv[1:2])


app = typer.Typer(
    cls=LazyVerbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run DeepSeek V4 Flash with DSpark on two NVIDIA DGX Sparks: prepare, deploy, check, keep.",
    epilog="Exit codes: " + "; ".join(f"{code.value} {code.meaning}" for code in ExitCode),
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"dspark-ops {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Nothing happens without a verb."""


def main() -> None:
    """Run the CLI; the process ends with one of the documented exit codes."""
    as_json = "--json" in sys.argv
    # A verb that is told to end undoes what it began, as after Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        code = app(standalone_mode=False)
    except DsparkError as error:
        _report_error(error, as_json=as_json)
        code = int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("interrupted", err=True)
        code = int(ExitCode.INTERRUPTED)
    except TyperException as error:
        _report_usage(error, as_json=as_json)
        code = int(ExitCode.USAGE)
    except (typer.Exit, SystemExit) as leave:
        code = getattr(leave, "exit_code", getattr(leave, "code", 0))
    except BrokenPipeError:
        sys.stderr.close()
        code = int(ExitCode.OK)
    except Exception:  # a bug of ours is no verdict about the pair
        traceback.print_exc()
        typer.echo("error: internal error; the trace above belongs in a bug report", err=True)
        code = int(ExitCode.NO_VERDICT)
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _report_usage(error: TyperException, *, as_json: bool) -> None:
    show = getattr(error, "show", None)
    if show is not None:
        show()
    else:
        typer.echo(f"error: {error}", err=True)
    if as_json:
        _error_document(str(error), "see --help", ExitCode.USAGE)


def _report_error(error: DsparkError, *, as_json: bool) -> None:
    typer.echo(f"error: {error.message}", err=True)
    if error.hint:
        typer.echo(f"hint: {error.hint}", err=True)
    if as_json:
        _error_document(error.message, error.hint, error.exit_code)


def _error_document(message: str, hint: str | None, code: ExitCode) -> None:
    document = {"schema": "dspark-ops/error/v1", "message": message, "hint": hint, "exit_code": int(code)}
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
