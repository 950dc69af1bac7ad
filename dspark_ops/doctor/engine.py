"""Runs rules over facts. Pure: the same facts give the same findings, and nothing is contacted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES
from dspark_ops.doctor.catalogue import Check, load_catalogue
from dspark_ops.doctor.causes import REACH, Place, root_causes, with_dependencies
from dspark_ops.doctor.outcome import FactMissingError, NodeView, NotApplicableError, Outcome, PairView
from dspark_ops.doctor.registry import NODE_RULES, PAIR_RULES, load_rules
from dspark_ops.doctor.selection import expand, select
from dspark_ops.facts.snapshot import NodeFacts, PairFacts
from dspark_ops.facts.system import LookAlike
from dspark_ops.report.models import Finding, Node, NodeReport, Remedy, Report, Status, Verdict, counts, judge, now
from dspark_ops.report.text import shell_line

_EVIDENCE_LIMIT = 400
Retell = Callable[[Check, Node, Outcome], Outcome]


def run_checks(
    facts: PairFacts,
    loaded: LoadedSite,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    ignore: Sequence[str] = (),
    active: bool = False,
    strict: bool = False,
    started_at: datetime | None = None,
    retell: Retell | None = None,
) -> Report:
    """Judge the facts and report. ignore: judged and shown, not counted. strict: a warning is as bad as a failure.

    retell: what a rule's answer means on a pair that was not set up from this site.

    Raises:
        ConfigError: only, skip or ignore name no check.
    """
    catalogue = load_catalogue()
    chosen = select(catalogue, only, skip, active=active)
    findings = judge_facts(facts, loaded, chosen, ignored=expand(catalogue, ignore), retell=retell)
    nodes = tuple(
        NodeReport(role=n.role, host=n.host, reachable=n.reachable, error=n.error, round_trip_s=n.round_trip_s)
        for n in facts.nodes
    )
    verdict, code = judge(findings, nodes, strict=strict)
    moment = now()
    return Report(
        verb="doctor",
        site=loaded.site.name,
        started_at=started_at or moment,
        finished_at=moment,
        verdict=verdict,
        exit_code=int(code),
        nodes=nodes,
        findings=findings,
        message=_message(verdict, findings, nodes),
        next_step=_next_step(findings, loaded),
    )


def judge_facts(
    facts: PairFacts,
    loaded: LoadedSite,
    checks: Iterable[Check],
    *,
    ignored: Iterable[str] = (),
    retell: Retell | None = None,
) -> tuple[Finding, ...]:
    """One finding a check and node (or pair), in the order of the checks; what each says does not depend on the order.

    What the checks depend on is judged too, so that the root has a name even where it was not asked for.
    """
    load_rules()
    chosen, passed_over = tuple(checks), frozenset(ignored)
    catalogue = load_catalogue()
    outcomes: dict[Place, Outcome] = {}
    for check in with_dependencies(chosen, catalogue):
        told = _outcomes(check, facts, loaded)
        outcomes |= told if retell is None else {place: retell(check, place[1], told[place]) for place in told}
    statuses = {place: _status(catalogue[place[0]], outcome) for place, outcome in outcomes.items()}
    roots = root_causes(catalogue, statuses)
    return tuple(
        _finding(check, node, outcomes, statuses, roots, facts, loaded, ignored=check.id in passed_over)
        for check in chosen
        for node in _nodes(check)
    )


def _nodes(check: Check) -> tuple[Node, ...]:
    return ("pair",) if check.scope == "pair" else ROLES


def _outcomes(check: Check, facts: PairFacts, loaded: LoadedSite) -> dict[Place, Outcome]:
    limits = {name: threshold.value for name, threshold in check.thresholds.items()}
    if check.scope == "pair":
        return {(check.id, "pair"): _run_pair(check, PairView(facts, loaded.site, loaded.profile, limits))}
    return {
        (check.id, role): _run_node(check, NodeView(facts, loaded.site, loaded.profile, limits, role)) for role in ROLES
    }


def _status(check: Check, outcome: Outcome) -> Status:
    return "warn" if outcome.status == "fail" and check.severity == "advised" else outcome.status


def _run_node(check: Check, view: NodeView) -> Outcome:
    if not view.node.reachable and check.id != REACH:
        return Outcome("unknown", "the node was not reached")
    try:
        return NODE_RULES[check.id](view)
    except Exception as error:  # the one broad catch: a rule that breaks must not lose the other checks
        return _from_error(error)


def _run_pair(check: Check, view: PairView) -> Outcome:
    lost = [node.role for node in view.facts.nodes if not node.reachable]
    if lost:
        return Outcome("unknown", f"the {' and the '.join(lost)} was not reached")
    try:
        return PAIR_RULES[check.id](view)
    except Exception as error:  # as above
        return _from_error(error)


def _from_error(error: Exception) -> Outcome:
    if isinstance(error, NotApplicableError):
        return Outcome("skip", str(error))
    if isinstance(error, FactMissingError):
        return Outcome("unknown", str(error))
    return Outcome("unknown", f"the rule broke: {type(error).__name__}: {error}")


def _finding(
    check: Check,
    node: Node,
    outcomes: Mapping[Place, Outcome],
    statuses: Mapping[Place, Status],
    roots: Mapping[Place, str],
    facts: PairFacts,
    loaded: LoadedSite,
    *,
    ignored: bool,
) -> Finding:
    outcome, status = outcomes[check.id, node], statuses[check.id, node]
    told = status in ("warn", "fail", "unknown")
    return Finding(
        id=check.id,
        node=node,
        status=status,
        title=check.title,
        observed=outcome.observed,
        expected=outcome.expected,
        severity=check.severity,
        effect=check.effect,
        ignored=ignored,
        remedy=_remedy(check, outcome, node, facts, loaded) if told else None,
        look_alike=status != "skip" and _imitated(check, node, facts),
        caused_by=roots.get((check.id, node)),
        evidence=None if outcome.evidence is None else outcome.evidence[:_EVIDENCE_LIMIT],
    )


def _remedy(check: Check, outcome: Outcome, node: Node, facts: PairFacts, loaded: LoadedSite) -> Remedy:
    command = check.remedy.command
    if command is not None:
        host = facts.head.host if node == "pair" else facts.of(node).host
        command = fill_command(command, site=str(loaded.path), host=host, ssh_config=loaded.site.ssh.config)
    return Remedy(text=outcome.advice or check.remedy.text, command=command, remedy_class=check.remedy.remedy_class)


def fill_command(command: tuple[str, ...], *, site: str, host: str, ssh_config: Path | None) -> tuple[str, ...]:
    """The command of a remedy with {site} and {host} filled in; a login goes by the site's own SSH configuration."""
    filled = tuple(word.replace("{site}", site).replace("{host}", host) for word in command)
    if filled[0] == "ssh" and ssh_config is not None:
        return ("ssh", "-F", str(ssh_config), *filled[1:])
    return filled


