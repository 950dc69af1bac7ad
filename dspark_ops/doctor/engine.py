"""Runs rules over facts. Pure: the same facts give the same findings, and nothing is contacted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES
from dspark_ops.doctor.catalogue import Check, load_catalogue
from dspark_ops.doctor.outcome import FactMissingError, NodeView, NotApplicableError, Outcome, PairView
from dspark_ops.doctor.registry import NODE_RULES, PAIR_RULES, load_rules
from dspark_ops.doctor.selection import select
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.snapshot import NodeFacts, PairFacts
from dspark_ops.report.models import Finding, Node, NodeReport, Remedy, Report, Verdict, counts, judge, now
from dspark_ops.report.text import shell_line

REACH = "reach.ssh"
_EVIDENCE_LIMIT = 400


def run_checks(
    facts: PairFacts,
    loaded: LoadedSite,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    active: bool = False,
    strict: bool = False,
    started_at: datetime | None = None,
) -> Report:
    """Judge the facts and report. strict: a warning is as bad as a failure.

    Raises:
        ConfigError: only or skip name no check.
    """
    chosen = select(load_catalogue(), only, skip, active=active)
    findings = judge_facts(facts, loaded, chosen)
    nodes = tuple(
        NodeReport(role=n.role, host=n.host, reachable=n.reachable, error=n.error, round_trip_s=n.round_trip_s)
        for n in facts.nodes
    )
    verdict, code = judge(findings, nodes)
    if strict and code == ExitCode.OK and any(f.status == "warn" for f in findings):
        verdict, code = "blocked", ExitCode.VERDICT_BAD
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
        next_step=_next_step(findings),
    )


def judge_facts(facts: PairFacts, loaded: LoadedSite, checks: Iterable[Check]) -> tuple[Finding, ...]:
    """One finding a check and node (or pair), in the order of the checks."""
    load_rules()
    findings: list[Finding] = []
    for check in checks:
        limits = {name: threshold.value for name, threshold in check.thresholds.items()}
        if check.scope == "pair":
            view = PairView(facts, loaded.site, loaded.profile, limits)
            findings.append(_finding(check, "pair", _run_pair(check, view), facts, loaded, findings))
            continue
        for role in ROLES:
            on_node = NodeView(facts, loaded.site, loaded.profile, limits, role)
            findings.append(_finding(check, role, _run_node(check, on_node), facts, loaded, findings))
    return tuple(findings)


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
    check: Check, node: Node, outcome: Outcome, facts: PairFacts, loaded: LoadedSite, earlier: Sequence[Finding]
) -> Finding:
    status = "warn" if outcome.status == "fail" and check.severity == "advised" else outcome.status
    told = status in ("warn", "fail", "unknown")
    return Finding(
        id=check.id,
        node=node,
        status=status,
        title=check.title,
        observed=outcome.observed,
        expected=outcome.expected,
        severity=check.severity,
        remedy=_remedy(check, outcome, node, facts, loaded) if told else None,
        look_alike=status != "skip" and _imitated(check, node, facts),
        caused_by=_cause(check, node, facts, earlier) if told else None,
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


def _cause(check: Check, node: Node, facts: PairFacts, earlier: Sequence[Finding]) -> str | None:
    """The first dependency that is itself not well here, or what that one follows from."""
    concerned = [n for n in facts.nodes if node in ("pair", n.role)]
    if check.id != REACH and any(not n.reachable for n in concerned):
        return REACH
    for dependency in check.depends_on:
        for finding in earlier:
            same_place = "pair" in (node, finding.node) or finding.node == node
            if finding.id == dependency and same_place and finding.status in ("fail", "unknown"):
                return finding.caused_by or finding.id
    return None


def _imitated(check: Check, node: Node, facts: PairFacts) -> bool:
    return any(_node_imitates(check, n) for n in facts.nodes if node in ("pair", n.role))


def _node_imitates(check: Check, node: NodeFacts) -> bool:
    """True when the node's marker lists something that this check reads."""
    if node.system is None or node.system.look_alikes is None:
        return False
    shown: list[str] = []
    for item in node.system.look_alikes:
        shown += re.findall(r"/[^\s,]*|[A-Za-z0-9_.-]+", re.sub(r"<[^>]*>", "*", item.what))
    for read in check.reads:
        program = read.split()[0]
        if any(program.startswith(what) if what.startswith("/") else program == what for what in shown):
            return True
    return False


def _message(verdict: Verdict, findings: Sequence[Finding], nodes: Sequence[NodeReport]) -> str:
    lost = [f"{node.role} ({node.host})" for node in nodes if not node.reachable]
    totals = counts(findings)
    ran = totals["ok"] + totals["warn"] + totals["fail"]
    if lost:
        return f"no verdict: {' and '.join(lost)} not reached"
    if verdict == "blocked":
        bad = totals["fail"] or totals["warn"]
        word = "failed" if totals["fail"] else "warned, which --strict counts as failure"
        return f"{bad} of {ran} results {word}"
    if verdict == "indeterminate":
        return "no verdict: a required fact is unknown" if totals["unknown"] else "no verdict: nothing could be judged"
    warned = f", {totals['warn']} with a warning" if totals["warn"] else ""
    return f"all {ran} results are good{warned}"


def _next_step(findings: Sequence[Finding]) -> str | None:
    """The command of the first root cause, failures first."""
    for status in ("fail", "unknown", "warn"):
        for finding in findings:
            if finding.status == status and finding.caused_by is None and finding.remedy is not None:
                if finding.remedy.command is not None:
                    return shell_line(finding.remedy.command)
                return f"{finding.id} on the {finding.node}: {finding.remedy.text}"
    return None
