"""What the catalogue's answers mean on a pair that dspark-ops did not set up.

What only dspark-ops writes is skipped and not called missing; what rests on a placeholder of the provisional site is
skipped with the reason why there is no better. Everything else stands as the rule said it.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import Site
from dspark_ops.doctor.catalogue import Check
from dspark_ops.doctor.engine import Retell
from dspark_ops.doctor.foreign.model import FoundPair
from dspark_ops.doctor.outcome import Outcome
from dspark_ops.report.models import Finding, Node, Report
from dspark_ops.transport.base import NodeReading

#: What compares with our own journal, release, labels, files or rendered site, which such a pair has not.
OURS = (
    "service.release_current",
    "tenant.foreign_name",
    "tenant.owed*",
    "image.present",
    "image.reference",
    "image.made_by_id",
    "image.cache_per_image",
    "config.container_as_rendered",
    "config.process_as_container",
    "weights.mount",
    "weights.record*",
    "security.folders",
)
_OUR_PLACES = ("/var/lib/dspark", "/etc/dspark", "io.dspark-ops", "/var/cache/dspark")
#: What compares with the profile, which here is only the nearest one.
PROFILE = (
    "service.engine_version",
    "image.profile_label",
    "config.speculation",
    "config.sampler",
    "config.moe_backend",
    "config.runner",
    "config.kernel_arch",
    "config.argument_names",
    "config.unknown_variables",
    "config.kv_dtype",
    "config.kv_pool",
    "boot.moe_backend",
    "runtime.kv_geometry",
)
#: What belongs to DeepSeek V4 alone.
MODEL = (
    "config.parsers",
    "config.block_size",
    "config.batched_tokens",
    "config.context_length",
    "config.verify_rows",
    "image.engine_release",
    "weights.*",
    "probe.*",
    "correctness.*",
)
_CONTAINER_READS = ("docker container inspect", "docker container top", "docker logs", "docker image inspect")
_OF_A_PROCESS = ("nccl.*", "config.*", "service.argv_parity", "service.env_host_ip", "service.ranks_paired")
_MEETING = ("service.env_host_ip", "nccl.socket_ifnames", "config.rendezvous")
_SHAPE = ("config.rank_numbers", "config.rendezvous", "config.parallel_shape")
_OF_RANKS = (
    "service.ranks_paired",
    "service.argv_parity",
    "image.digest_parity",
    "tenant.gpu_process",
    "tenant.orphan*",
)
_API = (
    "service.health",
    "service.models_endpoint",
    "service.engine_version",
    "service.canary",
    "runtime.*",
    "correctness.*",
    "probe.*",
    "metrics.*",
)
#: What vLLM answers without a key all the same, by the probe that says whether this one wanted one.
_OPEN = (
    ("service.health", "service.health"),
    ("service.engine_version", "service.version"),
    ("runtime.*", "metrics.first"),
)
_KEY_WANTED = "the API asks for a key, which is not known here"


def retell_with(pair: FoundPair, site: Site, api: NodeReading) -> Retell:
    """The retelling for one pair. api: the head's reading, whose answers say whether the API wants a key."""

    def retell(check: Check, node: Node, outcome: Outcome) -> Outcome:
        if outcome.status == "skip":
            return outcome
        why = _not_judged(check, pair, outcome) or _of_ray(check, pair, node)
        if why is None and check.id == "security.open_servers" and _only_of_port(outcome, site.serve.api_port):
            why = "the open port is that of the API, which security.api_key judges"
        if why is None and outcome.status != "ok" and _any(check.id, _API):
            why = pair.closed or _wants_key(check, api)
        if why is None and outcome.status in ("unknown", "fail") and _outside(check, pair, node):
            why = "what serves runs outside of a container of Docker"
        if why is not None:
            return Outcome("skip", why)
        if check.id == "service.ranks_paired" and outcome.status == "ok":
            return Outcome("ok", "both run: " + _served(pair))
        return outcome

    return retell


