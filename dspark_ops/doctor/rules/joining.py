"""How the two ranks were told to find each other: numbers, place, shape, and how long they wait."""

from __future__ import annotations

from collections.abc import Iterator

from dspark_ops.config.models import NODE_RANK
from dspark_ops.doctor.outcome import Outcome, PairView
from dspark_ops.doctor.registry import pair_rule
from dspark_ops.doctor.told import Told, judge_told, need_own_executor


@pair_rule("config.rank_numbers")
def rank_numbers(view: PairView) -> Outcome:
    """The head is rank 0 with the API, the worker rank 1 without one."""
    need_own_executor(view)

    def problems(rank: Told) -> Iterator[str]:
        number, wanted = rank.last("--node-rank"), NODE_RANK[rank.role]
        if number != str(wanted):
            yield f"the {rank.role} has --node-rank {number or 'absent'}, expected {wanted}"
        headless = rank.given("--headless")
        if headless != (rank.role == "worker"):
            yield f"the {rank.role} is {'' if headless else 'not '}headless"

    return judge_told(view, problems, "head 0, worker 1", "head 0, worker 1 and headless")


@pair_rule("config.rendezvous")
def rendezvous(view: PairView) -> Outcome:
    """Both ranks meet at the head's address on the first rail, on the site's port."""
    need_own_executor(view)
    address, port = str(view.site.fabric.rails[0].head.address.ip), str(view.site.serve.master_port)

    def problems(rank: Told) -> Iterator[str]:
        for name, wanted in (("--master-addr", address), ("--master-port", port)):
            if rank.last(name) != wanted:
                yield f"{name} is {rank.last(name) or 'absent'}"

    return judge_told(view, problems, f"{address}:{port}", f"{address}:{port} on both ranks")


@pair_rule("config.parallel_shape")
def parallel_shape(view: PairView) -> Outcome:
    """Two nodes, tensor parallel of two, nothing else parallel."""
    need_own_executor(view)
    wanted = {"--tensor-parallel-size": 2, "--nnodes": 2}
    single = ("--pipeline-parallel-size", "--data-parallel-size")

    def problems(rank: Told) -> Iterator[str]:
        for name, value in wanted.items():
            if rank.whole(name) != value:
                yield f"{name} is {rank.last(name) or 'absent'}"
        for name in single:
            if rank.given(name) and rank.whole(name) != 1:
                yield f"{name} is {rank.last(name)}"

    return judge_told(view, problems, "tensor parallel 2 over 2 nodes", "tensor parallel 2 over 2 nodes")


@pair_rule("config.distributed_timeout")
def distributed_timeout(view: PairView) -> Outcome:
    """A rank whose partner never comes gives up while somebody still looks."""
    limit = view.limits["max_seconds"]

    def problems(rank: Told) -> Iterator[str]:
        seconds = rank.whole("--distributed-timeout-seconds")
        if seconds is None:
            yield "--distributed-timeout-seconds is not given: 1800 s without a line"
        elif seconds > limit:
            yield f"--distributed-timeout-seconds is {seconds}"

    return judge_told(view, problems, "a lone rank gives up in time", f"given, at most {limit:g}")
