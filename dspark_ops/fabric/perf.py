"""`fabric test`: what the rails carry, one by one and together, with the counters of both nodes around every run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, RailSite, Role, Site
from dspark_ops.errors import ConfigError, NoVerdictError, RefusedError
from dspark_ops.fabric.idle import engines_in_the_way
from dspark_ops.fabric.perf_rules import RailRun, TrafficRun, judge_test
from dspark_ops.fabric.selection import hca_of_rail, split_ports
from dspark_ops.fabric.split import SplitResult, measure_split
from dspark_ops.fabric.split_rules import judge_errors, judge_match
from dspark_ops.fabric.traffic import Load, Program, RailEndpoint, RailPath, run_traffic
from dspark_ops.fabric.watch import imitates_rdma, node_reports, snap
from dspark_ops.facts import docker_engine, gpu, links, listeners, rdma, system
from dspark_ops.facts.counters import NodeCounters
from dspark_ops.facts.gids import roce_v2_indexes
from dspark_ops.facts.snapshot import NodeFacts, PairFacts, pair_from
from dspark_ops.report.models import Finding, Measurement, Remedy, Report, Verdict, judge
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.base import Command, NodeReading, Probe
from dspark_ops.transport.ssh import SshRunner, open_runner, read_nodes

VERB = "fabric test"
Consent = Callable[[str], None]
_FIRST_PORT, _LAST_PORT = 18515, 19515  # from perftest's own default on, where free
_PROGRAMS: tuple[Program, ...] = ("ib_write_bw", "ib_write_lat")
# Only what the guards and the rails need, and with time: a slow node must not lose a fact without which we refuse.
_GUARD_TIMEOUT_S = 20.0
_NEEDED: tuple[Probe, ...] = (
    *(probe for probe in docker_engine.PROBES if probe.id == "docker.ps"),
    *gpu.PROBES,
    *rdma.PROBES,
    *(probe for probe in links.PROBES if probe.id == "links.sysfs"),
    *listeners.PROBES,
    *(probe for probe in system.PROBES if probe.id == "system.files"),
    *(Command(f"perf.{program}", (program, "--version")) for program in _PROGRAMS),
)
_PROBES: tuple[Probe, ...] = tuple(
    replace(probe, timeout_s=_GUARD_TIMEOUT_S) if isinstance(probe, Command) else probe for probe in _NEEDED
)


@dataclass
class _Session:
    site: Site
    runners: dict[Role, SshRunner]
    record: Recorder
    facts: PairFacts
    load: Load
    ports: Iterator[int]
    snapshots: list[dict[Role, NodeCounters]] = field(default_factory=list)
    runs: list[TrafficRun] = field(default_factory=list)

    def run(self, title: str, rails: Sequence[RailPath], *, program: Program = "ib_write_bw", server: Role) -> None:
        """One run with the counters before and after; the runs follow each other, so one reading serves two."""
        with self.record.phase(title) as note:
            # Never the same port twice: a server whose client did not come lives on until its time limit.
            ports = list(islice(self.ports, len(rails)))
            results = run_traffic(program, rails, self.runners, server=server, ports=ports, load=self.load)
            self.snapshots.append(snap(self.runners))
            split = self.between(-2, -1)
            self.runs.append(
                TrafficRun(
                    title=title,
                    program=program,
                    server=server,
                    rails=tuple(RailRun(rail, result) for rail, result in zip(rails, results, strict=True)),
                    split=split,
                )
            )
            numbers = [value for r in results if (value := r.gbps or r.typical_us) is not None]
            unit = "us" if program == "ib_write_lat" else "Gb/s"
            worst = max(numbers, default=0.0) if unit == "us" else sum(numbers)
            note.detail = f"{worst:.4g} {unit}" if len(numbers) == len(results) else "no result"

    def between(self, first: int, last: int) -> SplitResult:
        return measure_split(split_ports(self.site, self.facts), self.snapshots[first], self.snapshots[last])


def run_test(
    loaded: LoadedSite,
    *,
    seconds: int = 3,
    size_bytes: int = 65536,
    queue_pairs: int = 4,
    progress: Progress,
    consent: Consent,
    strict: bool = False,
) -> Report:
    """Load every rail alone, every cable, all rails together, and all of them the other way; judge by the bands.

    consent: is shown the plan and raises RefusedError where the operator says no.

    Raises:
        ConfigError: a number is out of range; nothing was contacted.
        RefusedError: an engine serves or starts on a node, or that cannot be told.
        NoVerdictError: a node was not reached, or has no perftest.
    """
    if not 1 <= seconds <= 60 or not 2 <= size_bytes <= 1 << 23 or not 1 <= queue_pairs <= 64:
        raise ConfigError(
            f"{seconds} s of {size_bytes} bytes over {queue_pairs} queue pairs; expected 1 to 60 s, 2 to {1 << 23} "
            "bytes, 1 to 64 queue pairs"
        )
    site = loaded.site
    record = Recorder(verb=VERB, site=site.name, progress=progress)
    runners = {role: open_runner(site, role) for role in ROLES}
    try:
        return _test(site, runners, record, Load(seconds, size_bytes, queue_pairs), consent, strict=strict)
    finally:
        for runner in runners.values():
            runner.close()


def _test(
    site: Site, runners: dict[Role, SshRunner], record: Recorder, load: Load, consent: Consent, *, strict: bool
) -> Report:
    with record.phase("look for engines"):
        readings = read_nodes(runners, dict.fromkeys(ROLES, _PROBES))
        facts = pair_from(site, readings)
        record.nodes = node_reports(facts)
        _require(site, facts, readings)
    rails: list[RailPath] = []
    for rail in site.fabric.rails:
        found = _rail_path(rail, facts)
        if isinstance(found, RailPath):
            rails.append(found)
        else:
            record.findings.append(found)
    no_band = _no_band(facts, rails)
    if rails:
        consent(_plan(site, rails, load))
        taken = {item.port for node in facts.nodes for item in node.listeners or ()}
        ports = (port for port in range(_FIRST_PORT, _LAST_PORT) if port not in taken)
        session = _Session(site, runners, record, facts, load, ports)
        session.snapshots.append(snap(runners))
        _run_all(session, rails)
        imitated = tuple(role for role in ROLES if imitates_rdma(facts.of(role)))
        record.findings += judge_test(session.runs, no_band=no_band, look_alike=bool(imitated))
        whole = session.between(0, -1)
        record.findings += judge_errors(whole, look_alikes=imitated)
        match = judge_match(site, whole, look_alike=bool(imitated))
        record.findings += [match] if match is not None else []
        return _report(record, no_band, _measurements(session.runs), strict=strict)
    return _report(record, no_band, (), strict=strict)


def _run_all(session: _Session, rails: Sequence[RailPath]) -> None:
    for rail in rails:
        session.run(f"rail {rail.name}", [rail], server="worker")
        session.run(f"latency over rail {rail.name}", [rail], program="ib_write_lat", server="worker")
    cages = list(dict.fromkeys(rail.cage for rail in rails))
    if len(cages) > 1:
        for cage in cages:
            twins = [rail for rail in rails if rail.cage == cage]
            if cage is not None and len(twins) == 2:
                session.run(f"cable of cage {cage}", twins, server="worker")
    if len(rails) > 1:
        session.run("all rails", rails, server="worker")
        session.run("all rails, the other way", rails, server="head")


def _require(site: Site, facts: PairFacts, readings: dict[Role, NodeReading]) -> None:
    lost = [f"{node.role} ({node.host}): {node.error or 'not reached'}" for node in facts.nodes if not node.reachable]
    if lost:
        raise NoVerdictError("; ".join(lost), hint=next((node.hint for node in facts.nodes if node.hint), None))
    busy = engines_in_the_way(site, facts)
    if busy:
        raise RefusedError(
            "traffic on the rails would disturb, or be disturbed by, what runs there: " + "; ".join(busy),
            hint="stop the pair first (`dspark-ops stop`), or look at it while it serves: `dspark-ops fabric watch`",
        )
    missing = [
        role
        for role in ROLES
        if any("no such program" in (readings[role].get(f"perf.{program}").error or "") for program in _PROGRAMS)
    ]
    if missing:
        raise NoVerdictError(
            f"{' and '.join(missing)}: {' or '.join(_PROGRAMS)} is not there, expected perftest on both nodes",
            hint="`sudo apt-get install perftest` on both nodes",
        )


def _rail_path(rail: RailSite, facts: PairFacts) -> RailPath | Finding:
    """The two ends of a rail, or what is missing for traffic over it."""
    ends: dict[Role, RailEndpoint] = {}
    problems: list[str] = []
    for role in ROLES:
        found = _endpoint(rail, facts.of(role))
        if isinstance(found, RailEndpoint):
            ends[role] = found
        else:
            problems.append(f"{role}: {found}")
    if problems:
        return Finding(
            id="fabric.test_rail",
            node="pair",
            status="unknown",
            title=f"Rail {rail.name} can be loaded",
            observed="; ".join(problems),
            expected="an ACTIVE device with a RoCE v2 GID of the planned address at both ends",
            remedy=Remedy(
                text="Bring the rail up first.", command=("dspark-ops", "fabric", "verify"), remedy_class="M"
            ),
        )
    devices = {role: hca_of_rail(rail, facts.of(role)) for role in ROLES}
    soft = any(device is not None and device.driver == "rxe" for device in devices.values())
    cage, half = (devices["head"].cage, devices["head"].half) if devices["head"] is not None else (None, None)
    return RailPath(rail.name, ends["head"], ends["worker"], cage, half, soft)


def _endpoint(rail: RailSite, node: NodeFacts) -> RailEndpoint | str:
    end = rail.of(node.role)
    if node.rdma is None:
        return "the RDMA devices could not be read"
    hca = hca_of_rail(rail, node)
    if hca is None:
        return f"{end.netdev} has no RDMA device"
    if hca.active is not True:
        return f"{hca.name} is {hca.state or 'in an unknown state'}"
    indexes = roce_v2_indexes(hca.gids, end.netdev, end.address.ip)
    if not indexes:
        return f"{hca.name} has no RoCE v2 GID of {end.address.ip}"
    return RailEndpoint(hca.name, indexes[0], end.address.ip)


def _no_band(facts: PairFacts, rails: Sequence[RailPath]) -> str | None:
    """Why the hardware's bands do not fit here, or None: they fit a ConnectX-7 of a real machine only."""
    if any(node.system is None for node in facts.nodes):
        return "it is not known whether this is a rehearsal"
    if any(rail.soft for rail in rails):
        return "soft-RoCE"
    if any(node.system is not None and node.system.look_alikes is not None for node in facts.nodes):
        return "rehearsal"
    for rail in rails:
        for node in facts.nodes:
            device = node.hca(rail.of(node.role).hca)
            if device is None or device.driver != "mlx5":
                return f"the driver of {rail.of(node.role).hca} on the {node.role} is not known to be mlx5"
    return None


