"""What a person should know now, from the memory and the last look. Pure."""

from __future__ import annotations

from dspark_ops.supervise.core.clock import now_of, since
from dspark_ops.supervise.core.memory import Alert, Memory
from dspark_ops.supervise.core.policy import hold_left_s, start_blocks
from dspark_ops.supervise.core.settings import Settings
from dspark_ops.supervise.core.sight import ROLES, Observation
from dspark_ops.supervise.core.witness import enough

_RECOVERING = ("draining", "stopping", "cooling", "starting", "gate")


def alerts_of(settings: Settings, memory: Memory, observation: Observation) -> tuple[Alert, ...]:
    """All alerts of now; each key at most once."""
    found = [
        *_of_the_pair(memory, observation),
        *_of_the_time(settings, memory, observation),
        *_of_the_ways(memory, observation),
    ]
    return tuple({alert.key: alert for alert in found}.values())


def _of_the_pair(memory: Memory, observation: Observation) -> list[Alert]:
    found, incident, held, wanted = [], memory.incident, memory.hold, observation.wanted
    if memory.state == "failed":
        found.append(Alert(key="latched", text=f"latched, nothing restarts: {memory.latched}", page=True))
    elif memory.harm is not None:
        found.append(Alert(key="harm", text=f"the pair will not be restarted: {memory.harm}", page=True))
    if memory.state in _RECOVERING and incident is not None and incident.open:
        found.append(Alert(key="not-serving", text=f"the pair does not serve: {incident.reason}"))
    rank, adopted = observation.head.rank, wanted.release if wanted is not None else None
    serves = memory.state in ("serving", "suspect") and rank.state == "running"
    if serves and None not in (rank.release, adopted) and rank.release != adopted:
        found.append(Alert(key="release-differs", text=f"{rank.release} serves, another release is adopted"))
    if held is not None and enough(memory.witnesses):
        text = f"held by {held.owner}; without the hold it would be restarted"
        found.append(Alert(key="held-would-act", text=text))
    return found


def _of_the_time(settings: Settings, memory: Memory, observation: Observation) -> list[Alert]:
    """What takes longer than a person should have to guess."""
    in_state_s, held = since(memory.since, now_of(observation)), memory.hold
    for_s = f"for {in_state_s:.0f} s"
    if memory.state == "suspect" and in_state_s >= settings.suspect_page_s:
        return [Alert(key="suspect-long", text=f"suspect {for_s}: {memory.reason}", page=True)]
    if memory.state == "gate" and held is None and in_state_s >= settings.gate_limit_s:
        return [Alert(key="gate-long", text=f"it works, but the gate has had no verdict {for_s}", page=True)]
    wanted = observation.wanted is not None and observation.wanted.run
    if wanted and held is not None and memory.state == "cooling" and in_state_s >= settings.stuck_page_s:
        text = f"the pair is not known to serve {for_s}, and {held.owner} holds it: {held.reason}"
        return [Alert(key="held-down", text=text)]
    if not wanted or held is not None or in_state_s < settings.stuck_page_s:
        return []
    if memory.state == "stopping":
        waits = "; ".join(memory.waits_for) or memory.reason
        return [Alert(key="stuck-stopping", text=f"stopping waits until {waits}", page=True)]
    stuck = _stuck(settings, memory, observation) if memory.state == "cooling" else ""
    return [Alert(key="stuck-cooling", text=f"no start until {stuck}", page=True)] if stuck else []


def _stuck(settings: Settings, memory: Memory, observation: Observation) -> str:
    blocks = start_blocks(settings, memory, observation)
    return "; ".join(block.text for block in blocks if not block.settles)


def _of_the_ways(memory: Memory, observation: Observation) -> list[Alert]:
    found = []
    worker = observation.worker
    if worker.reachable is False:
        found.append(Alert(key="worker-unreachable", text="the worker answers on no path"))
    elif worker.by_management is False:
        found.append(Alert(key="management-lost", text="the worker answers over the fabric only"))
    elif worker.by_fabric is False:
        found.append(Alert(key="fabric-lost", text="the worker does not answer over the fabric"))
    for role in ROLES:
        node = observation.node(role)
        reached = role == "head" or node.reachable is True
        if reached and node.rank.state == "unknown":
            found.append(Alert(key=f"docker-{role}", text=f"Docker on {role} cannot be asked about the rank"))
        if node.clock_synced is False:
            found.append(Alert(key=f"clock-{role}", text=f"the clock of {role} is not synchronised"))
    if not observation.state_saved:
        text = "the state cannot be written; nothing is started while that lasts"
        found.append(Alert(key="state-not-saved", text=text, page=True))
    if memory.hold is not None and hold_left_s(memory.hold, now_of(observation)) < memory.hold.for_s * 0.1:
        found.append(Alert(key="hold-ends", text=f"the hold of {memory.hold.owner} ends soon"))
    return found
