"""What an incident is judged from: one reading of each node, or a folder of logs that were kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from dspark_ops.config.models import ROLES, Role
from dspark_ops.doctor.incident.model import Case, Clock, Event, Source, SourceName
from dspark_ops.errors import ConfigError
from dspark_ops.facts import rank
from dspark_ops.facts.log_hits import LogFacts, parse_scan, parse_stamp
from dspark_ops.facts.log_signatures import Where, load_signatures, marks
from dspark_ops.facts.rank import RANK_CONTAINER, RankFacts
from dspark_ops.transport.base import Files, LogScan, NodeReading, Probe
from dspark_ops.transport.collector import Scan

#: How far back the kernel and the journal are read when nothing else is asked for.
WINDOW_S = 7 * 86_400
#: Lines that are brought back of each known line, and what may be read of each log.
_KEEP, _LINES, _BYTES, _TIME_S = 40, 600, 256 << 20, 20.0
_PREFIX = "incident."
_READ: dict[SourceName, tuple[Where, ...]] = {
    "engine": ("engine", "nccl"),
    "kernel": ("kernel",),
    "journal": ("journal",),
}
_SPEAKERS = (
    "sudo",
    "dockerd",
    "sshd",
    "sshd-session",
    "systemd",
    "systemd-logind",
    "systemd-oomd",
    "earlyoom",
    "chronyd",
)
_JOURNAL = ("journalctl", "-q", "--no-pager", "-o", "short-unix")
#: In a folder: the files of each log, by node and log. First as a deploy leaves them behind, then as in an archive of
#: `evidence`.
FILES: dict[SourceName, tuple[str, ...]] = {
    "engine": ("{}.log", "{}/rank.log"),
    "kernel": ("{}.kernel.log", "{}/kernel.log"),
    "journal": ("{}.journal.log", "{}/system-warnings.log"),
}
_SIGKILL = 137
#: On a rehearsal node. The kernel of such a node is its host's, and what it says is not in the node's journal.
LAB_MARKER = "/etc/dspark-lab.json"
_LAB = _PREFIX + "lab"


def probes(ago_s: float | None, container: str = RANK_CONTAINER) -> tuple[Probe, ...]:
    """What is read on a node. ago_s: no older than this; None: the whole log of the rank, a week of the others."""
    window = f"--since=-{int(ago_s if ago_s is not None else WINDOW_S)}s"
    since = () if ago_s is None else ("--since", f"{int(ago_s)}s")
    spoken = tuple(word for name in _SPEAKERS for word in ("-t", name))
    argvs: dict[SourceName, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "engine": (
            ("docker", "logs", "--timestamps", *since, container),
            ("docker", "logs", "--timestamps", *since, "--tail", "20000", container),
        ),
        "kernel": ((*_JOURNAL, window, "_TRANSPORT=kernel"), (*_JOURNAL, "-n", "5000", window, "_TRANSPORT=kernel")),
        "journal": ((*_JOURNAL, window, *spoken), (*_JOURNAL, "-n", "5000", window, *spoken)),
    }
    scans = (
        LogScan(
            _PREFIX + name,
            argv,
            marks(*_READ[name]),
            tail_argv=tail,
            timeout_s=_TIME_S,
            max_bytes=_BYTES,
            keep=_KEEP,
            max_lines=_LINES,
            root=True,
        )
        for name, (argv, tail) in argvs.items()
    )
    return (*rank.PROBES, Files(_LAB, (LAB_MARKER,)), *scans)


def case_of(
    readings: Mapping[Role, NodeReading],
    begin_s: float | None = None,
    *,
    engine_begin_s: float | None = None,
    wide: bool = False,
) -> Case:
    """The case of one reading of each node: of these probes, or of the doctor's own where it was recorded.

    begin_s: kernel and journal were asked for from then on, engine_begin_s: the rank's log; None: all of it. wide: for
    so long that a kernel that said nothing is odd.
    """
    events: list[Event] = []
    clocks, sources, asked = [], [], []
    ranks: dict[Role, RankFacts] = {}
    for role in ROLES:
        reading = readings[role]
        offset = reading.clock_offset_s
        clocks.append(Clock(node=role, offset_s=offset, uncertainty_s=reading.clock_uncertainty_s))
        for name in _READ:
            source, found = _source(role, name, reading, offset or 0.0)
            if name == "kernel" and source.problem is None and not found:
                source = source.model_copy(update={"problem": _silent(reading, wide=wide)})
            source = source.model_copy(update={"begin_s": engine_begin_s if name == "engine" else begin_s})
            sources.append(source)
            events += found
        container = rank.read_rank(reading)
        problem = None if rank.rank_known(reading) else reading.error or "the container could not be read"
        sources.append(Source(node=role, name="container", problem=problem))
        if problem is None:
            events = [_own_end(event, role, container) for event in events]
        if container is not None:
            ranks[role] = container
            events += _container_events(role, container, offset or 0.0)
            if container.ended_in_order:
                asked.append(role)
    events += _differing(ranks, events)
    return Case(events=tuple(events), clocks=tuple(clocks), sources=tuple(sources), asked_to_stop=tuple(asked))


def _source(role: Role, name: SourceName, reading: NodeReading, offset_s: float) -> tuple[Source, list[Event]]:
    result = reading.get(_PREFIX + name)
    if result.error == "not read" and name == "engine":
        result = reading.get("log.engine")
    log = parse_scan(result.text())
    if log is None:
        told = result.error or (result.stderr or "").strip() or f"ended with {result.rc}"
        return Source(node=role, name=name, problem=(reading.error if not reading.reachable else told) or told), []
    return _told(role, name, log, offset_s)


def _silent(reading: NodeReading, *, wide: bool) -> str | None:
    """Why a kernel's log in which nothing was found cannot be taken for a quiet kernel; None where it can."""
    if LAB_MARKER in (reading.get(_LAB).files or {}):
        return "a rehearsal node shares its host's kernel"
    log = parse_scan(reading.get(_PREFIX + "kernel").text())
    return "it is empty" if wide and log is not None and log.bytes_read == 0 else None


