"""What `rdma`, `ibdev2netdev` and `show_gids` print: second views of sysfs, and the form in which others report."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dspark_ops.facts.gids import ROCE_V1, ROCE_V2, GidFacts, make_gid
from dspark_ops.facts.model import Fact, whole_number

_IBDEV = re.compile(r"(\S+) port (\d{1,4}) ==> (\S+) \((\w+)\)")
_LINK = re.compile(r"link (\S+)/(\d{1,4})((?: +\S+ +\S+)*) *")
_VERSIONS = {"v1": ROCE_V1, "v2": ROCE_V2}
_GID = re.compile(r"(?:[0-9a-fx]{4}:){7}[0-9a-fx]{4}", re.IGNORECASE)


class RdmaLink(Fact):
    """One port of an RDMA device with its network device. up: None when the line does not say."""

    device: str
    port: int
    netdev: str | None = None
    state: str | None = None
    physical_state: str | None = None
    up: bool | None = None


def parse_ibdev2netdev(text: str | None) -> tuple[RdmaLink, ...] | None:
    """The lines of `ibdev2netdev`, whose order is not stable; None when there is none."""
    found = tuple(
        RdmaLink(device=m[1], port=int(m[2]), netdev=m[3], state=m[4], up=m[4].lower() == "up")
        for m in map(_IBDEV.fullmatch, map(str.strip, (text or "").splitlines()))
        if m and len(m[2]) < 5
    )
    return found or None


def parse_rdma_link(text: str | None) -> tuple[RdmaLink, ...] | None:
    """The lines of `rdma link`, aligned with blanks or not; None when there is none."""
    found = []
    for device, port, said in _lines(text):
        state = said.get("state")
        found.append(
            RdmaLink(
                device=device,
                port=port,
                netdev=said.get("netdev"),
                state=state,
                physical_state=said.get("physical_state"),
                up=None if state is None else state == "ACTIVE",
            )
        )
    return tuple(found) or None


def parse_rdma_statistic(text: str | None) -> dict[str, dict[str, int]] | None:
    """Counters by device, from `rdma statistic show`; None when there is none."""
    found: dict[str, dict[str, int]] = {}
    for device, _port, said in _lines(text):
        numbers = {name: whole_number(value) for name, value in said.items()}
        found[device] = {name: value for name, value in numbers.items() if value is not None}
    return found or None


def _lines(text: str | None) -> list[tuple[str, int, dict[str, str]]]:
    found = []
    for line in (text or "").splitlines():
        match = _LINK.fullmatch(line.strip())
        if match and len(match[2]) < 5:
            words = match[3].split()
            found.append((match[1], int(match[2]), dict(zip(words[::2], words[1::2], strict=True))))
    return found


def parse_show_gids(text: str | None) -> dict[str, tuple[GidFacts, ...]] | None:
    """Filled entries by device, from `show_gids`; the IPv4 column is missing in the rows of an IPv6 entry."""
    rows: dict[str, list[GidFacts]] = {}
    for line in (text or "").splitlines():
        words = line.split()
        if len(words) not in (6, 7) or not words[2].isdecimal() or not _GID.fullmatch(words[3]):
            continue
        entry = make_gid(whole_number(words[2]), words[3], _VERSIONS.get(words[-2]), words[-1])
        if entry is not None:
            rows.setdefault(words[0], []).append(entry)
    return {device: tuple(entries) for device, entries in rows.items()} or None


def parse_gid_listing(text: str | None) -> tuple[GidFacts, ...] | None:
    """A listing of one port by hand, `INDEX TYPE GID` a row; the type has a blank in it, an empty entry is left out."""
    found = []
    for line in (text or "").splitlines():
        words = line.split()
        if len(words) < 3 or not words[0].isdecimal() or not _GID.fullmatch(words[-1]):
            continue
        entry = make_gid(whole_number(words[0]), words[-1], " ".join(words[1:-1]), None)
        if entry is not None:
            found.append(entry)
    return tuple(found) or None


def ipv4_indexes(gids: Mapping[str, tuple[GidFacts, ...]]) -> dict[str, tuple[int, ...]]:
    """Device to the RoCE v2 indexes of its IPv4 addresses; devices without one are left out."""
    found = {
        device: tuple(g.index for g in entries if g.type == ROCE_V2 and g.ipv4 is not None)
        for device, entries in gids.items()
    }
    return {device: indexes for device, indexes in found.items() if indexes}
