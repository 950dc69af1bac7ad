"""Which sources a node has, from its configuration."""

from __future__ import annotations

import time
from collections.abc import Callable

from dspark_ops.observe.exporter import gpu
from dspark_ops.observe.exporter.config import Config
from dspark_ops.observe.exporter.doctor import export_doctor
from dspark_ops.observe.exporter.engine import Engine, export_models
from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.gateway import Gateway
from dspark_ops.observe.exporter.host import export_aer, export_memory
from dspark_ops.observe.exporter.http_get import Get, get
from dspark_ops.observe.exporter.kernel import KernelMessages
from dspark_ops.observe.exporter.polling import Source
from dspark_ops.observe.exporter.rails import Rails
from dspark_ops.observe.exporter.rdma import export_counters
from dspark_ops.observe.exporter.supervisor import Supervisor
from dspark_ops.observe.exporter.tree import Tree

# A state of the supervisor can be short; its document costs nothing.
_SUPERVISOR_S = 5.0


def make_sources(
    config: Config,
    tree: Tree,
    run: gpu.Run = gpu.run,
    fetch: Get | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> list[Source]:
    """The sources of this node: those of every node, and those that its configuration names.

    run, fetch, clock, wall: how programs are run, services asked and time is told; tests give others.
    """
    reads: dict[str, Callable[[Families], None]] = {
        "memory": lambda into: export_memory(tree, config.memory_floor_bytes, into),
        "pcie": lambda into: export_aer(tree, into),
        "kernel": KernelMessages(tree).read,
        "rdma": lambda into: export_counters(tree, config.rails, into),
    }
    if config.rails:
        reads["rails"] = Rails(tree, config.rails).read
    if config.gpu:
        reads["gpu"] = lambda into: gpu.export_state(run, into)
        reads["gpu_holders"] = lambda into: gpu.export_holders(tree, run, config.rank_arguments, into)
    if config.engine_url is not None:
        url = config.engine_url
        reads["engine"] = Engine(url, fetch or get, clock).read
        reads["model"] = lambda into: export_models(url, config.max_model_len, into, fetch)
    if config.supervisor_url is not None:
        reads["supervisor"] = Supervisor(config.supervisor_url, fetch or get, wall).read
    if config.gateway_url is not None:
        reads["gateway"] = Gateway(config.gateway_url, fetch or get).read
    if config.doctor_textfile is not None:
        textfile = config.doctor_textfile
        reads["doctor"] = lambda into: export_doctor(tree, textfile, into)
    return [
        Source(name, read, min(_SUPERVISOR_S, config.interval_s) if name == "supervisor" else config.interval_s)
        for name, read in reads.items()
    ]
