"""Two nodes that answer probes: the recorded rehearsal pair, made idle or hardware-like, with counters that move."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dspark_ops.config.models import ROLES, Role
from dspark_ops.transport.base import Command, NodeReading, Probe, ProbeResult
from tests.unit.facts.captures import FIXTURES

DEVICES = ("rocep1s0f0", "roceP2p1s0f0", "rocep1s0f1", "roceP2p1s0f1")
ROOT = "/sys/class/infiniband"
BW = """ Mtu             : 4096[B]
 Number of qps   : 4            Transport type : IB
 #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]
 65536      20000            0.00             {value}              0.213070
"""
LAT = """ #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]
 2       1000          1.42           1.93         {value}                1.47
"""


@dataclass
class Wire:
    """What both ends share: the ports that are listened on, and the clients that have come."""

    listening: set[str] = field(default_factory=set)
    came: threading.Condition = field(default_factory=threading.Condition)
    clients: set[str] = field(default_factory=set)


@dataclass
class PlayedNode:
    """One node. gbps: what a client on this node measures over how many rails at once; words: added to the counters
    of each device at every reading; errors: likewise, of one error counter."""

    node: Role
    wire: Wire
    gbps: Callable[[str, int], float] = lambda _device, _rails: 98.0
    latency_us: float = 1.5
    words: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DEVICES, 250_000_000))
    errors: dict[str, int] = field(default_factory=dict)
    hardware: bool = True
    serving: bool = False
    broken: str | None = None
    asked: list[tuple[str, ...]] = field(default_factory=list)
    drop: tuple[str, ...] = ()
    boot: str = "one"
    gids_move: bool = False
    _readings: int = 0
    _looks: int = 0

    def read(self, probes: Sequence[Probe], *, timeout_s: float = 60.0) -> NodeReading:  # noqa: ARG002
        recorded = NodeReading.model_validate_json((FIXTURES / f"rehearsal/{self.node}.json").read_text("utf-8"))
        commands = [p for p in probes if isinstance(p, Command) and p.argv[0] == "timeout"]
        self.asked += [command.argv for command in commands]
        if commands:
            results = self._traffic(commands)
        else:
            results = {p.id: self._answer(p, recorded) for p in probes if p.id not in self.drop}
        return recorded.model_copy(update={"results": results, "elapsed_s": 0.1})

    def close(self) -> None:
        with self.wire.came:
            self.wire.came.notify_all()

    def _answer(self, probe: Probe, recorded: NodeReading) -> ProbeResult:
        if probe.id == "counters.files":
            return ProbeResult(id=probe.id, files=self._counters())
        if probe.id == "perf.ports":
            lines = [f"LISTEN 0 128 0.0.0.0:{port} 0.0.0.0:*" for port in sorted(self.wire.listening)]
            return ProbeResult(id=probe.id, rc=0, stdout="\n".join(lines))
        if probe.id.startswith("perf."):
            return ProbeResult(id=probe.id, rc=0, stdout="Version: 6.20\n")
        result = recorded.get(probe.id)
        if not self.serving and probe.id in ("docker.ps", "listeners.tcp", "rank.inspect", "rank.top", "rank.tail"):
            empty = "Error: No such container: dspark-rank"
            gone = probe.id.startswith("rank.")
            return ProbeResult(id=probe.id, rc=1 if gone else 0, stdout="", stderr=empty if gone else "")
        if self.hardware and probe.id == "system.files":
            files = {path: text for path, text in (result.files or {}).items() if path != "/etc/dspark-lab.json"}
            return result.model_copy(update={"files": files})
        if probe.id == "rdma.devices":
            drivers = {f"{ROOT}/{d}/device/driver": "/sys/bus/pci/drivers/mlx5_core" for d in DEVICES}
            return result.model_copy(update={"files": {**(result.files or {}), **drivers}})
        if probe.id == "rdma.files":
            self._looks += 1
            if self.gids_move and self._looks > 1:
                return result.model_copy(update={"files": moved_gids(result.files or {})})
        return result

    def _counters(self) -> dict[str, str]:
        self._readings += 1
        boot = self.boot if self._readings == 1 or self.boot == "one" else f"{self.boot}-{self._readings}"
        files = {"/proc/uptime": f"{100.0 + 5 * self._readings} 1.0\n", "/proc/sys/kernel/random/boot_id": boot}
        for device in DEVICES:
            base = f"{ROOT}/{device}/ports/1"
            for name in ("port_xmit_data", "port_rcv_data"):
                files[f"{base}/counters/{name}"] = str(self.words.get(device, 0) * self._readings)
            files[f"{base}/hw_counters/packet_seq_err"] = str(self.errors.get(device, 0) * self._readings)
        return files

    def _traffic(self, commands: Sequence[Command]) -> dict[str, ProbeResult]:
        if self.broken is not None:
            return {c.id: ProbeResult(id=c.id, rc=1, stdout=self.broken, stderr="") for c in commands}
        ports = {c.argv[c.argv.index("-p") + 1] for c in commands}
        client = commands[0].argv[-1].count(".") == 3
        with self.wire.came:
            if client:
                assert ports <= self.wire.listening, "a client came before its server listened"
                self.wire.clients |= ports
                self.wire.came.notify_all()
            else:
                self.wire.listening |= ports
                self.wire.came.wait_for(lambda: ports <= self.wire.clients, timeout=10)
                self.wire.listening -= ports
                self.wire.clients -= ports
        shape, value = (LAT, lambda _device: self.latency_us) if "ib_write_lat" in commands[0].argv else (BW, None)
        found = {}
        for c in commands:
            device = c.argv[c.argv.index("-d") + 1]
            number = value(device) if value else self.gbps(device, len(commands))
            found[c.id] = ProbeResult(id=c.id, rc=0, stdout=shape.format(value=number) if client else "", stderr="")
        return found


def moved_gids(files: dict[str, str]) -> dict[str, str]:
    """The GID tables with the entry of index 3 at index 4."""
    moved = {}
    for path, text in files.items():
        folder, _, last = path.rpartition("/")
        if last == "4" and "/gid" in folder:
            continue
        moved[f"{folder}/4" if last == "3" and "/gid" in folder else path] = text
    return moved


def played_pair(**options: object) -> dict[Role, PlayedNode]:
    """Both nodes over one wire; the same options for both."""
    wire = Wire()
    return {role: PlayedNode(node=role, wire=wire, **options) for role in ROLES}  # type: ignore[arg-type]
