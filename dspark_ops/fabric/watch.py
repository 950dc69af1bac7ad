"""`fabric watch`: how the bytes of a running pair spread, from two readings of the counters of both nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import ConfigError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.fabric.gid_drift import judge_drift
from dspark_ops.fabric.selection import split_ports
from dspark_ops.fabric.split import SplitResult, measure_split
from dspark_ops.fabric.split_rules import LIVE_FLOOR_BYTES, judge_errors, judge_match, judge_split
from dspark_ops.facts import counters, links, rank, rdma, system
from dspark_ops.facts.counters import NodeCounters, read_counters
from dspark_ops.facts.snapshot import NodeFacts, PairFacts, pair_from
from dspark_ops.report.models import Finding, Measurement, NodeReport, Report, Verdict, judge
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.base import Probe
from dspark_ops.transport.ssh import SshRunner, open_runner, read_nodes

VERB = "fabric watch"
LONGEST_S = 3600.0
_PLACES: tuple[Probe, ...] = (*rank.PROBES, *rdma.PROBES, *links.PROBES, *system.PROBES)


def watch(
    loaded: LoadedSite,
    *,
    seconds: float,
    progress: Progress,
    floor_bytes: int = LIVE_FLOOR_BYTES,
    strict: bool = False,
    wait: Callable[[float], object] | None = None,
) -> Report:
    """Read both nodes, wait, read again, judge. Ctrl-C ends the waiting: what was seen until then is reported.

    strict: a warning is as bad as a failure. wait: sleeps for so many seconds; for tests.

    Raises:
        ConfigError: seconds is not 1 to 3600, or the floor is negative; nothing was contacted.
    """
    if not 1 <= seconds <= LONGEST_S or floor_bytes < 0:
        raise ConfigError(
            f"--seconds {seconds:g} with a floor of {floor_bytes} bytes; expected 1 to {LONGEST_S:g} seconds and no "
            "negative floor"
        )
    site = loaded.site
    record = Recorder(verb=VERB, site=site.name, progress=progress)
    runners = {role: open_runner(site, role) for role in ROLES}
    try:
        return _watch(site, runners, record, seconds, floor_bytes, strict=strict, wait=wait or threading.Event().wait)
    finally:
        for runner in runners.values():
            runner.close()


def _watch(
    site: Site,
    runners: dict[Role, SshRunner],
    record: Recorder,
    seconds: float,
    floor_bytes: int,
    *,
    strict: bool,
    wait: Callable[[float], object],
) -> Report:
    with record.phase("first reading"):
        facts = _facts(site, runners)
        record.nodes = node_reports(facts)
        if not all(node.reachable for node in facts.nodes):
            return _lost(record, facts)
        before = snap(runners)
    interrupted = False
    try:
        with record.phase(f"waiting {seconds:g} s"):
            wait(seconds)
    except KeyboardInterrupt:
        interrupted = True
    with record.phase("second reading"):
        after = snap(runners)
        later = _facts(site, runners)
    ports = split_ports(site, facts)
    result = measure_split(ports, before, after)
    imitated = tuple(role for role in ROLES if imitates_rdma(facts.of(role)))
    record.findings += judge_split(result, floor_bytes=floor_bytes, look_alikes=imitated)
    record.findings += judge_errors(result, look_alikes=imitated)
    match = judge_match(site, result, look_alike=bool(imitated))
    record.findings += [match] if match is not None else []
    record.findings += judge_drift(site, facts, later)
    verdict, code = judge(record.findings, node_reports(later))
    if strict and code == ExitCode.OK and any(f.status == "warn" for f in record.findings):
        verdict, code = "blocked", ExitCode.VERDICT_BAD
    message = _message(verdict, record.findings)
    if interrupted:
        verdict, code, message = (
            "interrupted",
            ExitCode.INTERRUPTED,
            f"interrupted while waiting; until then: {message}",
        )
    report = record.report(verdict, code, message, next_step=_next_step(record.findings))
    return report.model_copy(update={"measurements": split_measurements(result)})


def _facts(site: Site, runners: dict[Role, SshRunner]) -> PairFacts:
    return pair_from(site, read_nodes(runners, dict.fromkeys(ROLES, _PLACES)))


def snap(runners: dict[Role, SshRunner]) -> dict[Role, NodeCounters]:
    """The counters of both nodes, read at the same time and with nothing else: over sessions that are open already."""
    readings = read_nodes(runners, dict.fromkeys(ROLES, counters.PROBES))
    return {role: read_counters(readings[role]) for role in ROLES}


def node_reports(facts: PairFacts) -> tuple[NodeReport, ...]:
    """Both nodes as they were met."""
    return tuple(
        NodeReport(role=n.role, host=n.host, reachable=n.reachable, error=n.error, round_trip_s=n.round_trip_s)
        for n in facts.nodes
    )


def imitates_rdma(node: NodeFacts) -> bool:
    """True when the node says that its RDMA tree is a look-alike."""
    shown = node.system.look_alikes if node.system is not None else None
    return any(item.what == "/" or "/sys/class/infiniband" in item.what for item in shown or ())


def split_measurements(result: SplitResult) -> tuple[Measurement, ...]:
    """Share and rate of every device that has a rail or carried something."""
    found: list[Measurement] = []
    for node in result.nodes:
        for device in sorted(node.devices, key=lambda d: (d.cage is None, d.cage or 0, d.half or "", d.hca)):
            if device.rail is None and not device.sum_bytes:
                continue
            place = f"{device.rail or 'no rail'} {device.hca}"
            if device.cage is not None and device.half is not None:
                place += f" cage {device.cage} half {device.half}"
            columns: tuple[tuple[str, float | None, str], ...] = (
                ("share", device.share_percent, "%"),
                ("sent", device.xmit_gbps, "Gb/s"),
                ("received", device.rcv_gbps, "Gb/s"),
                ("sent", None if device.xmit_bytes is None else device.xmit_bytes / 1e6, "MB"),
                ("received", None if device.rcv_bytes is None else device.rcv_bytes / 1e6, "MB"),
            )
            if device.sum_bytes is None:
                columns = (("sent", device.xmit_packets, "packets"), ("received", device.rcv_packets, "packets"))
            found += [
                Measurement(node=node.role, subject=place, what=what, value=value, unit=unit)
                for what, value, unit in columns
            ]
        found += [
            Measurement(node=node.role, subject=f"cage {cage}", what="share", value=share, unit="%")
            for cage, share in sorted(node.cages.items())
        ]
        found += [
            Measurement(node=node.role, subject=f"half {half}", what="share", value=share, unit="%")
            for half, share in sorted(node.halves.items())
        ]
    return tuple(found)


def _lost(record: Recorder, facts: PairFacts) -> Report:
    lost = [f"{node.role} ({node.host}): {node.error or 'not reached'}" for node in facts.nodes if not node.reachable]
    hint = next((node.hint for node in facts.nodes if node.hint), None)
    return record.report("indeterminate", ExitCode.NO_VERDICT, "; ".join(lost), next_step=hint)


def _message(verdict: Verdict, findings: Iterable[Finding]) -> str:
    titles = {status: [f for f in findings if f.status == status] for status in ("fail", "unknown", "warn")}
    if titles["fail"]:
        return f"the split is wrong: {_first(titles['fail'])}"
    if verdict == "indeterminate":
        return f"no verdict: {_first(titles['unknown'])}"
    if titles["warn"]:
        return f"the rails work, but not all is well: {_first(titles['warn'])}"
    return "the bytes spread over the rails as they should"


def _first(findings: list[Finding]) -> str:
    if not findings:
        return "nothing could be judged"
    return f"{findings[0].node}: {findings[0].observed}"


def _next_step(findings: Iterable[Finding]) -> str | None:
    for status in ("fail", "unknown", "warn"):
        for finding in findings:
            if finding.status == status and finding.caused_by is None and finding.remedy is not None:
                return finding.remedy.text
    return None
