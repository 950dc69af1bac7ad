"""Whether the cables join what the rails of the site join, from what the ports hear of each other."""

from __future__ import annotations

from dspark_ops.doctor.outcome import FactMissingError, Outcome, PairView, judge, need
from dspark_ops.doctor.registry import pair_rule
from dspark_ops.fabric.cabling import Sighting, sightings
from dspark_ops.fabric.ports import FabricPort, fabric_ports


@pair_rule("fabric.cable_matches")
def cable_matches(view: PairView) -> Outcome:
    """Every rail's cage at the head hears the rail's cage at the worker, and no other."""
    ports = {
        node.role: fabric_ports(
            need(node.links, f"the network devices of the {node.role}"),
            need(node.rdma, f"/sys/class/infiniband of the {node.role}"),
        )
        for node in view.facts.nodes
    }
    heard = [s for s in sightings(ports, {n.role: n for n in view.facts.nodes}) if s.by != "stale neighbour"]
    problems: dict[tuple[int, int], str] = {}
    silent = []
    for rail in view.site.fabric.rails:
        head = _port(ports["head"], rail.head.netdev)
        worker = _port(ports["worker"], rail.worker.netdev)
        wanted = (head.cage, worker.cage)
        told = [s for s in heard if (s.cage == wanted[0] if s.role == "head" else s.cage == wanted[1])]
        wrong = [s for s in told if s.far_role == s.role or s.pair() != wanted]
        if wrong:
            problems.setdefault(wanted, _sentence(rail.name, wrong[0], wanted))
        elif not told:
            silent.append(rail.name)
    if silent and not problems:
        raise FactMissingError(f"who is at the other end of rail {', '.join(silent)} could not be heard")
    how = ", ".join(sorted({s.by for s in heard}))
    return judge(list(problems.values()), f"every rail hears its own far end ({how})", "each rail's own ports joined")


def _port(ports: tuple[FabricPort, ...], netdev: str) -> FabricPort:
    return need(next((port for port in ports if port.netdev == netdev), None), f"the port {netdev}")


def _sentence(rail: str, seen: Sighting, wanted: tuple[int, int]) -> str:
    return (
        f"rail {rail} and its twin: cage {seen.cage} of the {seen.role} is cabled to cage {seen.far_cage} of the "
        f"{seen.far_role} ({seen.netdev} hears {seen.far_netdev}, {seen.by}), "
        f"the site joins head cage {wanted[0]} to worker cage {wanted[1]}"
    )
