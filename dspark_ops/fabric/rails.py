"""From the ports of two nodes to rails: which port faces which, and which addresses they get. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from itertools import chain

from dspark_ops.config.models import ROLES, RailEnd, RailSite, Role
from dspark_ops.errors import RefusedError
from dspark_ops.fabric.cabling import Cable, Sighting, trace_cables
from dspark_ops.fabric.ports import FabricPort

DEFAULT_SUPERNETS = tuple(IPv4Network(text) for text in ("10.77.0.0/16", "172.29.0.0/16", "192.168.224.0/19"))
RAIL_PREFIX = 24


@dataclass(frozen=True)
class PortPair:
    """The two ports that one rail joins."""

    head: FabricPort
    worker: FabricPort

    def of(self, role: Role) -> FabricPort:
        return self.head if role == "head" else self.worker


@dataclass(frozen=True)
class Pairing:
    """Paired ports in rail order (cage by cage, half A first), and what a person should know about it."""

    pairs: tuple[PortPair, ...]
    cables: tuple[Cable, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class UsedNetwork:
    """A network that a node already knows: an address, a route, a Docker pool. netdev: where, if on a port."""

    network: IPv4Network
    role: Role
    what: str
    netdev: str | None = None


def pair_ports(head: Sequence[FabricPort], worker: Sequence[FabricPort], seen: Sequence[Sighting] = ()) -> Pairing:
    """Join the ports of plugged cages, both twins of each. seen: what the ports saw of each other.

    Raises RefusedError where neither that nor carrier decides which cage faces which.
    """
    ports = {"head": tuple(head), "worker": tuple(worker)}
    for role in ROLES:
        if not ports[role]:
            raise RefusedError(
                f"{role}: no ConnectX-7 port was found, expected four",
                hint="plug the QSFP cable and reboot both nodes: the NIC powers down while no cable is plugged",
            )
    up = {role: {port.cage for port in ports[role] if port.carrier} for role in ROLES}
    described = describe_ports(head, worker)
    if not up["head"] and not up["worker"]:
        raise RefusedError(
            f"no fabric port has carrier on either node, expected a cable between the same cages. Seen: {described}",
            hint="plug the QSFP cable into the same cage of both nodes, then run init again",
        )
    crossing = _addresses_cross(ports["head"], ports["worker"])
    cables, found = trace_cables((up["head"], up["worker"]), seen, addresses_cross=crossing, described=described)
    notes = list(found)
    pairs = tuple(
        chain.from_iterable(_twins(ports["head"], ports["worker"], cable, notes, described) for cable in cables)
    )
    return Pairing(pairs, cables, tuple(notes))


def _twins(
    head: Sequence[FabricPort],
    worker: Sequence[FabricPort],
    cable: Cable,
    notes: list[str],
    described: str,
) -> Iterator[PortPair]:
    ours = {port.half: port for port in head if port.cage == cable.head_cage}
    theirs = {port.half: port for port in worker if port.cage == cable.worker_cage}
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise RefusedError(f"cage {cable.head_cage}: the nodes show no PCIe half in common. Seen: {described}")
    for half in sorted(ours.keys() ^ theirs.keys()):
        missing = "head" if half in theirs else "worker"
        notes.append(
            f"{missing}: cage {cable.head_cage} shows no port on PCIe half {half}; half of that cable stays unused"
        )
    for half in common:
        pair = PortPair(ours[half], theirs[half])
        silent = [f"{role} {pair.of(role).netdev}" for role in ROLES if not pair.of(role).carrier]
        if silent:
            notes.append(f"no carrier on {', '.join(silent)}, though its twin has one: check the cable")
        yield pair


def _addresses_cross(head: Sequence[FabricPort], worker: Sequence[FabricPort]) -> bool:
    """With both cages up carrier cannot tell crossed cables; subnets that match only crosswise can."""
    straight = crossed = 0
    for ours in head:
        for theirs in worker:
            if ours.half == theirs.half and _common_subnet(ours, theirs):
                straight += ours.cage == theirs.cage
                crossed += ours.cage != theirs.cage
    return crossed > 0 and straight == 0


def _common_subnet(ours: FabricPort, theirs: FabricPort) -> bool:
    return bool({a.network for a in ours.addresses} & {b.network for b in theirs.addresses})


def describe_ports(head: Sequence[FabricPort], worker: Sequence[FabricPort]) -> str:
    """Every port with its cage and carrier, for a refusal."""
    words = {True: "carrier", False: "no carrier", None: "carrier unknown"}
    parts = []
    for role, ports in (("head", head), ("worker", worker)):
        listed = ", ".join(f"{port.netdev} (cage {port.cage}) {words[port.carrier]}" for port in ports)
        parts.append(f"{role}: {listed}")
    return "; ".join(parts)


@dataclass(frozen=True)
class AddressPlan:
    """The rails with their addresses. adopted: names of rails whose addresses were already in place."""

    rails: tuple[RailSite, ...]
    adopted: tuple[str, ...]
    notes: tuple[str, ...] = ()


def plan_addresses(
    pairs: Sequence[PortPair], used: Sequence[UsedNetwork], supernets: Sequence[IPv4Network] = DEFAULT_SUPERNETS
) -> AddressPlan:
    """Keep sound addresses that both ends of a rail already have; give the others a /24 of their own.

    A subnet is taken from the first supernet that has enough of them free of everything seen on either node.
    Raises RefusedError when none has.
    """
    notes: list[str] = []
    kept: dict[int, tuple[IPv4Interface, IPv4Interface]] = {}
    for index, pair in enumerate(pairs):
        found = _adoptable(pair, used, [h.network for h, _ in kept.values()])
        if found is not None:
            kept[index] = found
        else:
            notes.extend(
                f"{role}: {pair.of(role).netdev} has {', '.join(str(a) for a in pair.of(role).addresses)}, not kept: "
                "expected one private subnet a rail, with both ends in it and nothing else there"
                for role in ROLES
                if pair.of(role).addresses
            )
    taken = [item.network for item in used] + [h.network for h, _ in kept.values()]
    taken += [a.network for pair in pairs for role in ROLES for a in pair.of(role).addresses]
    fresh, supernet = _allocate(len(pairs) - len(kept), taken, used, supernets)
    if supernet is not None and supernet != supernets[0]:
        notes.append(f"subnets come from {supernet}, because {supernets[0]} overlaps what the nodes already use")
    rails = []
    for index, pair in enumerate(pairs):
        ends = kept.get(index)
        if ends is None:
            subnet = fresh.pop(0)
            ends = (
                IPv4Interface((int(subnet.network_address) + 1, subnet.prefixlen)),
                IPv4Interface((int(subnet.network_address) + 2, subnet.prefixlen)),
            )
        rails.append(
            RailSite(
                name=pair.head.label,
                head=RailEnd(netdev=pair.head.netdev, hca=pair.head.hca, address=ends[0]),
                worker=RailEnd(netdev=pair.worker.netdev, hca=pair.worker.hca, address=ends[1]),
            )
        )
    return AddressPlan(tuple(rails), tuple(rails[index].name for index in sorted(kept)), tuple(notes))


def _adoptable(
    pair: PortPair, used: Sequence[UsedNetwork], kept: Sequence[IPv4Network]
) -> tuple[IPv4Interface, IPv4Interface] | None:
    """The one sound address pair of a rail, None when there is none or more than one address on an end."""
    if len(pair.head.addresses) != 1 or len(pair.worker.addresses) != 1:
        return None
    ours, theirs = pair.head.addresses[0], pair.worker.addresses[0]
    network = ours.network
    if network != theirs.network or ours.ip == theirs.ip or not _is_host(ours) or not _is_host(theirs):
        return None
    if any(network.overlaps(other) for other in kept):
        return None
    own = {("head", pair.head.netdev), ("worker", pair.worker.netdev)}
    if any(network.overlaps(item.network) for item in used if (item.role, item.netdev) not in own):
        return None
    return ours, theirs


def _is_host(address: IPv4Interface) -> bool:
    ip, network = address.ip, address.network
    if network.prefixlen > 31 or not ip.is_private or ip.is_link_local or ip.is_loopback or ip.is_unspecified:
        return False
    if ip.is_multicast or ip.is_reserved:
        return False
    return network.prefixlen == 31 or ip not in (network.network_address, network.broadcast_address)


def _allocate(
    count: int, taken: Sequence[IPv4Network], used: Sequence[UsedNetwork], supernets: Sequence[IPv4Network]
) -> tuple[list[IPv4Network], IPv4Network | None]:
    if count == 0:
        return [], None
    for supernet in supernets:
        found: list[IPv4Network] = []
        for subnet in supernet.subnets(new_prefix=RAIL_PREFIX):
            if not any(subnet.overlaps(other) for other in taken):
                found.append(subnet)
                if len(found) == count:
                    return found, supernet
    listed = "; ".join(f"{item.role} {item.what} {item.network}" for item in used[:12])
    raise RefusedError(
        f"{count} free /{RAIL_PREFIX} subnets were not found in {', '.join(str(net) for net in supernets)}. "
        f"In use: {listed or 'nothing else'}",
        hint="name a free private network, as --supernet 172.31.0.0/16",
    )
