"""`exposure audit`: every listener of both nodes, tried from outside where it is not on the loopback or a rail."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.exposure.judging import Attempt, ExposureAudit, NodeAudit, Row, conclude, judge_row, scope_of
from dspark_ops.exposure.policy import NodePolicy, Protocol
from dspark_ops.exposure.seen import PROBES, SeenNode, filter_state, read_node
from dspark_ops.facts.listeners import WILDCARDS, ListenerFacts
from dspark_ops.report.recorder import Progress
from dspark_ops.transport.base import Connect
from dspark_ops.transport.collector import try_port
from dspark_ops.transport.readonly import CONNECT_LIMIT
from dspark_ops.transport.ssh import read_pair, resolve_target

_TIMEOUT_S = 2.0
Target = tuple[str, int]


def audit(site: Site, *, progress: Progress) -> ExposureAudit:
    """Read both nodes, knock at every port that listens beyond loopback and rails, and judge. Changes nothing."""
    progress("read the listeners of both nodes ...")
    readings = read_pair(site, PROBES)
    seen = {role: read_node(site, role, readings[role]) for role in ROLES if readings[role].reachable}
    policies = {role: node.policy(site) for role, node in seen.items()}
    wanted = {role: targets(node, policies[role]) for role, node in seen.items()}
    progress(f"knock at {sum(len(each) for each in wanted.values())} addresses and ports from outside ...")
    heard = _from_other_node(site, seen, wanted)
    for role in seen:
        heard[role] = (*heard[role], *_from_here(site, seen[role], policies[role]))
    rows = tuple(row for role in seen for row in _rows(seen[role], policies[role], heard[role]))
    nodes = tuple(
        NodeAudit(
            node=role,
            reachable=readings[role].reachable,
            error=readings[role].error,
            filter=filter_state(seen[role], policies[role]) if role in seen else "unknown",
            unread=_unread(seen[role]) if role in seen else (),
        )
        for role in ROLES
    )
    code, message = conclude(nodes, rows)
    return ExposureAudit(site=site.name, nodes=nodes, rows=rows, exit_code=int(code), message=message)


def targets(node: SeenNode, policy: NodePolicy) -> tuple[Target, ...]:
    """Where to knock: of each TCP listener beyond loopback and rails the addresses that it accepts on, bounded."""
    found: dict[Target, None] = {}
    for listener in node.tcp or ():
        if scope_of(listener.address, policy) == "beyond":
            found |= dict.fromkeys((address, listener.port) for address in knocked(listener, node.addresses))
    return tuple(found)[:CONNECT_LIMIT]


def knocked(listener: ListenerFacts, addresses: Sequence[str]) -> tuple[str, ...]:
    """The addresses of a node at which this listener would be met."""
    if listener.address not in WILDCARDS:
        return (listener.address,)
    return tuple(text for text in addresses if ":" not in text or listener.address != "0.0.0.0")  # noqa: S104


def _rows(node: SeenNode, policy: NodePolicy, heard: tuple[Attempt, ...]) -> list[Row]:
    state = filter_state(node, policy)
    rows: dict[tuple[str, str, int], Row] = {}
    kinds: tuple[tuple[Protocol, tuple[ListenerFacts, ...]], ...] = (("tcp", node.tcp or ()), ("udp", node.udp or ()))
    for protocol, listeners in kinds:
        for listener in listeners:
            mine = tuple(item for item in heard if protocol == "tcp" and _meant(item, listener, node))
            rows.setdefault(
                (protocol, listener.address, listener.port), judge_row(policy, protocol, listener, mine, state)
            )
    return list(rows.values())


def _meant(attempt: Attempt, listener: ListenerFacts, node: SeenNode) -> bool:
    host, _, port = attempt.target.rpartition(" ")
    if int(port) != listener.port:
        return False
    return attempt.viewpoint == "control" or host in knocked(listener, node.addresses)


def _from_other_node(
    site: Site, seen: Mapping[Role, SeenNode], wanted: Mapping[Role, tuple[Target, ...]]
) -> dict[Role, tuple[Attempt, ...]]:
    """Each node knocks at the other, at addresses that are no rail's: there it is a stranger."""
    other: dict[Role, Role] = {"head": "worker", "worker": "head"}
    asked = {other[role]: (Connect("exposure.knock", wanted[role], _TIMEOUT_S),) for role in wanted if wanted[role]}
    asked = {viewpoint: probes for viewpoint, probes in asked.items() if viewpoint in seen}
    readings = read_pair(site, asked) if asked else {}
    heard: dict[Role, tuple[Attempt, ...]] = {}
    for role in seen:
        viewpoint = other[role]
        answer = readings[viewpoint].get("exposure.knock").files if viewpoint in asked else None
        own = seen[viewpoint].addresses if viewpoint in seen else ()
        heard[role] = tuple(
            Attempt(viewpoint=viewpoint, client=same_family(own, target), target=target, said=said)
            for target, said in (answer or {}).items()
        )
    return heard


def same_family(addresses: Sequence[str], target: str) -> str | None:
    """The address that a node would come from to a target (address and port); None where it has none of that kind."""
    sixth = ":" in target.partition(" ")[0]
    return next((text for text in addresses if (":" in text) is sixth), None)


def _from_here(site: Site, node: SeenNode, policy: NodePolicy) -> tuple[Attempt, ...]:
    """The control host knocks where its SSH goes; behind a jump host it has no way of its own."""
    target = resolve_target(site.nodes.of(node.role).host, site.ssh.config, site.ssh.connect_timeout_s)
    if target.proxy_command is not None:
        return ()
    try:
        address = socket.getaddrinfo(target.hostname, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError:
        return ()
    ports = sorted(
        {
            listener.port
            for listener in node.tcp or ()
            if scope_of(listener.address, policy) == "beyond" and str(address) in knocked(listener, (str(address),))
        }
    )[:CONNECT_LIMIT]
    with ThreadPoolExecutor(max_workers=16) as pool:
        said = list(pool.map(lambda port: try_port(str(address), port, _TIMEOUT_S), ports))
    return tuple(
        Attempt(viewpoint="control", client=node.client, target=f"{address} {port}", said=word)
        for port, word in zip(ports, said, strict=True)
    )


def _unread(node: SeenNode) -> tuple[Protocol, ...]:
    kinds: tuple[tuple[Protocol, object], ...] = (("tcp", node.tcp), ("udp", node.udp))
    return tuple(kind for kind, found in kinds if found is None)
