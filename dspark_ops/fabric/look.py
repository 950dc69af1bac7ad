"""Reading what `fabric show` needs of two nodes: one round trip each, and no more than that."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import NoVerdictError
from dspark_ops.facts import links, neighbours, netplan, persistence, rdma
from dspark_ops.transport.base import Command, NodeReading, Probe
from dspark_ops.transport.ssh import SshRunner, open_runner, read_nodes, resolve_target

if TYPE_CHECKING:
    from dspark_ops.facts.snapshot import PairFacts

PROBES: tuple[Probe, ...] = (
    *netplan.PROBES,
    *persistence.PROBES,
    *neighbours.ECHO_PROBES,
    *rdma.PROBES,
    *links.PROBES,
    *neighbours.PROBES,
)
_CONNECT_TIMEOUT_S = 10.0


def touch_probes(site: Site, role: Role) -> tuple[Probe, ...]:
    """One small ping over each rail, so that the neighbour tables show who really is at the other end.

    The first port also asks for the far addresses of the other rails: a port answers ARP for its own address alone,
    whatever cable the question came by, so that one answer tells which cable is plugged where.
    """
    peer: Role = "worker" if role == "head" else "head"
    rails = site.fabric.rails
    pairs = [(rail, rail) for rail in rails]
    if len(rails) > 2:
        pairs += [(rails[0], other) for other in rails[1:]]
    return tuple(
        Command(
            f"touch.{ours.name}.{theirs.name}",
            ("ping", "-n", "-c", "1", "-W", "0.1", "-I", ours.of(role).netdev, str(theirs.of(peer).address.ip)),
            timeout_s=3.0,
        )
        for ours, theirs in pairs
    )


def look_at_site(site: Site) -> PairFacts:
    """The fabric facts of a site's nodes. Raises NoVerdictError naming each node that was not reached."""
    runners = {role: open_runner(site, role) for role in ROLES}
    probes = {role: (*PROBES, *touch_probes(site, role)) for role in ROLES}
    return _look(runners, probes, {role: site.nodes.of(role).host for role in ROLES})


def look_at_hosts(head: str, worker: str, ssh_config: Path | None) -> PairFacts:
    """The fabric facts of two hosts without a site. Raises as above."""
    hosts: dict[Role, str] = {"head": head, "worker": worker}
    runners = {
        role: SshRunner(node=role, target=resolve_target(hosts[role], ssh_config, _CONNECT_TIMEOUT_S)) for role in ROLES
    }
    return _look(runners, dict.fromkeys(ROLES, PROBES), hosts)


def _look(
    runners: dict[Role, SshRunner], probes: Mapping[Role, tuple[Probe, ...]], hosts: Mapping[Role, str]
) -> PairFacts:
    try:
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(read_nodes, runners, probes, timeout_s=30.0)
            # What the answers are parsed and shown with takes as long to import as the nodes to answer.
            import_module("dspark_ops.fabric.view")
            readings = pending.result()
    finally:
        for runner in runners.values():
            runner.close()
    _refuse_silence(readings)
    from dspark_ops.facts.snapshot import PairFacts, parse_node

    head, worker = (parse_node(role, readings[role], hosts[role]) for role in ROLES)
    return PairFacts(head=head, worker=worker)


def _refuse_silence(readings: Mapping[Role, NodeReading]) -> None:
    silent = [readings[role] for role in ROLES if not readings[role].reachable]
    if silent:
        hints = dict.fromkeys(reading.hint for reading in silent if reading.hint)
        raise NoVerdictError(
            "\n".join(f"{reading.node}: {reading.error or 'not reached'}" for reading in silent),
            hint="; ".join(hints) or None,
        )