def finish(report: Report, pair: FoundPair, loaded: LoadedSite) -> Report:
    """The report as of a foreign pair: it says what was found, and no command takes a site file that is not there."""
    findings = tuple(_without_site(finding) for finding in report.findings)
    told = f"{pair.reason}; found: {_served(pair)}; judged by profile {pair.profile}"
    notes = "".join(f"\nnote: {note}" for note in pair.notes)
    step = report.next_step
    if step is not None and " --site " in f"{step} ":
        hosts = (loaded.site.nodes.head.host, loaded.site.nodes.worker.host)
        step = f"dspark-ops init {hosts[0]} {hosts[1]}, then what the finding says"
    return report.model_copy(
        update={"findings": findings, "message": f"{report.message} ({told}){notes}", "site": None, "next_step": step}
    )


def _wants_key(check: Check, api: NodeReading) -> str | None:
    """A key keeps from us only what lies below /v1, unless the other paths ask for it as well."""
    probe = next((probe for pattern, probe in _OPEN if fnmatchcase(check.id, pattern)), "service.models")
    return _KEY_WANTED if api.get(probe).rc in (401, 403) else None


def _only_of_port(outcome: Outcome, port: int) -> bool:
    """Everything that is named is on this port."""
    named = re.findall(r"\bport (\d+)\b", outcome.observed) if outcome.status == "fail" else []
    return bool(named) and set(named) == {str(port)}


def _served(pair: FoundPair) -> str:
    parts = []
    for node in pair.nodes:
        if not node.reachable:
            parts.append(f"{node.role} not reached")
        elif node.server is not None:
            state = "" if node.server.running else ", which has ended"
            parts.append(f"{node.role} {node.server.where}{state}")
        elif not node.readable:
            parts.append(f"{node.role} unknown: neither its processes nor its containers could be read")
        elif node.others:
            parts.append(f"{node.role} several vLLM servers")
        else:
            parts.append(f"{node.role} no vLLM server")
    return ", ".join(parts)


def _not_judged(check: Check, pair: FoundPair, outcome: Outcome) -> str | None:
    if _any(check.id, OURS) or any(place in read for read in check.reads for place in _OUR_PLACES):
        return pair.reason
    if _any(check.id, PROFILE):
        return f"{pair.reason}: profile {pair.profile} is only the nearest one"
    if pair.other_model is not None and _any(check.id, MODEL):
        return f"{pair.other_model} is served, and this belongs to DeepSeek V4"
    if check.id == "service.models_endpoint" and "max_model_len" in pair.unsaid and outcome.status == "fail":
        return "the context length was not given on the command line"
    if pair.off_rail is not None and _any(check.id, _MEETING):
        return f"the ranks meet at {pair.off_rail}, which is the address of no rail"
    said = " ".join(filter(None, (outcome.observed, outcome.expected, outcome.evidence)))
    if any(word in said for word in pair.invented):
        return pair.why_no_rails or "the rails have no addresses of one subnet at both ends"
    return None


def _of_ray(check: Check, pair: FoundPair, node: Node) -> str | None:
    """Ray gives the ranks their numbers and starts them: what was told is not on any command line."""
    told = [found for found in pair.nodes if node in ("pair", found.role)]
    if not any(found.ray for found in pair.nodes):
        return None
    if any(found.ray and found.server is None for found in told) and _any(check.id, _OF_RANKS):
        return "Ray starts the rank here, and no command line says how"
    return "Ray gives the ranks their numbers" if _any(check.id, _SHAPE) else None


def _outside(check: Check, pair: FoundPair, node: Node) -> bool:
    """A check of a container, on a node whose server is in none; of that its arguments and variables are known."""
    nodes = [found for found in pair.nodes if node in ("pair", found.role)]
    bare = any(found.server is not None and found.server.container is None for found in nodes)
    reads = any(read.startswith(_CONTAINER_READS) for read in check.reads)
    return bare and reads and not _any(check.id, _OF_A_PROCESS)


def _without_site(finding: Finding) -> Finding:
    remedy = finding.remedy
    if remedy is None or remedy.command is None or "--site" not in remedy.command:
        return finding
    text = f"{remedy.text} By hand, or by dspark-ops after `dspark-ops init`."
    return finding.model_copy(update={"remedy": remedy.model_copy(update={"command": None, "text": text})})


def _any(identity: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(identity, pattern) for pattern in patterns)
