"""What runs on the pair now: both ranks, one verdict, and the completion that proves it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.observed import describe_exit, observe, started_at
from dspark_ops.deploy.spec import render_pair
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.snapshot import NodeFacts
from dspark_ops.facts.supervisor import SupervisorFacts
from dspark_ops.supervise.control.status import lines_of
from dspark_ops.transport.ssh import open_runner

State = Literal["ready", "not-answering", "half", "stopped", "unknown"]


class RankStatus(BaseModel):
    """One rank. None where it could not be told or there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    host: str
    reachable: bool
    error: str | None
    container: str | None
    exit_code: int | None
    release: str | None
    epoch: str | None
    started_at: str | None
    image_id: str | None


class PairStatus(BaseModel):
    """The pair. wanted_release is what the site file describes; text is the completion that came.

    supervisor: None where none is installed; one that does not answer says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/status/v1"] = Field(default="dspark-ops/status/v1", alias="schema")
    site: str
    state: State
    wanted_release: str
    drift: bool | None
    endpoint: str
    ranks: tuple[RankStatus, ...]
    completion: str | None
    problem: str | None
    supervisor: SupervisorFacts | None = None
    exit_code: int


def pair_status(loaded: LoadedSite) -> PairStatus:
    """Read both nodes once and ask for one completion; changes nothing, never raises for an unreachable node."""
    site = loaded.site
    runners = {role: open_runner(site, role) for role in ROLES}
    try:
        seen = observe(site, loaded.profile, runners)
    finally:
        for runner in runners.values():
            runner.close()
    ranks = tuple(_rank(node) for node in seen.pair.nodes)
    wanted = render_pair(site, loaded.profile)["head"].release
    answer = seen.canary
    state, problem = _state(seen.pair.head, seen.pair.worker, answer.correct if answer else False)
    if problem is None and answer is not None:
        problem = answer.error
    releases = {rank.release for rank in ranks if rank.container == "running"}
    return PairStatus(
        site=site.name,
        state=state,
        wanted_release=wanted,
        drift=None if not releases else releases != {wanted},
        endpoint=f"http://{site.serve.api_host}:{site.serve.api_port}/v1 on {site.nodes.head.host}",
        ranks=ranks,
        completion=answer.text if answer else None,
        problem=problem,
        supervisor=None if seen.supervisor.installed is False else seen.supervisor,
        exit_code=int(_EXIT[state]),
    )


_EXIT: dict[State, ExitCode] = {
    "ready": ExitCode.OK,
    "not-answering": ExitCode.VERDICT_BAD,
    "half": ExitCode.VERDICT_BAD,
    "stopped": ExitCode.VERDICT_BAD,
    "unknown": ExitCode.NO_VERDICT,
}


def _state(head: NodeFacts, worker: NodeFacts, correct: bool) -> tuple[State, str | None]:
    for node in (head, worker):
        if not node.reachable or not node.rank_known:
            why = node.error or (node.docker.error if node.docker else None)
            return "unknown", why or f"the containers on {node.role} could not be read"
    up = [node.role for node in (head, worker) if node.rank is not None and node.rank.running]
    if not up:
        return "stopped", None
    if len(up) == 1:
        other = worker if up == ["head"] else head
        how = f": {describe_exit(other.rank)}" if other.rank is not None else ""
        return "half", f"only the rank on {up[0]} runs; {other.role} is down{how}"
    if head.rank is not None and worker.rank is not None and head.rank.label("epoch") != worker.rank.label("epoch"):
        return "half", "the ranks were not started together (their epochs differ)"
    return ("ready", None) if correct else ("not-answering", None)


def _rank(node: NodeFacts) -> RankStatus:
    rank = node.rank
    began = started_at(rank) if rank else None
    return RankStatus(
        role=node.role,
        host=node.host,
        reachable=node.reachable,
        error=node.error,
        container=rank.state if rank else None,
        exit_code=rank.exit_code if rank and not rank.running else None,
        release=rank.label("release") if rank else None,
        epoch=rank.label("epoch") if rank else None,
        started_at=began.isoformat(timespec="seconds") if began else None,
        image_id=rank.image_id if rank else None,
    )


def render_status(status: PairStatus) -> str:
    """The status for people."""
    lines = [f"site {status.site}: {status.state}" + (f" ({status.problem})" if status.problem else "")]
    for rank in status.ranks:
        if not rank.reachable:
            lines.append(f"  {rank.role:<6} {rank.host}: not reached: {rank.error}")
        elif rank.container is None:
            lines.append(f"  {rank.role:<6} {rank.host}: no rank container")
        else:
            code = "" if rank.exit_code is None else f" (exit code {rank.exit_code})"
            lines.append(
                f"  {rank.role:<6} {rank.host}: {rank.container}{code}, release {rank.release}, "
                f"image {(rank.image_id or 'unknown')[:19]}, since {rank.started_at}"
            )
    if status.drift:
        lines.append(f"  drift: the site file describes release {status.wanted_release}; next: dspark-ops deploy")
    if status.completion is not None:
        lines.append(f"  completion: {status.completion.strip()}")
    lines.append(f"  endpoint: {status.endpoint}")
    if status.supervisor is not None and status.ranks[0].reachable:
        lines += [f"  {line}" for line in lines_of(status.supervisor, status.site)]
    return "\n".join(lines)
