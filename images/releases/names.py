"""Run with a release's Python (its tree on PYTHONPATH): the names that it knows, as the file beside this one has them.

Prints JSON: every VLLM_ variable, every option of `vllm serve` (null, or the values that it takes), the attention
backends, and the MoE backends that serve MXFP4 experts. Names are compared before anything is contacted, so that a
wrong one does not cost a start of the pair.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import Any


def options() -> dict[str, list[str] | None]:
    """The long options of the real parser with their choices."""
    from vllm.entrypoints.cli import serve

    root = serve.FlexibleArgumentParser(prog="vllm")
    parser = serve.ServeSubcommand().subparser_init(root.add_subparsers(dest="subparser"))
    found: dict[str, list[str] | None] = {}
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list
        for word in action.option_strings:
            if word.startswith("--"):
                found[word] = _choices(action)
    return found


def _choices(action: argparse.Action) -> list[str] | None:
    if action.choices is None or not all(isinstance(choice, str) for choice in action.choices):
        return None
    return sorted(action.choices)


def main() -> None:
    with contextlib.redirect_stdout(sys.stderr):
        import vllm
        from vllm import envs
        from vllm.model_executor.layers.fused_moe.oracle.mxfp4 import map_mxfp4_backend
        from vllm.v1.attention.backends.registry import AttentionBackendEnum

        found = options()
        mxfp4 = []
        for name in found["--moe-backend"] or ():
            with contextlib.suppress(ValueError):
                map_mxfp4_backend(name)
                mxfp4.append(name)
        names: dict[str, Any] = {
            "release": vllm.__version__,
            "variables": sorted(name for name in envs.environment_variables if name.startswith("VLLM_")),
            "options": dict(sorted(found.items())),
            "attention_backends": sorted(AttentionBackendEnum.__members__),
            # `auto` is resolved before the table of names is asked.
            "mxfp4_moe_backends": sorted({"auto", *mxfp4}),
        }
    print(json.dumps(names, indent=1))


if __name__ == "__main__":
    main()
