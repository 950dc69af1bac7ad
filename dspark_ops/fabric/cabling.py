"""Which cage a cable joins to which, from what the ports themselves have seen. Pure.

Both PCIe halves of a cage share its one cable, so a port may see either twin of the far cage: cages are what is joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Literal, Protocol

from dspark_ops.config.models import ROLES, Role
from dspark_ops.errors import RefusedError
from dspark_ops.fabric.ports import FabricPort
from dspark_ops.facts.neighbours import EchoFacts, LldpFacts, NeighbourFacts

By = Literal["echo", "lldp", "neighbour", "stale neighbour"]
_STRONG: tuple[By, ...] = ("echo", "lldp", "neighbour")


@dataclass(frozen=True)
class Sighting:
    """A port of a node saw a fabric port. far_role: whose it is; that is the own node when a cable loops back."""

    role: Role
    netdev: str
    cage: int
    far_role: Role
    far_netdev: str
    far_cage: int
    by: By

    def pair(self) -> tuple[int, int]:
        """The two cages as (head, worker)."""
        return (self.cage, self.far_cage) if self.role == "head" else (self.far_cage, self.cage)

    def sentence(self) -> str:
        return f"{self.role} {self.netdev} sees {self.far_role} {self.far_netdev} ({self.by})"


@dataclass(frozen=True)
class Cable:
    """One cable between two cages. evidence: how it is known, "carrier" where only that speaks for it."""

    head_cage: int
    worker_cage: int
    evidence: tuple[str, ...]

    @property
    def crossed(self) -> bool:
        return self.head_cage != self.worker_cage


class Witness(Protocol):
    """A node as far as it can tell who is at the other end of its cables; None where it was not asked."""

    @property
    def echoes(self) -> tuple[EchoFacts, ...] | None: ...
    @property
    def neighbours(self) -> tuple[NeighbourFacts, ...] | None: ...
    @property
    def lldp(self) -> tuple[LldpFacts, ...] | None: ...


def sightings(ports: Mapping[Role, Sequence[FabricPort]], witnesses: Mapping[Role, Witness]) -> tuple[Sighting, ...]:
    """What the fabric ports of both nodes saw of each other."""
    return tuple(
        sighting
        for role in ROLES
        for sighting in _seen_by(role, ports[role], ports["worker" if role == "head" else "head"], witnesses[role])
    )


def _seen_by(
    role: Role, ports: Sequence[FabricPort], peer_ports: Sequence[FabricPort], witness: Witness
) -> tuple[Sighting, ...]:
    far_role: Role = "worker" if role == "head" else "head"
    here = {port.netdev: port for port in ports}
    everyone = [(role, port) for port in ports] + [(far_role, port) for port in peer_ports]
    by_mac = {port.mac: (whose, port) for whose, port in everyone if port.mac is not None}
    by_link_local: dict[IPv6Address, list[tuple[Role, FabricPort]]] = {}
    for whose, port in everyone:
        for address in port.link_local:
            by_link_local.setdefault(address, []).append((whose, port))
    found: list[Sighting] = []

    def add(device: str, target: tuple[Role, FabricPort] | None, by: By) -> None:
        port = here.get(device)
        if port is not None and target is not None and target[1] is not port:
            found.append(
                Sighting(role, device, port.cage, target[0], target[1].netdev, target[1].cage, by),
            )

    for echo in witness.echoes or ():
        for responder in echo.responders:
            owners = by_link_local.get(responder, [])
            # A link-local address is only unique on its own link: one that two ports have proves nothing.
            add(echo.device, owners[0] if len(owners) == 1 else None, "echo")
    for item in witness.lldp or ():
        named = [(whose, p) for whose, p in everyone if whose == far_role and p.netdev in (item.port, item.description)]
        add(item.device, by_mac.get((item.port or "").lower()) or (named[0] if named else None), "lldp")
    for entry in witness.neighbours or ():
        add(entry.device, by_mac.get(entry.mac), "neighbour" if entry.fresh else "stale neighbour")
    return tuple(dict.fromkeys(found))


def trace_cables(
    up: tuple[set[int], set[int]], seen: Sequence[Sighting], *, addresses_cross: bool, described: str
) -> tuple[tuple[Cable, ...], tuple[str, ...]]:
    """The cables between the cages that have carrier (head's, worker's), and notes for a person.

    Raises RefusedError where the ports saw two different things, or carrier alone does not decide.
    """
    loops = [s.sentence() for s in seen if s.far_role == s.role and s.far_cage != s.cage and s.by in _STRONG]
    if loops:
        raise RefusedError(
            f"a cable joins the two cages of one node: {'; '.join(loops)}. Seen: {described}",
            hint="plug one end into the other node, then run again",
        )
    strong = [s for s in seen if s.far_role != s.role and s.by in _STRONG]
    pairs = _joined(strong, up)
    if not pairs:
        pairs = _joined([s for s in seen if s.far_role != s.role], up)
    _refuse_contradiction(pairs, strong or list(seen), described)
    cables = [Cable(*pair, evidence=tuple(evidence)) for pair, evidence in pairs.items()]
    rest = up[0] - {c.head_cage for c in cables}, up[1] - {c.worker_cage for c in cables}
    notes: list[str] = []
    if len(rest[0]) != len(rest[1]) or (len(rest[0]) == 2 and rest[0] != rest[1]):
        raise RefusedError(
            f"the plugged cages differ, so which port faces which is not certain. Seen: {described}",
            hint="plug each cable into the same cage of both nodes, or bring the silent end up, then run init again",
        )
    if len(rest[0]) == 1:
        cables.append(Cable(min(rest[0]), min(rest[1]), ("carrier",)))
    elif rest[0]:
        order = [(0, 1), (1, 0)] if addresses_cross else [(0, 0), (1, 1)]
        why = "subnets" if addresses_cross else "carrier"
        cables += [Cable(*pair, evidence=(why,)) for pair in order]
        if addresses_cross:
            notes.append("the addresses in place say that the two cables are crossed (cage 0 faces cage 1)")
    cables.sort(key=lambda cable: cable.head_cage)
    crossed = [cable for cable in cables if cable.crossed and "subnets" not in cable.evidence]
    if len(crossed) == 2:
        how = ", ".join(dict.fromkeys(word for cable in crossed for word in cable.evidence))
        notes.append(f"the two cables are crossed: cage 0 faces cage 1 and 1 faces 0 ({how})")
    elif crossed:
        notes.append(
            f"the cable is crossed: cage {crossed[0].head_cage} of the head faces cage {crossed[0].worker_cage} of the "
            "worker; it works, names differ per node, the same cage on both is the vendor's layout"
        )
    return tuple(cables), tuple(notes)


def _joined(seen: Iterable[Sighting], up: tuple[set[int], set[int]]) -> dict[tuple[int, int], list[str]]:
    found: dict[tuple[int, int], list[str]] = {}
    for sighting in seen:
        pair = sighting.pair()
        if pair[0] in up[0] and pair[1] in up[1] and sighting.by not in found.setdefault(pair, []):
            found[pair].append(sighting.by)
    return {pair: evidence for pair, evidence in found.items() if evidence}


def _refuse_contradiction(pairs: Iterable[tuple[int, int]], seen: Sequence[Sighting], described: str) -> None:
    listed = list(pairs)
    heads, workers = [h for h, _ in listed], [w for _, w in listed]
    if len(set(heads)) == len(heads) and len(set(workers)) == len(workers):
        return
    what = "; ".join(dict.fromkeys(s.sentence() for s in seen))
    raise RefusedError(
        f"a cage sees two cages of the other node, so which port faces which is not certain: {what}. Seen: {described}",
        hint="a switch, or a cable that was moved a moment ago? Unplug what does not belong there and run again",
    )
