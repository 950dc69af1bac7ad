"""Feed every parser of a host's output with what no host should print.

usage: python -m tests.fuzz.run [--inputs N] [--seconds S] [--seed N] [--only PREFIX] [--state FILE] [--findings DIR]

Stops at the number of inputs or at the time, whichever comes first. With --state it goes on where it was stopped.
Exit 1 when an input made a parser raise, hang, take too much memory or answer with no fact; or a parser has a signature
that the harness does not understand.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.harness import Failure, attempt, input_of, minimised
from tests.fuzz.parser import Parser
from tests.fuzz.parsers import every_parser

INPUTS = 1_000_000
MEMORY_MIB = 512
_ROUND = 200
_ROUND_TRIP_EVERY = 4
_SAVE_S = 5.0


class Run:
    """The state of a run: how many inputs each parser has had, and what failed."""

    def __init__(self, parsers: Sequence[Parser], seed: int, state: Path | None) -> None:
        self.parsers, self.seed, self.state = parsers, seed, state
        self.done: dict[str, int] = dict.fromkeys((p.name for p in parsers), 0)
        self.failures: dict[tuple[str, str, str], Failure] = {}
        self.failed = 0
        self._saved = time.monotonic()
        if state is not None and state.exists():
            document = json.loads(state.read_text(encoding="utf-8"))
            if document["seed"] == seed:
                self.done |= {name: n for name, n in document["done"].items() if name in self.done}

    @property
    def total(self) -> int:
        return sum(self.done.values())

    def go(self, inputs: int, seconds: float | None) -> None:
        """Rounds over all parsers, a few inputs each, until enough inputs or time are spent."""
        until = None if seconds is None else time.monotonic() + seconds
        share = -(-inputs // len(self.parsers))
        while any(self.done[p.name] < share for p in self.parsers):
            for parser in self.parsers:
                self._some(parser, min(_ROUND, share - self.done[parser.name]))
                if until is not None and time.monotonic() >= until:
                    self.save()
                    return
            if time.monotonic() - self._saved >= _SAVE_S:
                self.save()
        self.save()

    def _some(self, parser: Parser, count: int) -> None:
        start = self.done[parser.name]
        for number in range(start, start + count):
            pieces = input_of(parser, self.seed, number)
            failure = attempt(parser, pieces, number=number, round_trip=number % _ROUND_TRIP_EVERY == 0)
            if failure is not None:
                self.failed += 1
                if failure.kind not in self.failures:
                    self.failures[failure.kind] = failure
                    sys.stderr.write(f"{failure.parser} input {number}: {failure.error} ({failure.where})\n")
        self.done[parser.name] = max(start, start + count)

    def save(self) -> None:
        """Note how far it has come."""
        self._saved = time.monotonic()
        if self.state is not None:
            self.state.write_text(json.dumps({"seed": self.seed, "done": self.done}, indent=1), encoding="utf-8")


def bound_memory(mib: int) -> None:
    """More than this beyond what the process has now is a MemoryError in the parser that asks for it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + (mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def told(failure: Failure) -> str:
    """A failure as it is printed."""
    lines = [f"{failure.parser} input {failure.number}: {failure.error} ({failure.where})"]
    lines += [f"    {key!r}: {text if len(text) < 300 else text[:300] + '…'!r}" for key, text in failure.pieces.items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=INPUTS, help="over all parsers together")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", action="append", default=[], help="a parser, or the beginning of its name; repeatable"
    )
    parser.add_argument("--state", type=Path, help="go on from here, and note here how far it came")
    parser.add_argument("--findings", type=Path, help="write each failing input here, as JSON")
    given = parser.parse_args(argv)
    every, strange = every_parser()
    chosen = [p for p in every if not given.only or any(p.name.startswith(word) for word in given.only)]
    if not chosen:
        parser.error("no parser has such a name")
    run = Run(chosen, given.seed, given.state)
    before, began = run.total, time.monotonic()
    bound_memory(MEMORY_MIB)
    run.go(given.inputs, given.seconds)
    seconds = time.monotonic() - began
    by_name = {p.name: p for p in chosen}
    small = [minimised(by_name[failure.parser], failure) for failure in run.failures.values()]
    for failure in small:
        sys.stdout.write(told(failure).encode("utf-8", "backslashreplace").decode() + "\n")
    if given.findings is not None:
        given.findings.mkdir(parents=True, exist_ok=True)
        for i, failure in enumerate(small):
            document = {
                "parser": failure.parser,
                "error": failure.error,
                "where": failure.where,
                "pieces": failure.pieces,
            }
            (given.findings / f"{i:03}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    for name in strange:
        sys.stdout.write(f"not fuzzed: {name} takes what the harness cannot make\n")
    fed = run.total - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(
        f"{fed} inputs to {len(chosen)} parsers in {seconds:.0f} s ({fed / max(seconds, 1e-9):.0f}/s), {run.total} with"
        f" earlier runs of seed {given.seed}; {run.failed} failed in {len(small)} ways; {peak} MiB at most\n"
    )
    return 1 if run.failures or strange else 0


if __name__ == "__main__":
    sys.exit(main())