def _plan(site: Site, rails: Sequence[RailPath], load: Load) -> str:
    names = ", ".join(rail.name for rail in rails)
    return (
        f"fabric test on {site.nodes.head.host} and {site.nodes.worker.host}: RDMA write traffic of up to "
        f"{load.seconds} s a run over {names}, each alone and all together, both ways. Nothing is changed; other "
        "traffic on the rails would suffer."
    )


def _measurements(runs: Sequence[TrafficRun]) -> tuple[Measurement, ...]:
    found: list[Measurement] = []
    for run in runs:
        latency = run.program == "ib_write_lat"
        what, unit = ("latency", "us") if latency else ("bandwidth", "Gb/s")
        for item in run.rails:
            subject = run.title if len(run.rails) == 1 else f"{run.title}: {item.rail.name}"
            value = item.result.typical_us if latency else item.result.gbps
            found.append(Measurement(node="pair", subject=subject, what=what, value=value, unit=unit))
            sent = None if latency else run.counted_bytes(item.rail)
            if sent is not None:
                found.append(Measurement(node="pair", subject=subject, what="counted", value=sent / 1e6, unit="MB"))
        if len(run.rails) > 1:
            found.append(Measurement(node="pair", subject=run.title, what=what, value=run.sum_gbps, unit=unit))
    return tuple(found)