def _told(role: Role, name: SourceName, log: LogFacts, offset_s: float) -> tuple[Source, list[Event]]:
    reached = None if log.reached_s is None else log.reached_s - offset_s
    source = Source(node=role, name=name, cut=log.cut, reached_s=reached)
    signatures, events = load_signatures(), []
    for hit in log.hits:
        signature = signatures.get(hit.signature)
        if signature is None:
            continue  # a recording of another version may know lines that this one does not
        for index, line in enumerate(hit.lines):
            at_s = None if line.at_s is None else line.at_s - offset_s
            event = _event(role, name, signature.id, at_s, line.text, hit.count)
            events.append(event.model_copy(update={"resumes": index == hit.resumes_at}))
    return source, events


def _event(role: Role, name: SourceName, signature: str, at_s: float | None, line: str, count: int = 1) -> Event:
    known = load_signatures()[signature]
    return Event(
        at_s=at_s,
        node=role,
        source=name,
        where=known.where,
        signature=known.id,
        kind=known.kind,
        means=known.means,
        check=known.check,
        known=known.known,
        line=line,
        count=count,
    )


def _container_events(role: Role, found: RankFacts, offset_s: float) -> Iterator[Event]:
    began, ended = parse_stamp(found.started_at), parse_stamp(found.finished_at)
    if began is not None and began > 0:
        yield _event(role, "container", "container_began", began - offset_s, f"started at {found.started_at}")
    if found.running is not False or found.ended_in_order or ended is None or ended <= 0:
        return
    line = f"ended at {found.finished_at} with exit code {found.exit_code}, OOMKilled {found.oom_killed}"
    name = "container_ended"
    if found.oom_killed:
        name = "container_oom"
    elif found.exit_code == _SIGKILL:
        name = "container_killed"
    yield _event(role, "container", name, ended - offset_s, line)


def _own_end(event: Event, role: Role, container: RankFacts | None) -> Event:
    """The journal's word of a container's end is a sign of failure only where it is of the rank's own container."""
    if event.node != role or event.signature != "container_exit_seen":
        return event
    if container is not None and container.id[:12] in event.line:
        return event
    return event.model_copy(update={"kind": "context"})


def _differing(ranks: Mapping[Role, RankFacts], events: list[Event]) -> list[Event]:
    """That the ranks run different images, told at the moment when the later one was started."""
    images = {role: found.image_id for role, found in ranks.items() if found.image_id is not None}
    began = [e.at_s for e in events if e.signature == "container_began" and e.at_s is not None]
    if len(images) < len(ROLES) or len(set(images.values())) == 1:
        return []
    line = f"head {images['head']}, worker {images['worker']}"
    return [_event("worker", "container", "images_differ", max(began, default=None), line)]


def case_of_folder(folder: Path) -> Case:
    """The case of logs that were kept: head.log and worker.log with Docker's time stamps; *.kernel.log and
    *.journal.log of `journalctl -o short-unix` or `short-iso-precise` where they are there; or an unpacked archive of
    `evidence`. Nothing tells how the clocks stood.

    Raises:
        ConfigError: the folder holds no log of a rank.
    """
    events: list[Event] = []
    sources: list[Source] = []
    for role in ROLES:
        for name, patterns in FILES.items():
            paths = [folder / pattern.format(role) for pattern in patterns]
            path = next((p for p in paths if p.exists()), paths[0])
            try:
                log = scan_file(path, name)
            except OSError as error:
                sources.append(Source(node=role, name=name, problem=f"{path.name}: {error.strerror or error}"))
                continue
            source, found = _told(role, name, log, 0.0)
            sources.append(source)
            events += found
    if all(source.problem for source in sources if source.name == "engine"):
        raise ConfigError(
            f"{folder} holds neither head.log nor worker.log",
            hint="name a folder of the state directory's evidence, or one with both files",
        )
    return Case(events=tuple(events), clocks=tuple(Clock(node=role) for role in ROLES), sources=tuple(sources))


def scan_file(path: Path, name: SourceName) -> LogFacts:
    """The known lines of a log in a file, by the same program that a node runs, in bounded memory.

    Raises:
        OSError: it cannot be read.
    """
    scan = Scan([list(mark) for mark in marks(*_READ[name])], _KEEP)
    size, rest = 0, b""
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            size += len(chunk)
            block = rest + chunk
            whole = len(block) if len(block) > 1 << 21 else block.rfind(b"\n") + 1
            rest = block[whole:]
            scan.take(block[:whole], "", float("inf"))
        scan.take(rest, "", float("inf"))
    return _scanned(scan, size)


def _scanned(scan: Scan, size: int) -> LogFacts:
    """The facts of a scan that came to its end."""
    ends = {"from": scan.first, "until": scan.last, "reached": scan.last}
    found = parse_scan(json.dumps({"marks": scan.found, "bytes": size, "cut": None, **ends}))
    return found or LogFacts()
