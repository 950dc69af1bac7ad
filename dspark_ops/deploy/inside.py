"""Image and weights prove themselves on both nodes before a rank is started from them."""

from __future__ import annotations

from collections.abc import Mapping

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import Role
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.images.verify import look_at_nodes
from dspark_ops.report.models import Finding
from dspark_ops.report.recorder import Recorder
from dspark_ops.transport.ssh import SshRunner, read_nodes
from dspark_ops.weights.quick import quick_look, quick_probes


def look_inside(loaded: LoadedSite, runners: Mapping[Role, SshRunner], recorder: Recorder) -> None:
    """Compare the image on both nodes with its own record and with what site and profile mean.

    Raises:
        RefusedError: it is not what the site and the profile mean, on a node that is named.
        NoVerdictError: that could not be seen.
    """
    with recorder.phase("verify image") as note:
        nodes, findings = look_at_nodes(loaded, runners, quick=True, engine=False)
        recorder.findings += findings
        lost = [f"{node.role}: {node.error}" for node in nodes if not node.reachable]
        bad = [finding for finding in findings if finding.status == "fail"]
        unseen = [finding for finding in findings if finding.status == "unknown"]
        if bad:
            raise RefusedError(
                "refused before a rank was touched:\n"
                + "\n".join(f"  - {finding.node}: {finding.observed} [{finding.id}]" for finding in bad),
                hint="; ".join(dict.fromkeys(_remedy(finding) for finding in bad)),
            )
        if lost or unseen:
            told = [*lost, *(f"{finding.node}: {finding.observed} [{finding.id}]" for finding in unseen)]
            raise NoVerdictError("the image could not be looked into:\n" + "\n".join(told), hint="`dspark-ops doctor`")
        note.detail = "whole on both nodes"


def look_at_weights(loaded: LoadedSite, runners: Mapping[Role, SshRunner], recorder: Recorder) -> None:
    """Whether the weights that this tool keeps are whole in size on both nodes; nothing is read when it keeps none.

    Raises:
        RefusedError: a file is absent, of another size, or could not be seen; the message names it.
    """
    probes = quick_probes(loaded.site)
    if not probes:
        return
    with recorder.phase("verify weights") as note:
        refusals = quick_look(loaded.site, read_nodes(runners, dict.fromkeys(runners, probes)))
        if refusals:
            raise RefusedError(
                "refused before a rank was touched:\n"
                + "\n".join(f"  - {refusal.observed} [{refusal.check}]" for refusal in refusals),
                hint="; ".join(dict.fromkeys(refusal.remedy for refusal in refusals)),
            )
        note.detail = "whole in size on both nodes"


def _remedy(finding: Finding) -> str:
    if finding.remedy is None:
        return "`dspark-ops image verify`"
    command = f": `{' '.join(finding.remedy.command)}`" if finding.remedy.command else ""
    return finding.remedy.text.rstrip(".") + command
