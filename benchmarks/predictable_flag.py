"""How the predictable flag does by text alone: its confusion table on the half that its thresholds were chosen on, and
on the half that they were not; prints every text that it gets wrong.

usage: predictable_flag.py

Natural texts: windows of 2400 characters of the interpreter's standard library, its reference documentation, and the
descriptions of this machine's manual pages (at most four a family). Predictable ones are made in variants; whole kinds
of them are in the held-out half only. With a server's counters the flag sees more than this.
"""

from __future__ import annotations

import platform
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from dspark_ops.bench.predictable import flag, text_signals
from tests.unit.bench.labelled_texts import NAMED, Labelled, labelled_texts


def table(name: str, texts: list[Labelled]) -> None:
    """One half: the confusion table, the share by kind, and what was wrong."""
    flags = {id(text): flag(text_signals(text.text, text.prompt)) for text in texts}
    seen = Counter((text.predictable, flags[id(text)].predictable) for text in texts)
    print(f"\n{name}: {len(texts)} texts")
    print("                      flagged  not flagged")
    for label, truth in (("predictable", True), ("code and prose", False)):
        print(f"  {label:18} {seen[truth, True]:9} {seen[truth, False]:12}")
    found, missed, false = seen[True, True], seen[True, False], seen[False, True]
    print(
        f"  found {found / max(1, found + missed):.2%}, false alarms {false / max(1, false + seen[False, False]):.2%}"
    )
    for kind in dict.fromkeys(text.kind for text in texts):
        of_kind = [text for text in texts if text.kind == kind]
        hits = sum(flags[id(text)].predictable for text in of_kind)
        print(f"    {kind:15} {hits:4} of {len(of_kind):4} flagged{'  (named)' if kind in NAMED else ''}")
    for text in texts:
        verdict = flags[id(text)]
        if verdict.predictable != text.predictable:
            why = ", ".join(map(str, verdict.reasons)) or "no rule held"
            print(f"    wrong: {text.kind}, {text.source}: {why}")


def main() -> None:
    """Both halves."""
    texts = labelled_texts(700, 400, 1500, 12)
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    table("tuned on", [text for text in texts if not text.held_out])
    table("held out", [text for text in texts if text.held_out])


if __name__ == "__main__":
    main()
