"""Whether the pair is idle enough for test traffic: no engine serves or starts. What is not known forbids it too."""

from __future__ import annotations

import re

from dspark_ops.config.models import Role, Site
from dspark_ops.facts.rank import RANK_CONTAINER
from dspark_ops.facts.snapshot import NodeFacts, PairFacts

# What people serve models with on these boxes; any of them moves when the rails are loaded.
_ENGINES = re.compile(
    r"(?i)vllm|sglang|llama[._-]?cpp|llama-server|ollama|tensorrt|trt-?llm|triton|text-generation|lmdeploy|comfyui|nim"
    r"(?![a-z])|ray(?![a-z])"
)
_ASLEEP = frozenset({"exited", "created", "dead"})


def engines_in_the_way(site: Site, facts: PairFacts) -> list[str]:
    """Every reason against traffic now, in sentences; none: both nodes are known to be idle."""
    return [reason for node in facts.nodes for reason in (*_containers(node), *_gpu(node), *_ports(site, node))]


def _containers(node: NodeFacts) -> list[str]:
    role: Role = node.role
    if node.containers is None:
        return [f"{role}: the containers could not be read"]
    found = []
    for row in node.containers:
        if row.state is None:
            found.append(f"{role}: the state of container {row.name} is unknown")
        elif row.state in _ASLEEP:
            continue
        elif row.name == RANK_CONTAINER:
            found.append(f"{role}: the rank's container {row.name} is {row.state}")
        elif _ENGINES.search(f"{row.name} {row.image or ''}"):
            found.append(f"{role}: the container {row.name} ({row.image or 'image unknown'}) is {row.state}")
    return found


def _gpu(node: NodeFacts) -> list[str]:
    rehearsal = node.system is not None and node.system.look_alikes is not None
    if node.gpu is None:
        return [] if rehearsal else [f"{node.role}: the GPU could not be read"]
    if node.gpu.processes is None:
        return [f"{node.role}: the GPU's processes could not be read"]
    return [f"{node.role}: {process.name} (pid {process.pid}) computes on the GPU" for process in node.gpu.processes]


def _ports(site: Site, node: NodeFacts) -> list[str]:
    if node.listeners is None:
        return [f"{node.role}: the listening ports could not be read"]
    wanted = {site.serve.api_port: "API", site.serve.master_port: "rendezvous"}
    taken = {item.port: item.process or "an unknown process" for item in node.listeners if item.port in wanted}
    found = [f"{node.role}: {who} listens on the {wanted[port]} port {port}" for port, who in sorted(taken.items())]
    named = {item.process for item in node.listeners if item.process and _ENGINES.search(item.process)}
    return found + [f"{node.role}: {process} listens on a port" for process in sorted(named)]
