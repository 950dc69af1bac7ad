"""`fabric verify`: the doctor's fabric and NCCL checks on a fresh reading, the pings over every rail included."""

from __future__ import annotations

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.doctor.engine import run_checks
from dspark_ops.fabric import look
from dspark_ops.fabric.gid_record import recall, remember
from dspark_ops.facts import jumbo, nccl_files, rank, routes, sysctl, system, verbs
from dspark_ops.facts.snapshot import pair_from
from dspark_ops.report.models import Report, now
from dspark_ops.transport.base import Probe
from dspark_ops.transport.ssh import read_pair

CHECKS = ("reach.ssh", "fabric.*", "nccl.*")
#: What asks for the NIC's settings, the packet filter or the engine's log: the doctor reads those, and judges these.
OF_THE_DOCTOR = (
    "fabric.firewall",
    "fabric.networkmanager_settled",
    "fabric.rail_wired",
    "nccl.log_devices",
    "nccl.memlock",
    "nccl.rdma_device",
    "nccl.version_floor",
    "nccl.version_parity",
)


def probes(site: Site, role: Role) -> tuple[Probe, ...]:
    """What the checks of the fabric read on one node, the pings over the rails included."""
    return (
        *rank.PROBES,
        *verbs.PROBES,
        *nccl_files.PROBES,
        *jumbo.probes(site, role),
        *look.PROBES,
        *look.touch_probes(site, role),
        *routes.PROBES,
        *routes.probes(site, role),
        *sysctl.PROBES,
        *system.PROBES,
    )


def verify(loaded: LoadedSite, *, strict: bool = False) -> Report:
    """Judge the rails of a site from one reading of each node. strict: a warning is as bad as a failure."""
    began = now()
    readings = read_pair(loaded.site, {role: probes(loaded.site, role) for role in ROLES})
    record = recall(loaded.site.name)
    facts = pair_from(loaded.site, readings).model_copy(update={"gid_record": record})
    if record is None or record.problem is not None:
        # Later readings are compared with this one; a start of the ranks takes a new one.
        remember(loaded.site.name, facts)
    report = run_checks(facts, loaded, only=CHECKS, skip=OF_THE_DOCTOR, active=True, strict=strict, started_at=began)
    return report.model_copy(update={"verb": "fabric verify"})
