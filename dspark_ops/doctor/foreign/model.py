"""What was found on a pair that dspark-ops did not set up. Typed, and kept with a recording."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from dspark_ops.config.models import Role

Keeper = Literal["compose", "docker", "podman", "systemd", "screen", "tmux", "process"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FoundServer(_Frozen):
    """One vLLM server. argv: what the process was started with; of a container that has ended, what it was told.

    pid: None when it does not run. pids: it and its children. container: the id; None for a process outside of any.
    keeper: what holds it; place: the compose project, unit or session by name. site: of dspark-ops, when it is a rank
    of ours all the same.
    """

    argv: tuple[str, ...]
    running: bool
    pid: int | None = None
    pids: tuple[int, ...] = ()
    user: str | None = None
    container: str | None = None
    container_name: str | None = None
    image: str | None = None
    keeper: Keeper = "process"
    place: str | None = None
    site: str | None = None
    node_rank: int | None = None
    nodes: int = 1
    headless: bool = False

    @property
    def where(self) -> str:
        """Where it is, in words."""
        name = f"container {self.container_name}" if self.container_name else f"process {self.pid}"
        held = {
            "compose": f"compose project {self.place}",
            "systemd": f"unit {self.place}",
            "screen": "a screen session",
            "tmux": "a tmux session",
            "podman": "Podman",
        }.get(self.keeper)
        return f"{name} ({held})" if held else name


class FoundNode(_Frozen):
    """One node. server: the rank; others: beside it, or those among which it could not be told.

    readable False: neither its processes nor its containers could be read. ray: Ray runs, which starts ranks by itself.
    """

    role: Role
    host: str
    reachable: bool
    server: FoundServer | None = None
    others: tuple[FoundServer, ...] = ()
    readable: bool = True
    ray: bool = False


class FoundPair(_Frozen):
    """Both nodes, and what is not known of them.

    swapped: the ranks say that the named head is the worker, and were believed. rails_known False: why_no_rails says
    it. invented: addresses that stand in the provisional site only because it needs some. unsaid: of the site, the keys
    that the command line does not say, so that nothing can be compared with them. off_rail: where the ranks meet, when
    it is on no rail. other_model: what is served, when it is not DeepSeek V4. closed: why the API cannot be asked.
    """

    head: FoundNode
    worker: FoundNode
    profile: str
    swapped: bool = False
    rails_known: bool = True
    why_no_rails: str | None = None
    invented: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()
    off_rail: str | None = None
    other_model: str | None = None
    closed: str | None = None
    notes: tuple[str, ...] = ()

    def of(self, role: Role) -> FoundNode:
        return self.head if role == "head" else self.worker

    @property
    def nodes(self) -> tuple[FoundNode, FoundNode]:
        return self.head, self.worker

    @property
    def reason(self) -> str:
        """Why what only dspark-ops writes is not judged."""
        sites = [node.server.site for node in self.nodes if node.server is not None and node.server.site is not None]
        if sites:
            return f"set up by dspark-ops as site {sites[0]}, whose site file was not named"
        return "not set up by dspark-ops"
