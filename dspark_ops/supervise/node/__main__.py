"""The program of the nodes: `run` is the daemon on the head, `rank` the forced command, the rest asks the daemon."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dspark_ops.supervise.node.places import Places

#: As everywhere in this tool: 0 done, 2 wrong usage or configuration, 3 nobody could be asked, 4 refused.
_USAGE, _NO_VERDICT = 2, 3


def main(argv: list[str] | None = None) -> int:
    """Run one verb and give the exit status."""
    given = _parser().parse_args(argv)
    places = Places(given.config, given.state_dir, given.run_dir)
    if given.verb == "rank":
        from dspark_ops.supervise.node import rank

        return rank.main()
    if given.verb == "run":
        from dspark_ops.supervise.node import daemon

        return daemon.main(places)
    return _ask(given, places)


def _ask(given: argparse.Namespace, places: Places) -> int:
    from dspark_ops.supervise.node import control

    fields = {}
    if given.verb == "hold":
        fields = {"reason": given.reason, "owner": given.owner, "for_s": given.for_s, "drain": given.drain}
    if given.verb == "resume" and given.owner is not None:
        fields = {"owner": given.owner}
    try:
        result = control.request(places.socket, given.verb, **fields)
    except control.ControlError as error:
        print(error, file=sys.stderr)  # noqa: T201 - this is a command line
        return _NO_VERDICT
    if given.verb == "explain":
        print(result["text"])  # noqa: T201
    else:
        print(json.dumps(result, indent=1, sort_keys=True))  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="supervise.pyz", description=__doc__)
    usual = Places()
    parser.add_argument("--config", type=Path, default=usual.config)
    parser.add_argument("--state-dir", type=Path, default=usual.state_dir)
    parser.add_argument("--run-dir", type=Path, default=usual.run_dir)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run", help="the daemon; started by systemd")
    verbs.add_parser("rank", help="one request as JSON on standard input, one answer on standard output")
    verbs.add_parser("status", help="the status document")
    verbs.add_parser("explain", help="what state, why, and what it waits for")
    resume = verbs.add_parser("resume", help="end a hold, or what it waits for a person with")
    resume.add_argument("--owner", help="only a hold of this owner, and leave a latch as it is")
    verbs.add_parser("adopt", help="read the configuration again and keep the release that it names")
    hold = verbs.add_parser("hold", help="watch and tell, but do nothing, for so long")
    hold.add_argument("--reason", required=True)
    hold.add_argument("--owner", required=True)
    hold.add_argument("--for-s", type=float, required=True, help="seconds until it ends by itself")
    hold.add_argument("--drain", action="store_true", help="send no new requests to this pair meanwhile")
    return parser


if __name__ == "__main__":
    sys.exit(main())
