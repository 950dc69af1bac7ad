"""The rehearsal pair: bring it up, look at it, take it away. Each step finds what is there and does what is missing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.lab import cables as cabling
from dspark_ops.lab import prerequisites, teardown
from dspark_ops.lab.cables import LinkState, Namespace, Wiring
from dspark_ops.lab.engine_host import DockerHost, ensure_docker, find_docker
from dspark_ops.lab.lab_lock import lab_lock
from dspark_ops.lab.layout import NODES, PORTS, WORKER, LabPaths, Node, Port, lab_paths
from dspark_ops.lab.models import DownReport, EngineStatus, LabStatus, LookAlike, NodeStatus, PortStatus
from dspark_ops.lab.network import ensure_network, find_subnet
from dspark_ops.lab.node_image import ensure_node_image
from dspark_ops.lab.node_memory import held_to_gib
from dspark_ops.lab.nodes import container_pid, ensure_container, find_container, host_key
from dspark_ops.lab.record import LabRecord, longest, read_record, write_record
from dspark_ops.lab.ssh_access import answers, wait_until_ready, write_ssh_files
from dspark_ops.paths import data_dir

if TYPE_CHECKING:
    import docker

    from dspark_ops.images.docker_cli import DockerCli

Progress = Callable[[str], None]
_WAIT_FOR_LOCK_S = 900.0


def _silent(_: str) -> None:
    """Progress that nobody reads."""


def up(
    *,
    cables: int = 2,
    crossed: bool = False,
    engine: bool = True,
    install_prerequisites: bool = False,
    progress: Progress = _silent,
) -> LabStatus:
    """Bring the pair up with `cables` cables, or finish what an interrupted run began; the pair as it is then.

    A second call on a pair that is up changes nothing: `changed` is empty. `engine` also makes sure that the archive
    of the engine's image is in the cache, so that a deploy can load it.
    """
    if cables not in (1, 2):
        raise ConfigError(f"--cables is 1 or 2, not {cables}", hint="a DGX Spark has two QSFP cages")
    if crossed and cables != 2:
        raise ConfigError("--crossed needs two cables: one alone cannot be crossed with another")
    prerequisites.require_linux_root()
    paths = lab_paths()
    with lab_lock(paths.lock, wait_s=_WAIT_FOR_LOCK_S, progress=progress):
        paths.log.mkdir(parents=True, exist_ok=True)
        paths.state.chmod(0o700)
        return _up(
            paths, cables=cables, crossed=crossed, engine=engine, install=install_prerequisites, progress=progress
        )


def down(*, purge: bool = False, progress: Progress = _silent) -> DownReport:
    """Take the pair away from any state, half-built ones included; with `purge` the build cache too."""
    prerequisites.require_linux_root()
    paths = lab_paths()
    with lab_lock(paths.lock, wait_s=_WAIT_FOR_LOCK_S, progress=progress):
        return teardown.remove_lab(paths, purge=purge, progress=progress)


def status() -> LabStatus:
    """The pair as it is now; reads only."""
    prerequisites.require_linux_root()
    return _status(lab_paths())


def _up(paths: LabPaths, *, cables: int, crossed: bool, engine: bool, install: bool, progress: Progress) -> LabStatus:
    changed: list[str] = []
    phases: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        phases[name] = round(time.monotonic() - began, 2)
        progress(f"{name}: {phases[name]:.1f} s")

    with phase("prerequisites"):
        answering = find_docker(paths.state) is not None
        prerequisites.ensure(engine_answers=answering, install=install, progress=progress)
    with phase("docker"):
        host = ensure_docker(paths.state)
        if not answering:
            changed.append("docker engine started")
    with closing(host.client()) as client:
        with phase("node image"):
            image = ensure_node_image(client, paths, progress=progress)
        with phase("hosts"):
            subnet = ensure_network(client, paths)
            for node in NODES:
                started = ensure_container(client, node, image=image, subnet=subnet, paths=paths, progress=progress)
                changed += [f"{node.name} started"] if started else []
            write_ssh_files(paths, subnet, {node.name: host_key(paths, node) for node in NODES})
        with phase("cables"):
            wiring = _wiring(client, paths, crossed=crossed)
            changed += [f"{port} plugged" for port in wiring.plug(cables)]
        with phase("ssh"):
            wait_until_ready(paths)
        known = read_record(paths)
        image_reference = known.engine_image if known else None
        write_record(
            paths,
            LabRecord(cables=cables, crossed=crossed, engine_image=image_reference, phases_s=_kept(known, phases)),
        )
        if engine:
            with phase("engine image"):
                image_reference = _ensure_engine(host, paths, progress)
            write_record(
                paths,
                LabRecord(cables=cables, crossed=crossed, engine_image=image_reference, phases_s=_kept(known, phases)),
            )
    now = _status(paths)
    if not now.up:
        raise NoVerdictError(
            "the pair did not come up whole: " + "; ".join(now.problems), hint="run `dspark-ops lab up` again"
        )
    return now.model_copy(update={"changed": tuple(changed), "phases_s": phases})


def _kept(known: LabRecord | None, phases: dict[str, float]) -> dict[str, float]:
    return longest(known.phases_s if known else {}, phases)


def _ensure_engine(host: DockerHost, paths: LabPaths, progress: Progress) -> str:
    from dspark_ops.config.load import load_profile
    from dspark_ops.images.build import ensure_image
    from dspark_ops.images.docker_cli import find_docker_cli

    def engine() -> DockerCli:
        return find_docker_cli(f"unix://{host.socket}")

    return ensure_image(load_profile("rehearsal"), engine, paths.images, progress=progress).reference


def _wiring(client: docker.DockerClient, paths: LabPaths, *, crossed: bool) -> Wiring:
    nodes = {node.name: Namespace(pid=container_pid(client, node)) for node in NODES}
    return Wiring(nodes=nodes, dark=cabling.ensure_dark(paths.dark), crossed=crossed)


def _status(paths: LabPaths) -> LabStatus:
    host = find_docker(paths.state)
    record = read_record(paths)
    wanted = record.cables if record else None
    nodes: tuple[NodeStatus, ...] = tuple(_absent(node) for node in NODES)
    if host is not None:
        with closing(host.client()) as client:
            nodes = _nodes(client, paths, wanted, crossed=record.crossed if record else False)
    problems = _problems(nodes)
    state = "partial" if problems else "up"
    if all(node.container == "absent" for node in nodes):
        state = "down"
    return LabStatus.model_validate(
        {
            "state": state,
            "problems": tuple(problems) if state == "partial" else (),
            "engine": EngineStatus(own=host.own, socket=host.socket) if host else None,
            "cables": wanted if state != "down" else None,
            "ssh_config": paths.ssh_config if paths.ssh_config.is_file() else None,
            "engine_image": record.engine_image if record else None,
            "nodes": nodes,
            "look_alikes": look_alikes(),
            "phases_s": record.phases_s if record else {},
        }
    )


def look_alikes() -> tuple[LookAlike, ...]:
    """What the nodes show that is not real: the list that each node carries as /etc/dspark-lab.json."""
    listed = data_dir("images") / "node/rootfs/etc/dspark-lab.json"
    return tuple(LookAlike.model_validate(item) for item in json.loads(listed.read_text(encoding="utf-8")))


def _nodes(
    client: docker.DockerClient, paths: LabPaths, wanted: int | None, *, crossed: bool
) -> tuple[NodeStatus, ...]:
    containers = {node.name: find_container(client, node) for node in NODES}
    subnet = find_subnet(client)
    running = {n: c for n, c in containers.items() if c is not None and c.status == "running"}
    spaces = {name: Namespace(pid=int(c.attrs["State"]["Pid"])) for name, c in running.items()}
    seen = {name: cabling.links(space) for name, space in spaces.items()}
    verdict: dict[tuple[str, str], bool] = {}
    if len(spaces) == len(NODES) and wanted is not None and cabling.is_namespace(paths.dark):
        verdict = Wiring(nodes=spaces, dark=Namespace(file=paths.dark), crossed=crossed).correct(wanted)
    found = []
    for node in NODES:
        container = containers[node.name]
        found.append(
            NodeStatus(
                name=node.name,
                container=container.status if container is not None else "absent",
                management_ip=node.management_ip(subnet) if subnet else None,
                ssh=node.name in running and answers(paths, node),
                memory_gib=held_to_gib(container) if container is not None else None,
                ports=_ports(node, seen.get(node.name, {}), verdict, wanted, crossed=crossed),
            )
        )
    return tuple(found)


def _ports(
    node: Node, seen: dict[str, LinkState], verdict: dict[tuple[str, str], bool], wanted: int | None, *, crossed: bool
) -> tuple[PortStatus, ...]:
    found = []
    for port in PORTS:
        link = seen.get(port.name)
        found.append(
            PortStatus(
                name=port.name,
                cage=port.cage,
                half=port.half,
                cable=_cable(node, port, crossed=crossed) if wanted is not None and port.cage < wanted else None,
                plugged_as_wanted=verdict.get((node.name, port.name), False),
                admin_up=link.admin_up if link else False,
                carrier=link.carrier if link else False,
                mtu=link.mtu if link else None,
                addresses=link.addresses if link else (),
            )
        )
    return tuple(found)


def _cable(node: Node, port: Port, *, crossed: bool) -> int:
    """Cables are numbered by the head's cages; crossed, the worker's end of each is in the other cage."""
    return 2 - port.cage if crossed and node is WORKER else port.cage + 1


def _absent(node: Node) -> NodeStatus:
    return NodeStatus(name=node.name, container="absent", management_ip=None, ssh=False, ports=())


def _problems(nodes: tuple[NodeStatus, ...]) -> list[str]:
    found = []
    for node in nodes:
        if node.container != "running":
            found.append(f"{node.name}: container is {node.container}")
            continue
        if not node.ssh:
            found.append(f"{node.name}: no answer over SSH")
        loose = [port.name for port in node.ports if not port.plugged_as_wanted]
        if loose:
            found.append(f"{node.name}: not wired as wanted: {', '.join(loose)}")
    return found
