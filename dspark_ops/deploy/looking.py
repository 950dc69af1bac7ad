"""Both nodes before anything is decided: half of the picture is no picture."""

from __future__ import annotations

from collections.abc import Mapping

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import Role
from dspark_ops.deploy.observed import Observation, observe
from dspark_ops.deploy.plan import require_known
from dspark_ops.report.models import NodeReport
from dspark_ops.report.recorder import Recorder
from dspark_ops.transport.ssh import SshRunner


def look(loaded: LoadedSite, runners: Mapping[Role, SshRunner], recorder: Recorder) -> Observation:
    """Read both nodes and refuse to go on with half of the picture.

    Raises:
        NoVerdictError: a node or a needed fact of it could not be read.
    """
    seen = observe(loaded.site, loaded.profile, runners)
    recorder.nodes = tuple(
        NodeReport(
            role=node.role,
            host=node.host,
            reachable=node.reachable,
            error=node.error,
            round_trip_s=None if node.round_trip_s is None else round(node.round_trip_s, 3),
        )
        for node in seen.pair.nodes
    )
    require_known(seen.pair)
    return seen


def running_release(seen: Observation, site: str) -> str | None:
    """The release that both ranks of this site run under one epoch; None when none does. Running is not answering."""
    head, worker = seen.pair.head.rank, seen.pair.worker.rank
    if head is None or worker is None or not head.running or not worker.running:
        return None
    same = all(head.label(name) == worker.label(name) for name in ("site", "release", "epoch"))
    return head.label("release") if same and head.label("site") == site else None