def _report(record: Recorder, no_band: str | None, measured: tuple[Measurement, ...], *, strict: bool) -> Report:
    verdict, code = judge(record.findings, record.nodes)
    if strict and code == 0 and any(f.status == "warn" for f in record.findings):
        verdict, code = "blocked", type(code).VERDICT_BAD
    report = record.report(verdict, code, _message(verdict, record.findings, no_band), next_step=_next(record.findings))
    return report.model_copy(update={"measurements": measured})


def _message(verdict: Verdict, findings: Sequence[Finding], no_band: str | None) -> str:
    def first(status: str) -> str:
        return next((f.observed for f in findings if f.status == status), "nothing was measured")

    if any(f.status == "fail" for f in findings):
        return f"the fabric is not what it should be: {first('fail')}"
    if verdict == "indeterminate":
        return f"no verdict: {first('unknown')}"
    if no_band is not None:
        return f"every rail carries RDMA traffic; judged against no band: {no_band}"
    if any(f.status == "warn" for f in findings):
        return f"the fabric works, below what it can do: {first('warn')}"
    return "the fabric carries what a healthy pair carries"


def _next(findings: Sequence[Finding]) -> str | None:
    for status in ("fail", "unknown", "warn"):
        for finding in findings:
            if finding.status == status and finding.remedy is not None:
                return finding.remedy.text
    return None
