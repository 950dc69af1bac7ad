"""One listener, who reached it, and what the policy says: the verdict. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dspark_ops.config.models import ROLES, Role
from dspark_ops.exitcodes import ExitCode
from dspark_ops.exposure.policy import NodePolicy, OpenPort, Protocol
from dspark_ops.exposure.seen import FilterState
from dspark_ops.facts.listeners import ListenerFacts

SCHEMA_ID: Literal["dspark-ops/exposure-audit/v1"] = "dspark-ops/exposure-audit/v1"
Scope = Literal["loopback", "fabric", "beyond"]
RowVerdict = Literal["ok", "exposed", "unknown"]
#: What an attempt says: these two tell that the port is closed to who asked.
CLOSED = frozenset({"refused", "silent"})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Attempt(_Frozen):
    """One knock from outside. said: open, refused, silent, or the words of an error. client None: not known."""

    viewpoint: Literal["control", "head", "worker"]
    client: str | None
    target: str
    said: str


class Row(_Frozen):
    """One listener. allowed_by: the rules that let strangers in. process None: not shown."""

    node: Role
    protocol: Protocol
    address: str
    port: int
    process: str | None
    scope: Scope
    allowed_by: tuple[str, ...]
    attempts: tuple[Attempt, ...] = ()
    verdict: RowVerdict
    why: str


class NodeAudit(_Frozen):
    """One node. reachable False: nothing is known of it. unread: kinds of sockets that could not be listed."""

    node: Role
    reachable: bool
    error: str | None = None
    filter: FilterState = "unknown"
    unread: tuple[Protocol, ...] = ()


class ExposureAudit(_Frozen):
    """The document of `exposure audit`."""

    schema_id: Literal["dspark-ops/exposure-audit/v1"] = SCHEMA_ID
    site: str
    nodes: tuple[NodeAudit, ...]
    rows: tuple[Row, ...]
    exit_code: int
    message: str


def scope_of(address: str, policy: NodePolicy) -> Scope:
    """How far a socket is bound. An address that is none, as *, is everywhere."""
    if address in policy.own:
        return "fabric"
    try:
        parsed = ip_address(address)
    except ValueError:
        return "beyond"
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return "loopback" if (mapped or parsed).is_loopback else "beyond"


def judge_row(
    policy: NodePolicy,
    protocol: Protocol,
    listener: ListenerFacts,
    attempts: tuple[Attempt, ...],
    state: FilterState,
) -> Row:
    """The verdict over one listener."""
    scope = scope_of(listener.address, policy)
    rules = policy.rules_for(protocol, listener.port)
    verdict, why = _verdict(scope, protocol, rules, attempts, state)
    return Row(
        node=policy.role,
        protocol=protocol,
        address=listener.address,
        port=listener.port,
        process=listener.process,
        scope=scope,
        allowed_by=tuple(rule.rule for rule in rules),
        attempts=attempts,
        verdict=verdict,
        why=why,
    )


def _verdict(
    scope: Scope,
    protocol: Protocol,
    rules: tuple[OpenPort, ...],
    attempts: tuple[Attempt, ...],
    state: FilterState,
) -> tuple[RowVerdict, str]:
    if scope == "loopback":
        return "ok", "on the loopback"
    if scope == "fabric":
        return "ok", "on a rail's address"
    inside = [item for item in attempts if item.said == "open" and not _let_in(rules, item)]
    if inside:
        return "exposed", f"{inside[0].viewpoint} reached {inside[0].target}, and no rule lets it in"
    if rules:
        return _open_by(rules, attempts, state)
    if protocol == "udp":
        # A datagram that nobody answers tells nothing, so none is sent.
        if state == "in force":
            return "ok", "closed by the packet filter"
        return "unknown", "no packet filter of ours closes it, and UDP is not tried"
    closed = [item for item in attempts if item.said in CLOSED]
    if not closed:
        return "unknown", "nobody could try it from outside" + _errors(attempts)
    if state != "in force":
        return "unknown", f"{closed[0].viewpoint} did not get in, but no packet filter of ours closes it"
    return "ok", f"closed: {closed[0].said} from {', '.join(dict.fromkeys(item.viewpoint for item in closed))}"


def _open_by(rules: tuple[OpenPort, ...], attempts: tuple[Attempt, ...], state: FilterState) -> tuple[RowVerdict, str]:
    """The verdict where rules let somebody in, and nobody else got in."""
    named = ", ".join(rule.rule for rule in rules)
    if state == "in force" or any(rule.sources is None for rule in rules):
        return "ok", f"open by {named}"
    if not any(item.said in CLOSED and not _let_in(rules, item) for item in attempts):
        return "unknown", f"{named} lets some in, no packet filter of ours keeps others out, and none of them tried"
    return "ok", f"open by {named}; closed to others by what is not ours"


def _let_in(rules: tuple[OpenPort, ...], attempt: Attempt) -> bool:
    if attempt.client is None:
        return any(rule.sources is None for rule in rules)
    return any(rule.lets_in(attempt.client) for rule in rules)


def _errors(attempts: tuple[Attempt, ...]) -> str:
    return f" ({attempts[0].viewpoint}: {attempts[0].said})" if attempts else ""


def conclude(nodes: tuple[NodeAudit, ...], rows: tuple[Row, ...]) -> tuple[ExitCode, str]:
    """The exit code and one sentence. A node that was not read outranks what was found on the other."""
    lost = [node.node for node in nodes if not node.reachable]
    if lost:
        return ExitCode.NO_VERDICT, f"{' and '.join(lost)} could not be read"
    exposed = [row for row in rows if row.verdict == "exposed"]
    without = [node.node for node in nodes if node.filter != "in force"]
    hint = f"; our packet filter is not in force on {' and '.join(without)}" if without else ""
    if exposed:
        first = exposed[0]
        told = f"{first.node} {first.protocol}/{first.port} ({first.process or 'unknown process'})"
        return ExitCode.VERDICT_BAD, f"{len(exposed)} of {len(rows)} listeners are exposed, first {told}{hint}"
    unread = [f"{node.node} {kind}" for node in nodes for kind in node.unread]
    if unread:
        return ExitCode.NO_VERDICT, f"listeners were not read: {', '.join(unread)}"
    unknown = [row for row in rows if row.verdict == "unknown"]
    if unknown:
        return ExitCode.NO_VERDICT, f"of {len(unknown)} of {len(rows)} listeners it cannot be told{hint}"
    if not rows:
        return ExitCode.NO_VERDICT, "no listener was seen: not even SSH's"
    return ExitCode.OK, f"{len(rows)} listeners, none open to strangers but by a rule{hint}"


def table(audit: ExposureAudit) -> str:
    """The audit for people; what is bad comes last."""
    order: Mapping[str, int] = {"ok": 0, "unknown": 1, "exposed": 2}
    head = ("verdict", "node", "listener", "process", "allowed by", "from outside", "why")
    body = [
        (
            row.verdict,
            row.node,
            f"{row.protocol} {_at(row.address, row.port)}",
            row.process or "?",
            ", ".join(row.allowed_by) or "-",
            ", ".join(dict.fromkeys(f"{item.viewpoint} {item.said}" for item in row.attempts)) or "-",
            row.why,
        )
        for row in sorted(audit.rows, key=lambda row: (order[row.verdict], ROLES.index(row.node)))
    ]
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head) - 1)]
    lines = [
        "  ".join([*(word.ljust(width) for word, width in zip(line, widths, strict=False)), line[-1]])
        for line in (head, *body)
    ]
    for node in audit.nodes:
        state = node.error or "not reached" if not node.reachable else f"packet filter {node.filter}"
        lines.append(f"{node.node}: {state}")
    return "\n".join([*lines, audit.message])


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
