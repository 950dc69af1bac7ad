"""`python3 -m changes apply|revert|inspect|verify --root DIR --stack DIR... [--json]`, as the image build runs it.

Exit 0: done, or the tree is whole. 1: an internal error. 2: usage, or a malformed change set. 4: a foreign tree.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .engine import apply, foreign_document, report, revert
from .errors import ChangeError, DocumentError, Foreign, ForeignError
from .model import ChangeSet, load_change_set
from .release import verify_release
from .state import inspect


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and print its report."""
    options = _parser().parse_args(arguments)
    root = Path(options.root)
    try:
        stack = tuple(load_change_set(Path(directory)) for directory in options.stack)
        document, code = _run(options, root, stack)
    except ForeignError as refused:
        document, code = {"error": str(refused), "foreign": foreign_document(refused.foreign)}, 4
    except DocumentError as malformed:
        document, code = {"error": str(malformed)}, 2
    except (ChangeError, OSError) as failed:
        document, code = {"error": str(failed)}, 1
    document = {"verb": options.verb, **document, "exit": code}
    sys.stdout.write(json.dumps(document) + "\n" if options.json else _text(document))
    return code


def _run(options: argparse.Namespace, root: Path, stack: tuple[ChangeSet, ...]) -> tuple[dict[str, Any], int]:
    if options.verb == "apply":
        return report(root, stack, apply(root, stack, upto=options.upto)), 0
    if options.verb == "revert":
        return report(root, stack, revert(root, stack, downto=options.downto)), 0
    document = report(root, stack)
    state = inspect(root, stack)
    foreign: tuple[Foreign, ...] = state.foreign
    if options.verb == "verify":
        distribution = options.distribution or (stack[0].distribution if stack else None)
        version = options.release or (stack[0].version if stack else None)
        if distribution is None or version is None:
            raise DocumentError("verify without a stack needs --distribution and --release")
        check = verify_release(
            root, distribution, version, options.record_sha256, stack=stack, every_file=options.every_file
        )
        foreign = check.foreign
        document |= {"checked": check.checked, "record_sha256": check.record_sha256}
    document["foreign"] = foreign_document(foreign)
    return document, 4 if foreign or state.interrupted else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="changes", description="Ordered change sets on an installed release.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("apply", "revert", "inspect", "verify"):
        one = verbs.add_parser(verb)
        one.add_argument("--root", required=True, help="the site-packages directory")
        one.add_argument("--stack", nargs="*", default=[], help="change set directories, lowest first")
        one.add_argument("--json", action="store_true", help="the report as one JSON document")
        if verb == "apply":
            one.add_argument("--upto", type=int, help="apply so many sets of the stack; default: all")
        if verb == "revert":
            one.add_argument("--downto", type=int, default=0, help="leave so many sets applied; default: none")
        if verb == "verify":
            one.add_argument("--distribution", help="the release's distribution; default: the stack's")
            one.add_argument("--release", help="the release's version; default: the stack's")
            one.add_argument("--record-sha256", help="sha256 of the release's RECORD before any stage")
            one.add_argument("--every-file", action="store_true", help="compiled files too, not only .py")
    return parser


def _text(document: dict[str, Any]) -> str:
    if "error" in document:
        return f"{document['error']}\n"
    release = document["release"] or {"distribution": "no known release", "version": "", "commit": None}
    applied = "+".join(document["applied"]) or "none"
    lines = [f"{release['distribution']} {release['version']}: {document['state']}, applied: {applied}"]
    lines += [f"changed {path}" for path in document["changed"]]
    lines += [str(Foreign(f["path"], f["observed"], tuple(f["expected"]))) for f in document["foreign"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
