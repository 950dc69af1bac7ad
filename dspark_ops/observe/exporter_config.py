"""A site to /etc/dspark/exporter.json of both nodes. Pure."""

from __future__ import annotations

from typing import Any

from dspark_ops.config.models import NODE_RANK, ROLES, Profile, Role, Site
from dspark_ops.facts.service import api_url
from dspark_ops.observe.exporter.config import PORT, SCHEMA

_GIB = 1 << 30
SUPERVISOR_URL = "http://127.0.0.1:8017"


def exporter_configs(
    site: Site,
    profile: Profile,
    *,
    supervisor: bool = False,
    gateway: bool = False,
    doctor_textfile: str | None = None,
    port: int = PORT,
    interval_s: int = 15,
) -> dict[Role, dict[str, Any]]:
    """What each node is told.

    supervisor, gateway: whether they are installed on the head. doctor_textfile: the doctor's file of metrics on the
    head; None where the doctor's timer runs on another machine.
    """
    return {
        role: _config(site, profile, role, supervisor, gateway, doctor_textfile, port, interval_s) for role in ROLES
    }


def exporter_address(site: Site, role: Role, port: int = PORT) -> str:
    """`ADDRESS:PORT` of a node's exporter as Prometheus on the head asks it: loopback, or the first rail."""
    return f"127.0.0.1:{port}" if role == "head" else f"{site.fabric.rails[0].worker.address.ip}:{port}"


def _config(
    site: Site,
    profile: Profile,
    role: Role,
    supervisor: bool,
    gateway: bool,
    doctor_textfile: str | None,
    port: int,
    interval_s: int,
) -> dict[str, Any]:
    head = role == "head"
    seen_from_head = exporter_address(site, role, port).rpartition(":")[0]
    return {
        "schema": SCHEMA,
        "site": site.name,
        "role": role,
        # The worker's loopback too: what reads a node over SSH asks loopback and nothing else.
        "listen": [{"address": address, "port": port} for address in dict.fromkeys(["127.0.0.1", seen_from_head])],
        "interval_s": interval_s,
        # Three readings missed, and a nvidia-smi that took its time.
        "stale_after_s": 4 * interval_s,
        "rails": [
            {
                "name": rail.name,
                "netdev": rail.of(role).netdev,
                "hca": rail.of(role).hca,
                "address": str(rail.of(role).address.ip),
                "mtu": site.fabric.mtu,
            }
            for rail in site.fabric.rails
        ],
        "memory_floor_bytes": int(site.guards.memory_floor_gib * _GIB),
        "gpu": profile.gpu,
        "rank_arguments": rank_arguments(site, role),
        "engine_url": api_url(site) if head else None,
        "max_model_len": site.serve.max_model_len if head else None,
        "supervisor_url": SUPERVISOR_URL if head and supervisor else None,
        "gateway_url": f"http://127.0.0.1:{site.gateway.router_port}" if head and gateway else None,
        "doctor_textfile": doctor_textfile if head else None,
    }


def rank_arguments(site: Site, role: Role) -> list[str]:
    """Words that only the engine of this site's rank is given on this node, as `deploy` writes them."""
    return [
        "--nnodes=2",
        f"--node-rank={NODE_RANK[role]}",
        f"--master-addr={site.fabric.rails[0].head.address.ip}",
        f"--master-port={site.serve.master_port}",
    ]
