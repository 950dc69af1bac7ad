"""What the programs of NVIDIA/nccl-tests print (all_gather_perf, all_reduce_perf, ...). Pure."""

from __future__ import annotations

import re

from dspark_ops.facts.model import Fact

_RANK = re.compile(r"^#\s+Rank\s+(\d{1,6})\s+Group\s+\d{1,6}\s+Pid\s+\d{1,12}\s+on\s+(\S+)", re.MULTILINE | re.ASCII)
_START = re.compile(r"^# Collective test starting: (\w{1,64})", re.MULTILINE | re.ASCII)
_LIBRARY = re.compile(r"nccl-library=(\d{1,9})", re.ASCII)
_AVERAGE = re.compile(r"^# Avg bus bandwidth\s*:\s*(\d{1,9}(?:\.\d{1,9})?)\s*$", re.MULTILINE | re.ASCII)
_SOCKET = re.compile(r"NET/Socket : Using|Using network Socket")
_NUMBER = re.compile(r"\d{1,15}(\.\d{1,9})?", re.ASCII)


class CollectiveRow(Fact):
    """One message size. Bandwidths in GB/s; wrong: values that came back false, None where it was not checked."""

    size_bytes: int
    out_of_place_us: float
    out_of_place_busbw: float
    in_place_us: float
    in_place_busbw: float
    wrong: int | None = None


class NcclTestFacts(Fact):
    """One run. collective: None when the header is missing. over_sockets: its debug lines say so.

    ranks: how many took part; 1 means that every process measured itself alone.
    """

    collective: str | None = None
    library: str | None = None
    ranks: int = 0
    hosts: tuple[str, ...] = ()
    rows: tuple[CollectiveRow, ...] = ()
    busbw_average: float | None = None
    over_sockets: bool = False

    @property
    def world_of_one(self) -> bool:
        return self.ranks == 1

    @property
    def largest_bytes(self) -> int | None:
        return max((row.size_bytes for row in self.rows), default=None)


def parse_nccl_tests(text: str | None) -> NcclTestFacts | None:
    """The output of one run; None when there is neither a result row nor a rank in it."""
    if text is None:
        return None
    ranks = dict(_RANK.findall(text))
    rows = [row for row in map(_row, text.splitlines()) if row is not None]
    if not ranks and not rows:
        return None
    average, start, library = _AVERAGE.search(text), _START.search(text), _LIBRARY.search(text)
    return NcclTestFacts(
        collective=start[1].removesuffix("_perf") if start else None,
        library=library[1] if library else None,
        ranks=len(ranks),
        hosts=tuple(sorted(set(ranks.values()))),
        rows=tuple(rows),
        busbw_average=float(average[1]) if average else None,
        over_sockets=bool(_SOCKET.search(text)),
    )


def _row(line: str) -> CollectiveRow | None:
    """size count type redop root, then time algbw busbw #wrong out of place and in place."""
    words = line.split()
    if len(words) != 13 or not words[0].isdecimal():
        return None
    numbers = [word for index, word in enumerate(words[5:]) if index not in (3, 7)]
    if not all(_NUMBER.fullmatch(word) for word in (words[0], *numbers)):
        return None
    checked = [int(word) for word in (words[8], words[12]) if word.isascii() and word.isdecimal() and len(word) < 16]
    return CollectiveRow(
        size_bytes=int(words[0]),
        out_of_place_us=float(numbers[0]),
        out_of_place_busbw=float(numbers[2]),
        in_place_us=float(numbers[3]),
        in_place_busbw=float(numbers[5]),
        wrong=sum(checked) if len(checked) == 2 else None,
    )
