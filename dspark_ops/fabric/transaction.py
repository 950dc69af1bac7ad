"""A change of the fabric holds once it is proven, over fresh sessions and with full-size packets; else it is put back.

The nodes do not depend on this process: each has armed its own revert before its first write.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import DsparkError
from dspark_ops.facts import fabric_journal, jumbo, links, rdma
from dspark_ops.facts.fabric_journal import read_journal
from dspark_ops.facts.snapshot import PairFacts, pair_from
from dspark_ops.report.recorder import Recorder
from dspark_ops.transport.base import NodeReading
from dspark_ops.transport.ssh import read_pair

PlayTag = Callable[[str], PlayResult]
# Short, so that a lost node is back within the minute; a slow pair may need longer to prove itself.
REVERT_AFTER_S = 45
# What a revert and a slow login add to the node's own timer (playbooks/roles/fabric).
REVERT_MARGIN_S = 30.0
_POLL_S = 3.0


class NotProvenError(DsparkError):
    """The new fabric did not prove itself; the caller puts it back."""


@dataclass(frozen=True)
class Proof:
    """What was seen, in a sentence, and the ports and GIDs at that moment."""

    sentence: str
    facts: PairFacts


def prove(site: Site, *, packets: bool = True) -> Proof:
    """Log in to both nodes anew and, with `packets`, send full-size packets over every rail both ways.

    Raises NotProvenError naming each node or rail that failed.
    """
    probes = {role: (*(jumbo.probes(site, role) if packets else ()), *links.PROBES, *rdma.PROBES) for role in ROLES}
    readings = read_pair(site, probes, timeout_s=20.0)
    lost = [f"{role}: {readings[role].error or 'not reached'}" for role in ROLES if not readings[role].reachable]
    if lost:
        raise NotProvenError("the control host cannot log in any more: " + "; ".join(lost))
    facts = pair_from(site, readings)
    if not packets:
        return Proof("both nodes take a new login", facts)
    silent = [problem for role in ROLES for problem in _silent_rails(site, role, readings[role])]
    if silent:
        raise NotProvenError(f"packets of {site.fabric.mtu} bytes do not pass: {'; '.join(silent)} [fabric.jumbo]")
    rails = len(site.fabric.rails)
    return Proof(
        f"both nodes take a new login; packets of {site.fabric.mtu} bytes cross {rails} rails both ways", facts
    )


def _silent_rails(site: Site, role: Role, reading: NodeReading) -> list[str]:
    pings = {ping.rail: ping for ping in jumbo.read_jumbo(reading) or ()}
    found = []
    for rail in site.fabric.rails:
        ping = pings.get(rail.name)
        if ping is None or not ping.received:
            local = f" (its own MTU is {ping.local_mtu})" if ping is not None and ping.local_mtu else ""
            found.append(f"{role} {rail.of(role).netdev} (rail {rail.name}){local}")
    return found


def open_entries(readings: Mapping[Role, NodeReading]) -> dict[Role, str | None]:
    """The journal entry that each node had when it was read, to tell a change of this run from an earlier one."""
    entries = {role: read_journal(reading) for role, reading in readings.items()}
    return {role: entry.id if entry is not None and entry.state != "open" else None for role, entry in entries.items()}


@dataclass
class FabricTransaction:
    """What undoes a change on both nodes.

    play: runs the fabric's playbook with one tag. before: the settled entry of each node's journal when it all began.
    """

    site: Site
    recorder: Recorder
    play: PlayTag
    before: Mapping[Role, str | None]
    revert_after_s: int = REVERT_AFTER_S

    def put_back(self) -> list[str]:
        """Put the rails back on both nodes, wait for a lost node to do it by itself, and look; what is left undone."""
        left: list[str] = []
        try:
            with self.recorder.phase("revert"):
                result = self.play("revert")
            left += [f"{f.node or 'pair'}: {f.message}" for f in result.failures if f.node not in result.unreachable]
        except KeyboardInterrupt:
            return ["interrupted while reverting; a node that is not confirmed puts its rails back by itself"]
        except DsparkError as failure:
            left.append(f"the revert could not be run ({failure.message}); the nodes were waited for instead")
            result = None
        try:
            with self.recorder.phase("look") as note:
                waited, told = self._await()
                note.detail = "; ".join(told)
        except KeyboardInterrupt:
            return [*left, "interrupted; a node that is not confirmed puts its rails back by itself"]
        if result is None and not waited:
            return []
        return left + waited

    def _await(self) -> tuple[list[str], list[str]]:
        """Ask both nodes until their journals are settled; what is left undone, and what they say."""
        until = time.monotonic() + self.revert_after_s + REVERT_MARGIN_S
        told: dict[Role, str] = {}
        left: dict[Role, str] = {}
        waiting = list(ROLES)
        while waiting:
            readings = read_pair(self.site, dict.fromkeys(waiting, fabric_journal.PROBES), timeout_s=10.0)
            for role in tuple(waiting):
                settled, problem, sentence = self._judge(role, readings[role])
                if settled:
                    waiting.remove(role)
                told[role] = sentence
                left.pop(role, None)
                if problem:
                    left[role] = sentence
            if not waiting or time.monotonic() > until:
                break
            time.sleep(_POLL_S)
        return list(left.values()), list(told.values())

    def _judge(self, role: Role, reading: NodeReading) -> tuple[bool, bool, str]:
        """Whether the node's journal is settled, whether something is left, and a sentence."""
        if not reading.reachable:
            return False, True, f"{role}: {reading.error or 'not reached'}"
        entry = read_journal(reading)
        if entry is None or entry.id == self.before.get(role):
            return True, False, f"{role}: nothing was changed"
        if entry.state == "open":
            return False, True, f"{role}: answers, and its revert is not done yet"
        if entry.state == "reverted":
            return True, False, f"{role}: put back ({entry.why or 'no reason given'})"
        if entry.state == "confirmed":
            return True, True, f"{role}: was already confirmed and keeps its new rails; the next run makes both alike"
        return True, True, f"{role}: its revert is incomplete: {'; '.join(entry.differences) or entry.state}"
