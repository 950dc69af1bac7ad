"""The VM pair: bring it up, set it back to its snapshot, pull its cables, take it away."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dspark_ops.errors import ConfigError, NoVerdictError, RefusedError
from dspark_ops.lab import prerequisites
from dspark_ops.lab.lab_lock import lab_lock
from dspark_ops.lab.layout import NODES, Node
from dspark_ops.lab.models import DownReport
from dspark_ops.lab.record import longest, read_model, write_model
from dspark_ops.lab.ssh_access import Endpoint, answers, ask, write_endpoints
from dspark_ops.lab.teardown import remove_if_empty, tree_bytes
from dspark_ops.lab.vm import machine
from dspark_ops.lab.vm.base_image import BaseImage, ensure_base_image
from dspark_ops.lab.vm.disks import DiskRecord, host_keys, make_disks, mark_saved, read_disks, wanted
from dspark_ops.lab.vm.inspect import inspect
from dspark_ops.lab.vm.layout import RAILS, SNAPSHOT, VmPaths, rails_named, vm_paths
from dspark_ops.lab.vm.machine import Machine
from dspark_ops.lab.vm.models import VmRecord, VmStatus
from dspark_ops.lab.vm.monitor import Monitor

Progress = Callable[[str], None]
_WAIT_FOR_LOCK_S = 900.0
_BOOT_TIMEOUT_S = 400.0
_RESUME_TIMEOUT_S = 120.0
_ENGINE_TIMEOUT_S = 180


def _silent(_: str) -> None:
    """Progress that nobody reads."""


def up(*, cables: int = 2, install_prerequisites: bool = False, progress: Progress = _silent) -> VmStatus:
    """Bring the VM pair up from its snapshot, or make image, disks and snapshot first; the pair as it is then.

    Interrupted runs are finished. A second call on a pair that is up changes nothing: `changed` is empty. A VM that
    ended meanwhile starts from the snapshot again; one that runs keeps what was done to it.
    """
    if cables not in (1, 2):
        raise ConfigError(f"--cables is 1 or 2, not {cables}", hint="a DGX Spark has two QSFP cages")
    with _locked(progress) as paths:
        paths.log.mkdir(parents=True, exist_ok=True)
        paths.state.chmod(0o700)
        return _Bringing(paths, progress).up(cables=cables, install=install_prerequisites)


def status() -> VmStatus:
    """The VM pair as it is now; reads only."""
    prerequisites.require_linux_root()
    return inspect(vm_paths())


def reset(*, progress: Progress = _silent) -> VmStatus:
    """Set both VMs back to the clean snapshot, memory and disk, with the cables as they are wanted now."""
    with _locked(progress) as paths:
        disks = read_disks(paths)
        if disks is None or not disks.saved or any(machine.pid(paths, node) is None for node in NODES):
            raise RefusedError("the VM pair is not up", hint="`dspark-ops lab up --vm` starts it from the snapshot")
        record = read_model(paths.record, VmRecord) or VmRecord()
        began = time.monotonic()
        with _monitors(paths, NODES) as monitors:
            for monitor in monitors:
                monitor.pause()
            for monitor in monitors:
                monitor.load(SNAPSHOT)
            _set_links(monitors, record.pulled)
            for monitor in monitors:
                monitor.resume()
        _wait_until_ready(paths, NODES, timeout_s=_RESUME_TIMEOUT_S)
        seconds = {"reset": round(time.monotonic() - began, 2)}
        return inspect(paths).model_copy(update={"changed": ("back to the clean snapshot",), "phases_s": seconds})


def set_cable(name: str, *, plugged: bool, progress: Progress = _silent) -> VmStatus:
    """Plug or pull a rail by its port's name, or both twins by the cable's number; at both ends, as a cable is."""
    rails = rails_named(name)
    with _locked(progress) as paths:
        if any(machine.pid(paths, node) is None for node in NODES):
            raise RefusedError("the VM pair is not up", hint="`dspark-ops lab up --vm`")
        record = read_model(paths.record, VmRecord) or VmRecord()
        touched = {rail.name for rail in rails}
        changed = sorted(touched & set(record.pulled) if plugged else touched - set(record.pulled))
        pulled = (set(record.pulled) - touched) if plugged else (set(record.pulled) | touched)
        _apply_links(paths, record, tuple(sorted(pulled)))
        what = "plugged" if plugged else "pulled"
        return inspect(paths).model_copy(update={"changed": tuple(f"{port} {what}" for port in changed)})


def down(*, purge: bool = False, progress: Progress = _silent) -> DownReport:
    """End both VMs and remove their state; disks, snapshot and base image stay in the cache unless `purge`."""
    with _locked(progress) as paths:
        removed = [f"VM {node.name}" for node in NODES if machine.stop(paths, node)]
        if paths.state.exists():
            shutil.rmtree(paths.state)
            removed.append(f"directory {paths.state}")
        if purge and paths.cache.exists():
            shutil.rmtree(paths.cache)
            removed.append(f"build cache {paths.cache}")
            remove_if_empty(paths.cache.parent)
        paths.lock.unlink(missing_ok=True)
        remove_if_empty(paths.lock.parent)
        kept = paths.cache if paths.cache.is_dir() else None
        return DownReport(removed=tuple(removed), left=(), cache=kept, cache_bytes=tree_bytes(kept) if kept else None)


class _Bringing:
    """One `lab up --vm`: what it changed and how long each phase took."""

    def __init__(self, paths: VmPaths, progress: Progress) -> None:
        self._paths = paths
        self._progress = progress
        self._changed: list[str] = []
        self._phases: dict[str, float] = {}

    def up(self, *, cables: int, install: bool) -> VmStatus:
        paths = self._paths
        with self._phase("prerequisites"):
            prerequisites.ensure_all(
                prerequisites.FOR_VMS, install=install, verb="dspark-ops lab up --vm", progress=self._progress
            )
        with self._phase("base image"):
            image, built = ensure_base_image(paths, progress=self._progress)
        self._changed += ["base image built"] if built else []
        needed = wanted(image, machine.version(), machine.acceleration())
        disks = read_disks(paths)
        if disks is None or disks.model_copy(update={"saved": False}) != needed:
            self._stop("of an older image")
            disks = None
        if disks is None or not disks.saved:
            self._first_boot(image, needed, made=disks is not None)
        else:
            with self._phase("start from snapshot"):
                self._resume(image)
        record = read_model(paths.record, VmRecord) or VmRecord()
        pulled = tuple(sorted(rail.name for rail in RAILS if rail.cable > cables))
        changed = [f"{port} plugged" for port in sorted(set(record.pulled) - set(pulled))]
        changed += [f"{port} pulled" for port in sorted(set(pulled) - set(record.pulled))]
        self._changed += changed
        record = record.model_copy(update={"cables": cables, "phases_s": longest(record.phases_s, self._phases)})
        if changed:
            _apply_links(paths, record, pulled)
        else:
            write_model(paths.record, record)
        now = inspect(paths)
        if not now.up:
            raise NoVerdictError(
                "the VM pair did not come up whole: " + "; ".join(now.problems),
                hint="run `dspark-ops lab up --vm` again",
            )
        return now.model_copy(update={"changed": tuple(self._changed), "phases_s": self._phases})

    def _first_boot(self, image: BaseImage, needed: DiskRecord, *, made: bool) -> None:
        """Boot both from fresh disks, or wait for the boot that an interrupted run began; then take the snapshot."""
        paths = self._paths
        if not (made and all(machine.pid(paths, node) is not None for node in NODES)):
            self._stop("left by an interrupted run")
            make_disks(paths, image, needed)
            self._start(NODES, image, from_snapshot=False)
        with self._phase("boot"):
            with _monitors(paths, NODES) as monitors:
                _set_links(monitors, ())
                for monitor in monitors:
                    monitor.resume()
            _wait_until_ready(paths, NODES, timeout_s=_BOOT_TIMEOUT_S)
        with self._phase("docker engines"), ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(self._start_engine, NODES))
        with self._phase("snapshot"), _monitors(paths, NODES) as monitors:
            for monitor in monitors:
                monitor.pause()
            for monitor in monitors:
                monitor.save(SNAPSHOT)
            mark_saved(paths, needed)
            for monitor in monitors:
                monitor.resume()
        self._changed.append("snapshot taken")

    def _start_engine(self, node: Node) -> None:
        """The Engine of a VM starts when it is asked; in the snapshot it runs already."""
        if ask(self._paths, node, "docker info --format {{.Driver}}", timeout_s=_ENGINE_TIMEOUT_S) is None:
            raise NoVerdictError(
                f"{node.name}: Docker did not answer within {_ENGINE_TIMEOUT_S} s",
                hint=f"ssh -F {self._paths.ssh_config} {node.name} journalctl -u docker",
            )

    def _resume(self, image: BaseImage) -> None:
        """Start what does not run from the snapshot, and let go on what an interrupted run left paused."""
        paths = self._paths
        ended = tuple(node for node in NODES if machine.pid(paths, node) is None)
        record = read_model(paths.record, VmRecord) or VmRecord()
        if ended:
            self._start(ended, image, from_snapshot=True)
        with _monitors(paths, NODES) as monitors:
            paused = [monitor for monitor in monitors if not monitor.running()]
            _set_links(paused, record.pulled)
            for monitor in paused:
                monitor.resume()
        _wait_until_ready(paths, NODES, timeout_s=_RESUME_TIMEOUT_S, set_clock=bool(paused))

    def _start(self, nodes: Sequence[Node], image: BaseImage, *, from_snapshot: bool) -> None:
        paths = self._paths
        record = read_model(paths.record, VmRecord) or VmRecord()
        ports = {node.name: machine.free_ssh_port(node) for node in nodes}
        record = record.model_copy(update={"ssh_ports": {**record.ssh_ports, **ports}})
        write_model(paths.record, record)
        endpoints = {name: Endpoint("127.0.0.1", port) for name, port in record.ssh_ports.items()}
        write_endpoints(paths, endpoints, host_keys(paths))
        machines = [
            Machine(node, paths, image, machine.acceleration(), ports[node.name], from_snapshot) for node in nodes
        ]
        with ThreadPoolExecutor(len(machines)) as pool:
            list(pool.map(machine.start, machines))
        self._changed += [f"{node.name} started" for node in nodes]

    def _stop(self, why: str) -> None:
        for node in NODES:
            if machine.stop(self._paths, node):
                self._progress(f"{node.name} was {why}: ended")

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._phases[name] = round(time.monotonic() - began, 2)
        self._progress(f"{name}: {self._phases[name]:.1f} s")


@contextmanager
def _locked(progress: Progress) -> Iterator[VmPaths]:
    prerequisites.require_linux_root()
    paths = vm_paths()
    with lab_lock(paths.lock, wait_s=_WAIT_FOR_LOCK_S, progress=progress):
        yield paths


@contextmanager
def _monitors(paths: VmPaths, nodes: Sequence[Node]) -> Iterator[list[Monitor]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Monitor(paths.monitor(node))) for node in nodes]


def _set_links(monitors: Sequence[Monitor], pulled: Sequence[str]) -> None:
    for monitor in monitors:
        for rail in RAILS:
            monitor.set_link(machine.nic(rail.device), up=rail.name not in pulled)


def _apply_links(paths: VmPaths, record: VmRecord, pulled: tuple[str, ...]) -> None:
    """Remember first: what an interruption leaves undone, the next `up` or `cable` does."""
    write_model(paths.record, record.model_copy(update={"pulled": pulled}))
    with _monitors(paths, NODES) as monitors:
        _set_links(monitors, pulled)


def _wait_until_ready(paths: VmPaths, nodes: Sequence[Node], *, timeout_s: float, set_clock: bool = True) -> None:
    """Return when every node has booted and has its devices; its clock is then the machine's."""
    deadline = time.monotonic() + timeout_s

    def wait(node: Node) -> None:
        while True:
            clock = ("sudo", "date", "-u", "-s", f"@{time.time():.0f}", "&&") if set_clock else ()
            if answers(paths, node, *clock, "dspark-lab-ready"):
                return
            if machine.pid(paths, node) is None:
                raise NoVerdictError(f"{node.name}: the emulator ended", hint=_console(paths.console(node)))
            if time.monotonic() > deadline:
                raise NoVerdictError(
                    f"{node.name} was not booted with its RDMA devices, by SSH, within {timeout_s:.0f} s",
                    hint=_console(paths.console(node)),
                )
            time.sleep(0.5)

    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(wait, nodes))


def _console(path: Path) -> str:
    return f"its console wrote to {path}"