def _imitated(check: Check, node: Node, facts: PairFacts) -> bool:
    return any(_node_imitates(check, n) for n in facts.nodes if node in ("pair", n.role))


def _node_imitates(check: Check, node: NodeFacts) -> bool:
    """True when the node's marker lists something that this check reads."""
    if node.system is None or node.system.look_alikes is None:
        return False
    shown = _shown(node.system.look_alikes)
    for read in check.reads:
        program = read.split()[0]
        if any(program.startswith(what) if what.startswith("/") else program == what for what in shown):
            return True
    return False


@lru_cache(maxsize=8)
def _shown(look_alikes: tuple[LookAlike, ...]) -> tuple[str, ...]:
    """The paths and programs that a marker lists."""
    found: list[str] = []
    for item in look_alikes:
        found += re.findall(r"/[^\s,]*|[A-Za-z0-9_.-]+", re.sub(r"<[^>]*>", "*", item.what))
    return tuple(found)


def _message(verdict: Verdict, findings: Sequence[Finding], nodes: Sequence[NodeReport]) -> str:
    counted = [f for f in findings if not f.ignored]
    totals = counts(counted)
    ran = totals["ok"] + totals["warn"] + totals["fail"]
    return _verdict_sentence(verdict, counted, ran, nodes) + _ignored_words(findings)


def _verdict_sentence(verdict: Verdict, found: Sequence[Finding], ran: int, nodes: Sequence[NodeReport]) -> str:
    totals = counts(found)
    lost = [f"{node.role} ({node.host})" for node in nodes if not node.reachable]
    if lost:
        return f"no verdict: {' and '.join(lost)} not reached"
    if verdict == "blocked":
        bad = totals["fail"] or totals["warn"]
        word = "failed" if totals["fail"] else "warned, which --strict counts as failure"
        return f"{bad} of {ran} results {word}"
    if verdict == "indeterminate":
        return "no verdict: a required fact is unknown" if totals["unknown"] else "no verdict: nothing could be judged"
    unknown = f", {totals['unknown']} could not be told" if totals["unknown"] else ""
    if verdict == "slow":
        slowing = dict.fromkeys(f.id for f in found if f.status in ("fail", "warn") and f.effect == "slows")
        return f"the pair can serve, and {', '.join(slowing)} costs speed{unknown}"
    warned = f", {totals['warn']} with a warning" if totals["warn"] else ""
    return f"all {ran} results are good{warned}{unknown}"


def _ignored_words(findings: Sequence[Finding]) -> str:
    """What was ignored: what it spared the operator, and what needs no ignoring any more."""
    ignored = [f for f in findings if f.ignored]
    bad = dict.fromkeys(f.id for f in ignored if f.status in ("fail", "warn", "unknown"))
    good = dict.fromkeys(f.id for f in ignored if f.id not in bad)
    text = f"; not counted, as asked: {', '.join(bad)}" if bad else ""
    return text + (f"; ignored without need: {', '.join(good)}" if good else "")


def _next_step(findings: Sequence[Finding], loaded: LoadedSite) -> str | None:
    """The command of the worst result's root, or how to ask for that root where it was not asked for."""
    urgency = ("fail", "unknown", "warn")
    bad = [f for f in findings if not f.ignored and f.status in urgency]
    if not bad:
        return None
    worst = min(bad, key=lambda f: (urgency.index(f.status), f.effect == "slows"))
    if worst.caused_by is None:
        return _remedy_line(worst)
    root = next((f for f in findings if f.id == worst.caused_by and f.status in urgency), None)
    if root is None:
        return shell_line(("dspark-ops", "doctor", "--site", str(loaded.path), "--only", worst.caused_by))
    return _remedy_line(root)


def _remedy_line(finding: Finding) -> str | None:
    if finding.remedy is None:
        return None
    if finding.remedy.command is not None:
        return shell_line(finding.remedy.command)
    return f"{finding.id} on the {finding.node}: {finding.remedy.text}"
