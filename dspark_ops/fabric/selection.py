"""Which RDMA devices should carry the traffic: the site's rails that are ACTIVE and that the running rank was given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dspark_ops.config.models import ROLES, RailSite, Role, Site
from dspark_ops.fabric.ports import Half
from dspark_ops.facts.rdma import HcaFacts
from dspark_ops.facts.snapshot import NodeFacts, PairFacts


@dataclass(frozen=True)
class SplitPort:
    """One RDMA device of a node. rail: the site's rail on it, None for a device that no rail uses.

    active: None where the port's state was not read. selected: the running rank's NCCL_IB_HCA takes it; True as well
    when no rank runs or it was told nothing.
    """

    role: Role
    hca: str
    rail: str | None
    cage: int | None
    half: Half | None
    active: bool | None
    selected: bool = True

    @property
    def expected(self) -> bool:
        """It should carry a fair share."""
        return self.rail is not None and self.active is True and self.selected


def split_ports(site: Site, facts: PairFacts) -> tuple[SplitPort, ...]:
    """Every RDMA device of both nodes, the head's first."""
    return tuple(port for role in ROLES for port in _ports_of(site, facts.of(role)))


def _ports_of(site: Site, node: NodeFacts) -> Iterable[SplitPort]:
    rails = {hca.name: rail.name for rail in site.fabric.rails if (hca := hca_of_rail(rail, node)) is not None}
    devices = node.rdma or ()
    chosen = selected_hcas(running_selection(node), [hca.name for hca in devices])
    for hca in devices:
        yield SplitPort(
            role=node.role,
            hca=hca.name,
            rail=rails.get(hca.name),
            cage=hca.cage,
            half=hca.half,
            active=hca.active,
            selected=hca.name in chosen,
        )


def hca_of_rail(rail: RailSite, node: NodeFacts) -> HcaFacts | None:
    """The device of a rail's port; where the tree does not tie the two together, the one that the site names."""
    end = rail.of(node.role)
    found = node.hca_of(end.netdev)
    if found is None and end.hca is not None:
        named = node.hca(end.hca)
        return named if named is not None and named.netdev is None else None
    return found


def running_selection(node: NodeFacts) -> str | None:
    """NCCL_IB_HCA of the running rank; None when none runs, or it has none."""
    if node.rank is None or not node.rank.running:
        return None
    return node.rank.env.get("NCCL_IB_HCA") or None


def selected_hcas(value: str | None, names: Iterable[str]) -> frozenset[str]:
    """The devices that a value of NCCL_IB_HCA takes: `^` excludes, `=` is exact, else each entry is a prefix.

    An entry may go on with `:port[:rail[:plane]]` (NVIDIA/nccl, docs/userguide/source/env.rst).
    """
    known = list(names)
    if not value:
        return frozenset(known)
    rest, excluded = value.removeprefix("^"), value.startswith("^")
    entries = [entry.split(":")[0] for entry in rest.removeprefix("=").split(",")]
    exact = rest.startswith("=")
    matched = {name for name in known if any(name == e if exact else name.startswith(e) for e in entries if e)}
    return frozenset(set(known) - matched if excluded else matched)
